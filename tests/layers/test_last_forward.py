"""A layer keeps one forward: to go forward twice before a backward is right or refused, never wrong in silence."""

from __future__ import annotations

import copy
import itertools
import threading
import warnings

import numpy as np
import pytest

import npattn
from npattn.attention.residual import Residual
from npattn.checker.cases import Maker
from npattn.nested import Nested
from npattn.variants import CBAM
from tests.support.cases import MAKERS, ident, image_for

TWICE = "a layer keeps its last forward only"


@pytest.fixture(params=MAKERS, ids=ident)
def layer(request) -> npattn.Layer:
    made: Maker = request.param
    return made()


def images(layer: npattn.Layer, count: int = 2, seed: int = 60) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = image_for(layer, (2, 8, 4, 3))
    return [rng.standard_normal(shape).astype(np.float32) for _ in range(count)]


def cotangent(y: np.ndarray, seed: int = 61) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(y.shape).astype(y.dtype)


# One object at two places


def test_sequential_refuses_one_object_at_two_places():
    relu = npattn.ReLU()
    with pytest.raises(ValueError, match=r"1, 3: expected a layer object for each place, got the same ReLU\(\) twice"):
        npattn.Sequential(npattn.Conv2d(2, 4), relu, npattn.Conv2d(4, 2), relu)


def test_any_depth_is_looked_at():
    relu = npattn.ReLU()
    with pytest.raises(ValueError, match=r"0\.relu, 1\.attention\.0: expected a layer object for each place"):
        npattn.Sequential(npattn.Sequential(relu=relu), npattn.Gated(npattn.Sequential(relu)))
    whole = npattn.Sequential(relu)
    with pytest.raises(ValueError, match="branch, skip: expected a layer object for each place"):
        Residual(whole, skip=whole)
    gate = npattn.ChannelAttention(8, 4)
    with pytest.raises(ValueError, match="ca, sa: expected a layer object for each place"):
        CBAM(gate, gate)
    se = npattn.dialects.load("xmu", "SEAttention", npattn.SELayer(8, 4).state_dict(), channel=8, reduction=4)
    with pytest.raises(ValueError, match=r"0\.layer, 1: expected a layer object for each place"):
        npattn.Sequential(se, se.layer)


class TwiceWithin(Nested):
    """What nobody can see before a forward: one layer, called twice by the `run` of another."""

    def __init__(self, layer: npattn.Layer) -> None:
        super().__init__({"layer": layer})

    def run(self, x):
        inner = self.layers["layer"]
        y = inner.forward(inner.forward(x))
        self._after_run()
        return y, ()

    def undo(self, dy, cache):
        inner = self.layers["layer"]
        return inner.backward(inner.backward(dy)), dict(self.grads)


@pytest.mark.parametrize("inner", [npattn.ReLU, npattn.Sigmoid, lambda: npattn.CBAM(8, 4, 3)])
def test_a_layer_that_another_calls_twice_refuses_the_first_backward(inner):
    layer = TwiceWithin(inner())
    y = layer(images(layer)[0])
    with pytest.raises(RuntimeError, match=f"used 2 times within one layer: {TWICE}"):
        layer.backward(cotangent(y))


def test_gradcheck_names_the_cause():
    layer = TwiceWithin(npattn.Sigmoid())
    report = npattn.gradcheck(layer, images(layer)[0], raise_exception=False)
    assert not report
    assert "Sigmoid: used 2 times within one layer" in str(report)


# Two forwards, two backwards


@pytest.mark.parametrize("held", [True, False], ids=["outputs held", "outputs dropped"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["first first", "last first"])
def test_two_forwards_then_two_backwards_are_refused(layer, held: bool, order: tuple[int, int]):
    inputs = images(layer)
    outputs = [layer(x) for x in inputs]
    dys = [cotangent(y) for y in outputs]
    if not held:
        del outputs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        if not held:
            layer.backward(dys[order[0]])  # with a warning
        with pytest.raises(RuntimeError, match=TWICE):
            layer.backward(dys[order[1]])


def test_a_single_backward_is_refused_where_both_outputs_are_in_use(layer):
    a, b = images(layer)
    y1, y2 = layer(a), layer(b)
    for dy in (cotangent(y1), cotangent(y2)):
        with pytest.raises(RuntimeError, match=f"outputs of both still in use: {TWICE}"):
            layer.backward(dy)
        with pytest.raises(RuntimeError, match=TWICE):
            layer.backward_params(dy)


def test_after_a_look_whose_output_is_gone_the_backward_is_the_last_ones_with_a_warning(layer):
    a, b = images(layer)
    layer(a)
    y = layer(b)
    with pytest.warns(RuntimeWarning, match=f"backward after two forwards is that of the last one: {TWICE}"):
        dx = layer.backward(cotangent(y))
    with pytest.raises(RuntimeError, match=f"second backward after two forwards: {TWICE}"):
        layer.backward(cotangent(y))
    layer(b)
    np.testing.assert_array_equal(layer.backward(cotangent(y)), dx)
    np.testing.assert_array_equal(layer.backward(cotangent(y)), dx)  # now as often as one likes


def test_the_same_forward_again_is_no_other():
    layer = npattn.CBAM(8, 4, 3)
    (x,) = images(layer, 1)
    y1, y2 = layer(x), layer(x)
    np.testing.assert_array_equal(layer.backward(cotangent(y2)), layer.backward(cotangent(y1)))
    y1, y2 = layer(x), layer(x.copy())
    with pytest.raises(RuntimeError, match="both still in use"):
        layer.backward(cotangent(y1))


def test_outputs_of_another_shape_need_no_guess():
    layer = npattn.ReLU()
    a, b = images(layer)
    y1, y2 = layer(a), layer(b[:1])
    with pytest.warns(RuntimeWarning, match=TWICE):
        layer.backward(cotangent(y2))
    with pytest.raises(ValueError, match="dy: expected shape"):
        npattn.ReLU.backward(copy_with_forward(layer, b[:1]), cotangent(y1))


def copy_with_forward(layer: npattn.Layer, x: np.ndarray) -> npattn.Layer:
    twin = copy.deepcopy(layer)
    twin(x)
    return twin


def test_a_loop_warns_of_nothing(layer):
    inputs = images(layer, 4)
    with npattn.no_grad():
        looked = [layer(x) for x in inputs]
    for x in inputs:
        y = layer(x)
        layer.backward(cotangent(y))
        layer.backward_params(cotangent(y))
    assert len(looked) == 4


def test_many_evaluations_do_not_add_up():
    layer = npattn.ReLU()
    inputs = images(layer, 3)
    for _ in range(2000):
        y = layer(inputs[0])
    assert len(layer._last._held) <= 1
    kept = [layer(inputs[1]) for _ in range(50)]
    assert len(layer._last._held) <= 51
    del kept, y
    assert len(layer._last._held) == 0


# A layer within another


def test_a_part_that_went_forward_by_itself_refuses_the_whole_ones_backward():
    gate = npattn.ChannelAttention(8, 4)
    whole = npattn.Gated(gate)
    a, b = images(whole)
    y = whole(a)
    gate(b)
    with pytest.raises(RuntimeError, match=f"ChannelAttention: backward after a later forward of its own.*{TWICE}"):
        whole.backward(cotangent(y))
    y = whole(a)
    gate(a)  # the same again: what it keeps is what the whole one needs
    whole.backward(cotangent(y))


def test_two_networks_with_one_part_are_refused():
    part = npattn.CBAM(8, 4, 3)
    one, other = npattn.Sequential(part, npattn.ReLU()), npattn.Sequential(npattn.ReLU(), part)
    a, b = images(one)
    y1, y2 = one(a), other(b)
    other.backward(cotangent(y2))
    with pytest.raises(RuntimeError, match=TWICE):
        one.backward(cotangent(y1))
    one.backward(cotangent(one(a)))  # one after the other is right


# Every order of events, against layers of their own


@pytest.mark.parametrize("hold", [True, False], ids=["outputs held", "outputs dropped"])
def test_any_order_is_right_or_refused_or_warned_of(hold: bool):
    """Forwards of a and b, backwards for either, and a look under no_grad, in every order of five."""
    rng = np.random.default_rng(5)
    layer = npattn.Sequential(npattn.Conv2d(2, 2, 3, rng=1, dtype="float64"), npattn.ReLU(dtype="float64"))
    x = {name: rng.standard_normal((1, 2, 3, 3)) for name in "ab"}
    dys, right = {}, {}
    for name in "ab":
        own = copy.deepcopy(layer)
        dys[name] = cotangent(own(x[name]), seed=ord(name))
        right[name] = own.backward(dys[name])
    given = refused = 0
    for events in itertools.product(["a", "b", "back for a", "back for b", "look"], repeat=5):
        here, outputs, awaiting, told = copy.deepcopy(layer), [], set(), False
        try:
            for event in events:
                if event == "look":
                    with npattn.no_grad():
                        here(x["a"])
                elif event in x:
                    y = here(x[event])
                    if hold:
                        outputs.append(y)
                    y = None
                    awaiting.add(event)
                elif event[-1] in awaiting:  # once a forward: again, it would be another program's fault
                    with warnings.catch_warnings(record=True) as warned:
                        warnings.simplefilter("always")
                        dx = here.backward(dys[event[-1]])
                    awaiting.remove(event[-1])
                    told = told or bool(warned) or ("look" in events and not hold)
                    assert np.array_equal(dx, right[event[-1]]) or told, events
                    given += 1
        except RuntimeError:
            refused += 1
    assert given > 200
    assert refused > 100


# Threads


def test_a_thread_whose_forward_was_replaced_is_refused():
    layer = npattn.CBAM(8, 4, 3)
    a, b = images(layer)
    y = layer(a)
    other = threading.Thread(target=lambda: layer(b))
    other.start()
    other.join()
    with pytest.raises(RuntimeError, match="backward after a forward of another thread"):
        layer.backward(cotangent(y))


def test_a_backward_may_run_in_another_thread():
    layer = npattn.CBAM(8, 4, 3)
    (x,) = images(layer, 1)
    y = layer(x)
    dxs = []
    other = threading.Thread(target=lambda: dxs.append(layer.backward(cotangent(y))))
    other.start()
    other.join()
    assert len(layer.grads) == 3
    np.testing.assert_array_equal(layer.backward(cotangent(y)), dxs[0])


def test_gradients_that_another_thread_replaced_are_refused():
    layer = npattn.CBAM(8, 4, 3)
    a, b = images(layer)
    layer.backward(cotangent(layer(a)))
    done, read = threading.Event(), threading.Event()

    def other() -> None:
        layer.backward(cotangent(layer(b)))
        done.set()
        read.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    done.wait(10)
    with pytest.raises(RuntimeError, match="CBAM: grads after a backward of another thread"):
        _ = layer.grads
    read.set()
    thread.join()
    layer.backward(cotangent(layer(a)))
    assert len(layer.grads) == 3


def test_threads_that_share_a_layer_get_the_right_gradients_or_an_error():
    layer = npattn.Sequential(npattn.Conv2d(8, 8, 3, rng=1), npattn.BatchNorm2d(8), npattn.CBAM(8, 4, 3, rng=0))
    inputs = images(layer, 6)
    right = []
    for x in inputs:
        own = copy.deepcopy(layer)
        y = own(x)
        right.append((own.backward(cotangent(y)), {key: np.array(g) for key, g in own.grads.items()}))
    wrong, fine, refused = [], [], []
    start = threading.Barrier(6)

    def work(i: int) -> None:
        start.wait()
        for _ in range(40):
            try:
                y = layer(inputs[i])
                dx = layer.backward(cotangent(y))
                grads = {key: np.array(g) for key, g in layer.grads.items()}
            except RuntimeError:
                refused.append(i)
                continue
            same = np.array_equal(dx, right[i][0])
            same = same and all(np.array_equal(grads[key], g) for key, g in right[i][1].items())
            (fine if same else wrong).append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(fine) + len(refused) == 240
    assert layer.layers["1"].num_batches_tracked == 240
