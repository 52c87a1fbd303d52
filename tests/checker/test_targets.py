"""What a target may look like beyond the common shapes, what is said of it, and what is refused with which advice."""

from __future__ import annotations

import threading
from types import ModuleType

import numpy as np
import pytest

import npattn
from npattn import GradcheckError, gradcheck


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


X = normal(4, 3)


def verdicts(report):
    return {row.name: row.verdict for row in report.rows}


class Scale:
    def __init__(self, w=None):
        self.w = normal(3, seed=1) if w is None else w
        self.dw = np.zeros(3)

    def forward(self, x):
        self.x = x
        return x * self.w

    def backward(self, dy):
        self.dw = (self.x * dy).sum(axis=0)
        return dy * self.w


# wrt, constants


def product(x, mask, w):
    return x * mask * w, (x, mask, w)


def product_backward(dy, cache):
    x, mask, w = cache
    return dy * mask * w, (dy * x * mask).sum(0)


MASK = (normal(4, 3, seed=2) > 0).astype(np.float32)


def test_fewer_gradients_than_inputs_are_taken_for_those_of_their_shapes_and_it_says_so():
    report = gradcheck((product, product_backward), X, MASK, normal(3, seed=1))
    assert verdicts(report) == {"x": "ok", "mask": "-", "w": "ok"}
    (note,) = [note for note in report.notes if "not checked" in note]
    assert note.startswith("backward gives 2 gradients for 3 inputs, taken for x, w; not checked: mask")


@pytest.mark.parametrize("choice", [{"wrt": ("x", "w")}, {"constants": "mask"}, {"wrt": ["x", "w", "mask"],
                                    "constants": ("mask",)}])  # fmt: skip
def test_what_is_wanted_can_be_said(choice):
    report = gradcheck((product, product_backward), X, MASK, normal(3, seed=1), **choice)
    assert verdicts(report) == {"x": "ok", "w": "ok"}
    assert not any("not checked" in note for note in report.notes)


def test_one_name_of_many():
    pair = product, lambda dy, cache: product_backward(dy, cache)[1]
    assert verdicts(gradcheck(pair, X, MASK, normal(3, seed=1), wrt="w")) == {"w": "ok"}
    assert verdicts(gradcheck(Scale(), X, wrt="w")) == {"w": "ok"}
    assert verdicts(gradcheck(Scale(), X, constants="w")) == {"x": "ok"}
    assert verdicts(gradcheck(npattn.Linear(3, 2, rng=0), X, wrt=["weight"])) == {"weight": "ok"}
    assert verdicts(gradcheck(npattn.Linear(3, 2, rng=0), X, constants=["x"])) == {"weight": "ok", "bias": "ok"}


def test_a_part_of_an_input():
    def forward(x, p):
        return x * p["w"] + p["running"]["mean"], (x, p)

    def backward(dy, cache):
        return dy * cache[1]["w"], {"w": (dy * cache[0]).sum(0)}

    params = {"w": normal(3, seed=1), "running": {"mean": normal(3), "count": 4}}
    assert verdicts(gradcheck((forward, backward), X, params, constants="p.running")) == {"x": "ok", "p.w": "ok"}
    assert verdicts(gradcheck((forward, backward), X, params, wrt="p.w")) == {"p.w": "ok"}


@pytest.mark.parametrize("target", [(product, product_backward), Scale(), npattn.ReLU()])
@pytest.mark.parametrize("argument", ["wrt", "constants"])
def test_a_name_that_stands_for_nothing(target, argument):
    inputs = (X, MASK, normal(3)) if isinstance(target, tuple) else (X,)
    with pytest.raises(ValueError, match=rf"^{argument}: expected names among x.*, got 'z'$"):
        gradcheck(target, *inputs, **{argument: ["x", "z"]})


def test_gradients_by_name():
    pair = product, lambda dy, cache: dict(zip(("x", "w"), product_backward(dy, cache), strict=True))
    assert verdicts(gradcheck(pair, X, MASK, normal(3, seed=1), constants="mask")) == {"x": "ok", "w": "ok"}


def test_a_loss_method_has_its_own_names():
    class Net:
        def __init__(self):
            self.params = {"w": normal(3, seed=1)}

        def loss(self, X, labels=None):
            return np.sum((X * self.params["w"]) ** 2), {"w": 2 * (X**2 * self.params["w"]).sum(axis=0)}

    report = gradcheck(Net().loss, X)
    assert (report.target, verdicts(report)) == ("Net.loss", {"X": "-", "w": "ok"})


def test_arrays_that_compute_otherwise_are_refused_and_those_of_jax_are_not():
    with pytest.raises(TypeError, match="expected a plain array, got a masked one"):
        gradcheck((lambda x: (2 * x, None), lambda dy, cache: 2 * dy), np.ma.masked_array(X))

    class Array:
        dtype, shape = X.dtype, X.shape

        def __array__(self, dtype=None, copy=None):
            return np.array(X)

    Array.__module__ = "jaxlib.arrays"
    assert verdicts(gradcheck((lambda x: (2 * x, None), lambda dy, cache: 2 * dy), Array())) == {"x": "ok"}


# before_backward, one forward for one backward


class Adding(Scale):
    def backward(self, dy):
        self.dw = self.dw + (self.x * dy).sum(axis=0)
        return dy * self.w

    def reset(self):
        self.dw = np.zeros(3)


def test_gradients_that_add_up_need_a_reset():
    layer = Adding()
    layer.dw += 5
    for hook in ("reset", layer.reset, Adding.reset, lambda one: one.reset()):
        assert gradcheck(layer, X, before_backward=hook)
    assert np.array_equal(layer.dw, np.full(3, 5.0))  # the caller's object is left alone
    with pytest.raises(GradcheckError, match="w"):
        gradcheck(layer, X)


def test_a_hook_of_a_pair():
    state = {"sum": 0.0}

    def backward(dy, x):
        state["sum"] = state["sum"] + 2 * dy
        return state["sum"]

    with pytest.raises(GradcheckError):
        gradcheck((lambda x: (2 * x, x), backward), X)
    assert gradcheck((lambda x: (2 * x, x), backward), X, before_backward=lambda: state.update(sum=0.0))


@pytest.mark.parametrize("target", [(product, product_backward), npattn.ReLU()])
def test_what_has_no_methods_is_given_no_name_of_one(target):
    inputs = (X, MASK, normal(3)) if isinstance(target, tuple) else (X,)
    with pytest.raises(TypeError, match=r"^before_backward: expected a function of no arguments.*got 'reset'$"):
        gradcheck(target, *inputs, before_backward="reset")
    with pytest.raises(TypeError, match=r"^params: expected none"):
        gradcheck(gradcheck.wrap(forward=product, backward=product_backward, params=["w"]), X, MASK, normal(3))


class Once(Scale):
    def __init__(self):
        super().__init__()
        self.graph = []

    def forward(self, x):
        self.graph = [x]
        return x * self.w

    def backward(self, dy):
        x = self.graph.pop()
        self.dw = (x * dy).sum(axis=0)
        return dy * self.w


def test_a_graph_that_serves_one_backward():
    report = gradcheck(Once(), X)
    assert verdicts(report) == {"x": "ok", "w": "ok"}
    assert "backward works once after a forward, so each is given a forward of its own" in report.notes
    report = gradcheck((lambda x: (x**2, [x]), lambda dy, cache: 2 * dy * cache.pop()), X)
    assert any(note.startswith("backward works once with a cache") for note in report.notes)
    with pytest.raises(GradcheckError, match="raised IndexError"):
        gradcheck((lambda x: (x**2, []), lambda dy, cache: 2 * dy * cache.pop()), X)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"wrt": 3}, "wrt: expected a name or several, got 3"),
        ({"wrt": [X]}, "wrt: expected a name or several, got "),
        ({"constants": {"x": 1}}, "constants: expected a name or several, got "),
        ({"before_backward": 3}, "before_backward: expected a method's name or a function, got 3"),
        ({"seed_forward": 1.5}, "seed_forward: expected a whole number, got 1.5"),
        ({"seed_forward": -1}, "seed_forward: expected .*, got -1"),
    ],
)
def test_arguments_of_another_kind(said, message):
    with pytest.raises((TypeError, ValueError), match=message):
        gradcheck(Scale(), X, **said)


# Randomness


def test_randomness_is_said_and_can_be_seeded():
    rng = np.random.default_rng(0)

    def forward(x):
        mask = rng.random(x.shape) > 0.5
        return x * mask, mask

    def start():
        rng.bit_generator.state = np.random.default_rng(1).bit_generator.state

    pair = forward, lambda dy, mask: dy * mask
    with pytest.raises(GradcheckError, match="another y for the same input"):
        gradcheck(pair, X)
    assert gradcheck(pair, X, seed_forward=start)


def test_the_global_generators_go_on_as_if_nothing_had_been_drawn():
    class Dropout:
        def forward(self, x):
            self.mask = np.random.rand(*x.shape) > 0.5  # noqa: NPY002
            return x * self.mask

        def backward(self, dy):
            return dy * self.mask

    np.random.seed(3)  # noqa: NPY002
    expected = np.random.rand()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    report = gradcheck(Dropout(), X, seed_forward=0)
    assert np.random.rand() == expected  # noqa: NPY002
    assert verdicts(report) == {"x": "ok"}


def test_a_generator_that_is_an_input_starts_from_where_it_was():
    def forward(x, rng):
        mask = rng.random(x.shape) > 0.5
        return x * mask, mask

    rng = np.random.default_rng(4)
    assert gradcheck((forward, lambda dy, mask: dy * mask), X, rng)
    assert rng.random() == np.random.default_rng(4).random()


# What an object keeps


def test_parameters_that_are_views_of_one_vector():
    class Flat:
        def __init__(self, dtype):
            self.all = np.arange(8, dtype=dtype) / 8
            self.params = {"W": self.all[:6].reshape(3, 2), "b": self.all[6:]}
            self.grads = {}

        def forward(self, x):
            self.x = x
            return x @ self.all[:6].reshape(3, 2) + self.all[6:]

        def backward(self, dy):
            self.grads = {"W": self.x.T @ dy, "b": dy.sum(0)}
            return dy @ self.params["W"].T

    for dtype in (np.float32, np.float64):
        assert verdicts(gradcheck(Flat(dtype), X)) == {"x": "ok", "W": "ok", "b": "ok"}


def test_an_array_that_has_no_gradient_is_named():
    class Forgetful(Scale):
        def __init__(self):
            super().__init__()
            self.shift, self.momentum = normal(3), normal(3)

        def forward(self, x):
            return super().forward(x) + self.shift

    report = gradcheck(Forgetful(), X)
    assert verdicts(report) == {"x": "ok", "w": "ok"}
    assert any(note.startswith("shift: not checked, since no gradient of it was found") for note in report.notes)
    assert sum("not checked" in note for note in report.notes) == 1  # y does not depend on the other
    assert not any("not checked" in note for note in gradcheck(Scale(), X).notes)


def test_a_state_that_forward_sets_anew_is_no_parameter():
    class Recurrent(Scale):
        def __init__(self):
            super().__init__()
            self.h, self.dh = np.ones(3), None

        def forward(self, x):
            self.h = np.zeros(3)
            return super().forward(x) + self.h

        def backward(self, dy):
            self.dh = dy.sum(axis=0)
            return super().backward(dy)

    assert verdicts(gradcheck(Recurrent(), X)) == {"x": "ok", "w": "ok"}


def test_a_parameter_without_influence_is_not_left_out():
    class Forgotten(Scale):
        def __init__(self):
            super().__init__()
            self.b, self.db = np.ones(3), None

        def backward(self, dy):
            self.db = dy.sum(axis=0)
            return super().backward(dy)

    report = gradcheck(Forgotten(), X, raise_exception=False)
    assert [row.name for row in report.rows if row.wrong] == ["b"]


def test_a_number_is_a_parameter_too():
    class Slope:
        def __init__(self):
            self.alpha, self.dalpha = 0.25, 0.0

        def forward(self, x):
            self.x = x
            return np.where(x > 0, x, self.alpha * x)

        def backward(self, dy):
            self.dalpha = np.sum(dy * self.x * (self.x < 0))
            return dy * np.where(self.x > 0, 1, self.alpha)

    assert verdicts(gradcheck(Slope(), X)) == {"x": "ok", "alpha": "ok"}


def test_two_numbers_of_which_one_seems_to_be_the_others_gradient():
    class Decay(Scale):
        def __init__(self):
            super().__init__()
            self.t, self.dt = 2.0, 0.5

        def forward(self, x):
            return super().forward(x) * self.t

        def backward(self, dy):
            return super().backward(dy * self.t)

    assert verdicts(gradcheck(Decay(), X)) == {"x": "ok", "w": "ok"}


def test_statistics_that_are_among_the_parameters():
    class Norm:
        def __init__(self):
            self.parameters = {"scaler": normal(3, seed=1), "running_mean": np.zeros(3), "seen": np.zeros(3)}
            self.gradients = {"scaler": np.zeros(3)}

        def forward(self, X):
            self.X = X
            self.parameters["seen"] = self.parameters["seen"] + X.mean(axis=0)
            return (X - X.mean(axis=0)) * self.parameters["scaler"]

        def backward(self, dy):
            self.gradients["scaler"] = (dy * (self.X - self.X.mean(axis=0))).sum(axis=0)
            dX = dy * self.parameters["scaler"]
            return dX - dX.mean(axis=0)

    assert verdicts(gradcheck(Norm(), X)) == {"X": "ok", "scaler": "ok"}


def test_an_object_that_cannot_be_copied():
    class Locked(Scale):
        def __init__(self):
            super().__init__()
            self.lock = threading.Lock()

    with pytest.raises(TypeError, match=r"expected an object that copy.deepcopy copies.*wrap\(target, copy="):
        gradcheck(Locked(), X)
    assert gradcheck(gradcheck.wrap(Locked(), copy=lambda old: Scale(old.w)), X)


def test_the_callers_object_stays_as_it_is():
    layer = Scale(normal(3).astype(np.float32))
    w, dw = layer.w.copy(), layer.dw
    gradcheck(layer, X)
    assert layer.w.dtype == np.float32
    assert np.array_equal(layer.w, w)
    assert layer.dw is dw
    assert not hasattr(layer, "x")


def test_a_layer_with_buffers_in_float64_is_checked_by_differences_and_never_sees_a_complex_number():
    class Buffered(Scale):
        def __init__(self):
            super().__init__()
            self.out, self.mean = np.empty((4, 3)), np.zeros(3)

        def forward(self, x):
            self.x, self.mean = x, 0.9 * self.mean + 0.1 * x.mean(axis=0)
            self.out[...] = x * self.w
            assert np.iscomplexobj(x) or self.mean.dtype == np.float64
            return self.out.copy()

    report = gradcheck(Buffered(), X)
    assert {row.method for row in report.rows} == {"differences"}
    assert any("writes complex numbers into a real array (test_targets.py, line " in note for note in report.notes)


def test_a_layer_whose_arrays_are_in_several_places_is_checked_by_the_complex_step():
    class Twice(Scale):
        def __init__(self):
            super().__init__()
            self.params, self.grads, self.also = {"w": self.w}, {}, [self.w]

        def forward(self, x):
            self.x = x
            return x * self.w * self.also[0]

        def backward(self, dy):
            self.grads["w"] = 2 * (self.x * dy * self.w).sum(axis=0)
            return dy * self.w**2

    assert {row.method for row in gradcheck(Twice(), X).rows} == {"complex step"}


# wrap


class Odd:
    def __init__(self):
        self.parts = [{"theta": normal(3, seed=1)}]
        self.slopes = {"theta": None}

    def go(self, x):
        self.seen = x
        return x * self.parts[0]["theta"]

    def back(self, g):
        self.slopes["theta"] = (self.seen * g).sum(axis=0)
        return g * self.parts[0]["theta"]


@pytest.mark.parametrize(
    "said",
    [
        {"forward": "go", "backward": "back", "params": {"parts.0.theta": "slopes.theta"}},
        {"forward": "go", "backward": "back", "params": ["parts.0.theta"], "grads": ["slopes.theta"]},
        {"forward": "go", "backward": "back", "params": "parts.0.theta", "grads": "slopes.theta"},
        {"forward": Odd.go, "backward": lambda layer, dy: layer.back(dy), "params": lambda layer: layer.parts[0],
         "grads": lambda layer: layer.slopes},
    ],
)  # fmt: skip
def test_wrap_says_what_names_do_not(said):
    report = gradcheck(gradcheck.wrap(Odd(), name="odd", **said), X)
    assert report.target == "odd"
    assert list(verdicts(report).values()) == ["ok", "ok"]
    report = gradcheck(gradcheck.wrap(Odd(), forward="go", backward="back"), X, raise_exception=False)
    assert verdicts(report) == {"x": "ok"}


def test_wrap_of_two_functions_and_of_a_modules():
    module = ModuleType("layers")
    module.relu_forward = lambda x: (np.maximum(x, 0), x)
    module.relu_backward = lambda dy, x: dy * (x > 0)
    named = gradcheck.wrap(module, forward="relu_forward", backward="relu_backward")
    plain = gradcheck.wrap(forward=module.relu_forward, backward=module.relu_backward, name="relu")
    assert gradcheck(named, X).target == "layers"
    assert gradcheck(plain, X).target == "relu"
    assert gradcheck(module, X)  # the only pair in it


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ({"forward": "run"}, TypeError, "forward: expected a method of Scale, got run"),
        ({"params": ["v"]}, ValueError, r"params: expected names of float arrays of Scale \(w, dw, x\), got 'v'"),
        ({"params": {"w": "dw"}, "grads": ["dw"]}, TypeError, "grads: expected none, since params names the gradients"),
        (
            {"params": ["w"], "grads": ["dw", "dv"]},
            ValueError,
            "expected a name for each of the 1 params, got 2",
        ),
        ({"params": lambda o: o.w, "grads": lambda o: o.dw}, TypeError, "a function that gives a dict or list"),
        ({"params": lambda o: {"w": o.w}}, TypeError, "grads: expected a function of the object, as params is one"),
        (
            {"params": lambda o: {}, "grads": lambda o: {}},
            ValueError,
            "expected a dict or list of float arrays",
        ),
    ],
)
def test_wrap_says_what_does_not_fit(said, error, message):
    with pytest.raises(error, match=message):
        gradcheck(gradcheck.wrap(Scale(), **said), X)


def test_wrap_needs_something():
    with pytest.raises(TypeError, match="target: expected an object, or functions as forward and backward, got None"):
        gradcheck.wrap(forward="forward")


# Refusals: what it looks like, what was expected, and the call that works


class Graph:
    def __init__(self, data):
        self.data = data

    def backward(self):
        """Never called."""


class Unlike:
    def predict(self, x):
        return x

    def update(self, x):
        return x


LAYERS = ModuleType("my.layers")
for _name in ("relu_forward", "relu_backward", "tanh_forward", "tanh_backward"):
    setattr(LAYERS, _name, lambda x: x)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Scale, r"got the class Scale\. An instance is one: gradcheck\(Scale\(\), x\)"),
        (threading.Thread, r"got the class Thread"),
        (LAYERS, r"my\.layers\. It has 2 pairs, .*: gradcheck\(\(layers\.relu_forward, layers\.relu_backward\)"),
        (ModuleType("empty"), "A module is a target if it has the functions forward and backward"),
        (Unlike(), r'with the methods predict, update\. .*wrap\(layer, forward="predict", backward="update"\), x\)'),
        ((np.sin,), r"a tuple of 1 \(ufunc\)\. Two functions make a pair: gradcheck\(\(forward, backward\), x\)"),
        ("layer", "got 'layer'"),
        (object(), "a object with no methods"),
        (lambda x: x * 2, r"to return \(loss, gradients\), got ndarray of shape \(4, 3\); a pair is"),
        (lambda x: Graph(x), r"got Graph; an autograd's is gradcheck\(gradcheck\.wrap\(target, tensor=Graph\), …\)"),
        (lambda x: (x, x), r"to return \(loss, gradients\), got a tuple of 2"),
        ((lambda x: (x, None), lambda dy, p, q: dy), r"backward: expected \(dy, cache\), .* got \(dy, p, q\)"),
        ((lambda x: 2 * x, lambda dy, p: dy), r"forward: expected it to return \(y, cache\), got ndarray"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_would_work(target, message):
    with pytest.raises(TypeError, match=message):
        gradcheck(target, X)


def test_objects_that_give_nothing():
    class Silent(Scale):
        def forward(self, x):
            self.x = x

    with pytest.raises(TypeError, match=r"forward: expected it to return y, or to leave it in an attribute \(output"):
        gradcheck(Silent(), X)

    class Asking(Scale):
        def backward(self, dy, p, q):
            return dy

    with pytest.raises(TypeError, match=r"backward: expected one argument dy, .* got \(dy, p, q\)"):
        gradcheck(Asking(), X)


def test_a_second_output_that_backward_takes_no_dy_of():
    class Attention:
        def forward(self, x):
            self.x, self.weights = x, np.tanh(x)
            return self.weights * x, self.weights

        def backward(self, dy):
            return dy * (np.tanh(self.x) + self.x * (1 - np.tanh(self.x) ** 2))

    report = gradcheck(Attention(), X)
    assert "forward gives several values, and backward takes the dy of the first: the others are left" in report.notes
