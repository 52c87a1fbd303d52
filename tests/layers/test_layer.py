"""Layers: what they own, what they refuse, and that a refusal changes nothing."""

from __future__ import annotations

import contextlib
import copy
import pickle
import re
import sys
import threading

import numpy as np
import pytest

import npattn
from npattn.checker.cases import PLACE, Maker
from npattn.ops import conv2d, general_conv, global_max_pool, linear, loss, max_pool_2x2
from tests.support.cases import CASES, MAKERS, Case, ident, image_for

CHOSEN = {
    "SELayer": lambda **o: npattn.SELayer(8, 2, **o),
    "ChannelAttention": lambda **o: npattn.ChannelAttention(8, 2, **o),
    "SpatialAttention": lambda **o: npattn.SpatialAttention(3, **o),
    "CBAM": lambda **o: npattn.CBAM(8, 2, 3, **o),
    "Conv2d": lambda **o: npattn.Conv2d(8, 4, 3, **o),
    "BatchNorm2d": lambda **o: npattn.BatchNorm2d(8, **o),
    "MaxPool2x2": lambda **o: npattn.MaxPool2x2(**o),
    "GlobalAvgPool": lambda **o: npattn.GlobalAvgPool(**o),
    "Sequential": lambda **o: npattn.Sequential(
        conv=npattn.Conv2d(8, 4, **o), bn=npattn.BatchNorm2d(4, **o), inner=npattn.Sequential(npattn.CBAM(4, 2, 3, **o))
    ),
}
"""What a test that speaks of one layer asks; those of all layers take `make` or `layer`."""

EVERY = [*MAKERS, Maker("Sequential", lambda place, **options: CHOSEN["Sequential"](**options))]
X = np.random.default_rng(40).standard_normal((2, 8, 6, 5)).astype(np.float32)


@pytest.fixture(params=EVERY, ids=ident)
def make(request) -> Maker:
    return request.param


@pytest.fixture
def layer(make) -> npattn.Layer:
    return make()


def image(layer: npattn.Layer) -> np.ndarray:
    """X, or as much of it as the layer is made for."""
    N, C, H, W = image_for(layer, X.shape)
    return X[:N, :C, :H, :W].copy()


def run(layer: npattn.Layer):
    y = layer(image(layer))
    return y, np.random.default_rng(41).standard_normal(y.shape).astype(y.dtype)


# What a layer does


@pytest.mark.parametrize("fused", [True, False])
def test_backward_params_gives_the_gradients_of_backward(make: Maker, fused: bool):
    layer = make(fused)
    _, dy = run(layer)
    layer.backward(dy)
    wanted = {key: np.array(g) for key, g in layer.grads.items()}
    assert layer.backward_params(dy) is None
    assert list(layer.grads) == list(wanted)
    for key, g in wanted.items():
        np.testing.assert_array_equal(layer.grads[key], g, err_msg=key)


def test_backward_params_refuses_what_backward_refuses(layer):
    with pytest.raises(RuntimeError, match="backward before forward"):
        layer.backward_params(X)
    _, dy = run(layer)
    with pytest.raises(ValueError, match="dy: expected shape"):
        layer.backward_params(dy[:1])
    with pytest.raises(TypeError, match="dy: expected dtype float32"):
        layer.backward_params(dy.astype(np.float64))


def test_params_and_grads_have_the_same_keys_and_shapes(layer):
    _, dy = run(layer)
    dx = layer.backward(dy)
    assert dx.shape == image(layer).shape
    assert dx.dtype == X.dtype
    assert list(layer.params) == list(layer.grads)
    assert all(layer.params[key].shape == layer.grads[key].shape for key in layer.params)


def test_backward_replaces_gradients(layer):
    _, dy = run(layer)
    dx = layer.backward(dy)
    first = {key: np.array(g) for key, g in layer.grads.items()}
    np.testing.assert_array_equal(layer.backward(dy), dx)
    for key, gradient in layer.grads.items():
        np.testing.assert_array_equal(gradient, first[key])


def test_float64_stays_float64(make: Maker):
    layer = make.make(PLACE, dtype="float64")
    y = layer(image(layer).astype(np.float64))
    assert y.dtype == layer.backward(np.ones_like(y)).dtype == np.float64


def test_keys_are_pytorchs():
    shapes = {key: value.shape for key, value in npattn.CBAM(32, 16, 7).state_dict().items()}
    assert shapes == {"ca.fc1.weight": (2, 32, 1, 1), "ca.fc2.weight": (32, 2, 1, 1), "sa.conv1.weight": (1, 2, 7, 7)}
    shapes = {key: value.shape for key, value in npattn.SELayer(32).state_dict().items()}
    assert shapes == {"fc.0.weight": (2, 32), "fc.2.weight": (32, 2)}
    assert list(npattn.ChannelAttention(32).params) == ["fc1.weight", "fc2.weight"]
    assert list(npattn.SpatialAttention().params) == ["conv1.weight"]


def test_hidden_width_is_rounded_down():
    assert npattn.SELayer(33, 16).params["fc.0.weight"].shape == (2, 33)
    assert npattn.ChannelAttention(16, 16).params["fc1.weight"].shape == (1, 16, 1, 1)


def test_attention_gives_the_gates():
    cbam = npattn.CBAM(8, 2, 3, rng=0)
    assert cbam.attention == {}
    y = cbam(X)
    gates = cbam.attention
    assert gates["channel"].shape == (2, 8, 1, 1)
    assert gates["spatial"].shape == (2, 1, 6, 5)
    np.testing.assert_allclose(y, X * gates["channel"] * gates["spatial"], rtol=1e-6)
    gates["channel"][...] = 0  # a copy: the layer does not notice
    assert cbam.attention["channel"].min() > 0
    with npattn.no_grad():
        nested = npattn.Sequential(stage=npattn.Sequential(attention=cbam), end=npattn.GlobalAvgPool())
        nested(X)
    assert list(nested.attention) == ["stage.attention.channel", "stage.attention.spatial"]


def test_path_says_which_implementation_ran(layer):
    assert layer.path is None
    run(layer)
    assert set(layer.path.split(" + ")) <= {"textbook", "fused"}


def test_without_fused_the_textbook_runs(make: Maker):
    layer = make(fused=False)
    run(layer)
    assert layer.path == "textbook"


def test_the_same_seed_gives_the_same_weights(make: Maker):
    one, same, other = (make.make(PLACE, rng=rng) for rng in (5, 5, 6))
    for key, value in one.params.items():
        np.testing.assert_array_equal(value, same.params[key])
        given = np.all((value == 0) | (value == 1))  # a norm's first values
        assert given or not np.array_equal(value, other.params[key]), key


def test_a_generator_is_a_seed_that_goes_on():
    for name in ("SELayer", "ChannelAttention", "SpatialAttention", "CBAM", "Conv2d"):
        rng = np.random.default_rng(5)
        one, same, other = (CHOSEN[name](rng=rng) for rng in (5, rng, rng))
        for key, value in one.params.items():
            np.testing.assert_array_equal(value, same.params[key])
            assert not np.array_equal(value, other.params[key])


def test_deep_copies_are_independent(layer):
    y, dy = run(layer.eval())
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(twin(image(layer)), y)
        twin.backward(dy)
        for value in twin.params.values():
            value[...] = 0
        np.testing.assert_array_equal(layer(image(layer)), y)
        with pytest.raises(RuntimeError, match="backward on a copy"):
            copy.deepcopy(layer).backward(dy)


def test_train_and_eval_reach_every_layer():
    model = CHOSEN["Sequential"](rng=0)
    assert model.eval() is model
    assert not model.layers["bn"].training
    before = dict(model.buffers)
    _, dy = run(model)
    assert model.backward(dy).shape == X.shape
    assert all(np.array_equal(before[key], value) for key, value in model.buffers.items())
    model.train()
    run(model)
    assert not any(np.array_equal(before[key], value) for key, value in model.buffers.items())


def test_sequential_sees_and_sets_its_layers_parameters():
    model = CHOSEN["Sequential"](rng=0)
    new = np.zeros_like(model.params["inner.0.sa.conv1.weight"])
    model.params["inner.0.sa.conv1.weight"] = new
    assert model.layers["inner"].layers["0"].params["sa.conv1.weight"] is new
    assert model.count() == sum(value.size for value in model.params.values())
    assert "inner.0.ca.fc1.weight" in repr(model.params)
    with pytest.raises(KeyError):
        model.params["conv.nothing"] = new
    with pytest.raises(KeyError):
        model.params["nowhere.weight"]
    with pytest.raises(TypeError, match="names are fixed"):
        del model.params["conv.weight"]
    assert repr(model).startswith("Sequential(\n  conv: Conv2d(8, 4, kernel_size=3)")


def test_to_moves_to_another_dtype(layer):
    x = image(layer)
    y = layer.eval()(x)
    layer.to(dtype="float64")
    y64 = layer(x.astype(np.float64))
    assert y64.dtype == np.float64
    np.testing.assert_allclose(y, y64, rtol=1e-4, atol=1e-5)
    with pytest.raises(RuntimeError, match=r"backward after to\(\)"):
        layer.to(dtype="float32").backward(y)


# The cache


def test_backward_before_forward(layer):
    with pytest.raises(RuntimeError, match="backward before forward"):
        layer.backward(X)


def test_backward_after_no_grad(layer):
    run(layer)
    with npattn.no_grad():
        y = layer(image(layer))
    with pytest.raises(RuntimeError, match=r"under npattn\.no_grad\(\)"):
        layer.backward(np.ones_like(y))
    y = layer(image(layer))
    layer.backward(np.ones_like(y))


def test_no_grad_ends_with_its_block_and_stays_in_its_thread():
    seen = []
    layer = npattn.ReLU()
    with npattn.no_grad():
        thread = threading.Thread(target=lambda: seen.append(layer.backward(np.ones_like(layer(X)))))
        thread.start()
        thread.join()
    assert len(seen) == 1
    with contextlib.suppress(KeyError), npattn.no_grad():
        raise KeyError
    layer.backward(np.ones_like(layer(X)))


def test_backward_after_a_forward_that_failed(layer):
    y, _ = run(layer)
    x = image(layer)
    with pytest.raises((ValueError, TypeError)):
        layer(x.astype(int) if layer.input_axes is None else x[0])
    if not isinstance(layer, npattn.Sequential):
        layer.backward(np.ones_like(y))  # refused before any work: the last good forward still stands


# What a layer refuses: argument, expected, got


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (X[0], ValueError, r"x: expected shape \(N, C=8, H, W\), got \(8, 6, 5\)"),
        (X[:, :7], ValueError, r"x: expected shape \(N, C=8, H, W\), got \(2, 7, 6, 5\)"),
        (X.astype(int), TypeError, "x: expected dtype float32 or float64, got int64"),
        (X > 0, TypeError, "x: expected dtype float32 or float64, got bool"),
        (X.astype(np.float16), TypeError, "x: expected dtype float32 or float64, got float16"),
        (X.astype(">f4"), TypeError, "x: expected dtype float32 or float64, got >f4"),
        (X.astype(np.float64), TypeError, "x: expected dtype float32, the same as the parameters of"),
        (X.tolist(), TypeError, "x: expected an array .* got list"),
        (None, TypeError, "x: expected an array, got None"),
    ],
    ids=["rank", "channels", "int", "bool", "float16", "big-endian", "float64", "list", "None"],
)
@pytest.mark.parametrize("name", ["SELayer", "ChannelAttention", "CBAM", "Conv2d", "BatchNorm2d"])
def test_bad_input(name: str, x, error, message):
    with pytest.raises(error, match=message):
        CHOSEN[name]()(x)


def test_the_first_call_says_which_is_which_and_the_two_ways_out():
    layer = npattn.CBAM(8, 4, 3)
    with pytest.raises(TypeError) as caught:
        layer(X.astype(np.float64))
    assert str(caught.value) == (
        "x: expected dtype float32, the same as the parameters of CBAM, got float64. Convert x, "
        'x.astype("float32"), or the layer, layer.to(dtype="float64")'
    )
    assert caught.value.__context__ is None  # one traceback, not two that contradict each other
    layer.to(dtype="float64")(X.astype(np.float64))
    with pytest.raises(TypeError, match=r"x: expected dtype float64, .*, got float32\. Convert x, x\.astype\("):
        layer(X)
    assert npattn.ReLU()(X.astype(np.float64)).dtype == np.float64  # nothing to fit: it follows its input


def test_a_tensor_of_torchs_is_named_and_told_where_to_go():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    message = r"x: expected an array of the same library as the parameters of SELayer \(numpy\), got torch.*"
    with pytest.raises(TypeError, match=message + r"npattn\.torch\.module\(layer\).* layer\.to\(xp=torch\)"):
        npattn.SELayer(8, 2)(torch.tensor(X))
    npattn.SELayer(8, 2).to(xp=torch)(torch.tensor(X))


@pytest.mark.parametrize("x", [X[0], X.astype(int)], ids=["rank", "int"])
@pytest.mark.parametrize("name", ["SpatialAttention", "MaxPool2x2", "GlobalAvgPool"])
def test_bad_input_without_channels(name: str, x):
    with pytest.raises((TypeError, ValueError), match=r"^x: expected"):
        CHOSEN[name]()(x)


def test_mixed_array_libraries(layer):
    strict = pytest.importorskip("array_api_strict")
    y, _ = run(layer)
    with pytest.raises(TypeError, match="expected an array of the same library as"):
        layer.backward(strict.asarray(np.array(y)))
    if layer.params:
        with pytest.raises(TypeError, match="expected an array of the same library as"):
            layer(strict.asarray(image(layer)))


def test_bad_cotangents(layer):
    y, dy = run(layer)
    with pytest.raises(ValueError, match=rf"dy: expected shape {re.escape(str(y.shape))}, that of the output y, got"):
        layer.backward(dy[:1])
    with pytest.raises(ValueError, match="dy: expected shape"):
        layer.backward(np.ones((*y.shape, 1), np.float32))
    with pytest.raises(TypeError, match="dy: expected dtype float32, that of the output y, got float64"):
        layer.backward(dy.astype(np.float64))
    with pytest.raises(TypeError, match="dy: expected dtype float32 or float64, got int64"):
        layer.backward(dy.astype(int))


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_bad_cotangents_of_pairs(case: Case):
    rng = np.random.default_rng(42)
    y, cache = case.forward(*case.draw(rng, (2, 4, 4, 4), 2, 3))
    with pytest.raises(ValueError, match=rf"^{case.dy}: expected shape .* got"):
        case.backward(np.ones((1, *np.shape(y))), cache)
    with pytest.raises(TypeError, match=r"expected dtype"):
        case.backward(np.ones(np.shape(y), np.int64), cache)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: npattn.SELayer(8, 16), ValueError, "reduction: expected at most channel = 8, got 16.*works is 1 to 8"),
        (lambda: npattn.ChannelAttention(4), ValueError, "ratio: expected at most in_planes = 4, got 16"),
        (lambda: npattn.CBAM(4), ValueError, "ratio: expected at most in_planes = 4, got 16"),
        (lambda: npattn.CBAM(0), ValueError, "in_planes: expected a whole number of at least 1, got 0"),
        (lambda: npattn.CBAM(32, 0), ValueError, "ratio: expected a whole number of at least 1, got 0"),
        (lambda: npattn.CBAM(32.0), TypeError, "in_planes: expected a whole number, got 32.0"),
        (lambda: npattn.SELayer(True), TypeError, "channel: expected a whole number, got True"),
        (lambda: npattn.ConcatAttention(8), ValueError, "ratio: expected at most in_planes = 8, got 16"),
        (lambda: npattn.SEGate(32, 8), ValueError, "reduction: expected at most channel = 8, got 16"),
        (lambda: npattn.SEGate(0, 8), ValueError, "in_planes: expected a whole number of at least 1, got 0"),
        (lambda: npattn.ConvGate(8, 2), ValueError, "kernel_size: expected an odd kernel size .* got 2"),
        (lambda: npattn.PSA(8, 0, 3), ValueError, "height: expected a whole number of at least 1, got 0"),
        (lambda: npattn.ParallelSE(npattn.Conv2d(1, 1), "x"), TypeError, "gate: expected a layer, got str"),
        (lambda: npattn.SpatialAttention(4), ValueError, "kernel_size: expected an odd kernel size .* got 4"),
        (lambda: npattn.CBAM(32, 16, 2), ValueError, "kernel_size: expected an odd kernel size .* got 2"),
        (lambda: npattn.Conv2d(1, 1, 6), ValueError, "kernel_size: expected an odd kernel size .* got 6"),
        (lambda: npattn.Conv2d(4, 4, (3, 2)), ValueError, r"kernel_size\[1\]: expected an odd kernel size .* got 2"),
        (lambda: npattn.Conv2d(4, 4, 0), ValueError, "kernel_size: expected a whole number of at least 1, got 0"),
        (lambda: npattn.Conv2d(4, 4, stride=0), ValueError, "stride: expected a whole number of at least 1, got 0"),
        (lambda: npattn.Conv2d(4, 4, padding=(1, -1)), ValueError, r"padding\[1\]: .* at least 0, got -1"),
        (lambda: npattn.Conv2d(4, 4, dilation="2"), TypeError, "dilation: expected a whole number, got '2'"),
        (lambda: npattn.Conv2d(4, 4, stride=(1, 2, 3)), ValueError, "stride: expected a whole number or two, .* got"),
        (lambda: npattn.Conv2d(6, 4, groups=4), ValueError, "in_channels: expected a multiple of groups = 4, got 6"),
        (lambda: npattn.Conv2d(4, 6, groups=4), ValueError, "out_channels: expected a multiple of groups = 4, got 6"),
        (lambda: npattn.SpatialAttention("7"), TypeError, "kernel_size: expected a whole number, got '7'"),
        (lambda: npattn.CBAM(32, dtype="int32"), TypeError, "dtype: expected float32 or float64, got 'int32'"),
        (lambda: npattn.CBAM(32, dtype="float16"), TypeError, "dtype: expected float32 or float64"),
        (lambda: npattn.CBAM(32, rng="seed"), TypeError, "rng: expected a numpy.random"),
        (lambda: npattn.CBAM(32, rng=-1), ValueError, "rng: expected a numpy.random"),
        (lambda: npattn.CBAM(32, xp=[]), TypeError, "xp: expected an array module"),
        (lambda: npattn.BatchNorm2d(4, eps=-1), ValueError, "eps: expected a finite number"),
        (lambda: npattn.BatchNorm2d(4, momentum="x"), TypeError, "momentum: expected a number"),
        (
            lambda: npattn.BatchNorm2d(4, momentum=1.00000005),
            ValueError,
            "momentum: expected a finite number from 0 to 1",
        ),
        (lambda: npattn.Gated("x"), TypeError, "attention: expected a layer, got str"),
        (lambda: npattn.Sequential(), ValueError, "layers: expected at least one layer"),
        (lambda: npattn.Sequential(npattn.ReLU(), 3), TypeError, r"layers\[1\]: expected a layer, got int"),
        (
            lambda: npattn.Sequential(npattn.ReLU(), npattn.ReLU(dtype="float64")),
            TypeError,
            r"layers\[1\]: expected a layer of numpy and float32, as the first one, got numpy and float64",
        ),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_bad_arguments_of_pairs():
    x = np.ones((2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"w \(its last axis\): expected an odd kernel size .* got 2"):
        conv2d.forward(x, conv2d.Params(np.ones((1, 3, 2, 2))))
    with pytest.raises(ValueError, match=r"b: expected shape \(M=1\), got \(2,\)"):
        conv2d.forward(x, conv2d.Params(np.ones((1, 3, 3, 3)), np.ones(2)))
    with pytest.raises(ValueError, match=r"x: expected shape \(N, C=6, H, W\), got \(2, 3, 4, 4\)"):
        general_conv.forward(x, general_conv.Params(np.ones((4, 3, 3, 3))), groups=2)
    with pytest.raises(ValueError, match=r"w \(its first axis\): expected a multiple of groups = 3, got 4"):
        general_conv.forward(x, general_conv.Params(np.ones((4, 1, 3, 3))), groups=3)
    with pytest.raises(ValueError, match=r"rows and columns as the window spans, 5 × 3, got 4 × 4 with the padding"):
        general_conv.forward(x, general_conv.Params(np.ones((1, 3, 3, 3))), dilation=(2, 1))
    with pytest.raises(ValueError, match="w: expected a kernel of at least 1 × 1, got 0 × 3"):
        general_conv.forward(x, general_conv.Params(np.ones((1, 3, 0, 3))))
    with pytest.raises(ValueError, match=r"x: expected shape \(\.\.\., K=5\), got \(2, 3, 4, 4\)"):
        linear.forward(x, linear.Params(np.ones((2, 5))))
    with pytest.raises(ValueError, match="x: expected H and W of at least 2 for a 2×2 window"):
        max_pool_2x2.forward(x[:, :, :1])
    with pytest.raises(ValueError, match="there is nothing to pool"):
        global_max_pool.forward(x[:, :, :0])
    with pytest.raises(TypeError, match="t: expected integer classes, got dtype float64"):
        loss.forward(np.ones((2, 3)), np.ones(2))
    with pytest.raises(ValueError, match=r"t: expected classes in \[0, 3\), got values from 0 to 3"):
        loss.forward(np.ones((2, 3)), np.array([0, 3]))
    with pytest.raises(ValueError, match=r"t: expected shape \(N=2\), got \(3,\)"):
        loss.forward(np.ones((2, 3)), np.array([0, 1, 2]))
    with pytest.raises(ValueError, match="at least 2 numbers a channel"):
        npattn.BatchNorm2d(3)(np.ones((1, 3, 1, 1), np.float32))


# state_dict


def test_state_dict_round_trip(make: Maker):
    layer, twin = make(), make.make(PLACE, rng=99)
    run(layer)
    x = image(layer)
    state = layer.state_dict()
    assert twin.load_state_dict(state) is twin
    np.testing.assert_array_equal(layer.eval()(x), twin.eval()(x))
    for value in state.values():
        value[...] = 7  # copies, both ways
    np.testing.assert_array_equal(layer(x), twin(x))


@pytest.mark.parametrize("damage", ["missing", "unknown", "shape", "dtype", "kind"])
@pytest.mark.parametrize("name", ["SELayer", "CBAM", "BatchNorm2d", "Sequential"])
def test_a_bad_state_dict_loads_nothing(name: str, damage: str):
    layer = CHOSEN[name](rng=0)
    before = layer.state_dict()
    state = {key: value + 1 for key, value in before.items()}
    last = list(state)[-1]
    if damage == "missing":
        del state[last]
        error, message = KeyError, rf"missing: \['{last}'\]; unknown: none"
    elif damage == "unknown":
        state["more.weight"] = state[last]
        error, message = KeyError, r"missing: none; unknown: \['more.weight'\]"
    elif damage == "shape":
        state[last] = state[last][..., None]
        error, message = ValueError, re.escape(f"state['{last}']: expected shape {before[last].shape}")
    elif damage == "dtype":
        state[last] = state[last].astype(int)
        error, message = TypeError, re.escape(f"state['{last}']: expected dtype float32 or float64, got int64")
    else:
        state[last] = "weights"
        error, message = TypeError, re.escape(f"state['{last}']: expected an array")
    with pytest.raises(error, match=message):
        layer.load_state_dict(state)
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_a_class_derived_elsewhere_keeps_the_pair(monkeypatch):
    """Even in a file that has functions of these names."""
    for name in ("forward", "backward"):
        monkeypatch.setattr(sys.modules[__name__], name, None, raising=False)

    class Mine(npattn.SELayer):
        """SE under another name."""

    x = np.ones((2, 8, 3, 3), np.float32)
    for kind in (npattn.SELayer, Mine):
        layer = kind(8, 2, rng=0)
        assert layer(x).shape == x.shape
        assert layer.textbook == "npattn.attention.se"
    assert repr(Mine(8, 2)) == "Mine(8, reduction=2)"
