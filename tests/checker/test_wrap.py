"""`gradcheck.wrap` says what names do not; and what has no form is refused with the call that would work."""

from __future__ import annotations

import threading
from types import ModuleType

import numpy as np
import pytest

from npattn import gradcheck
from tests.checker.small_targets import Scale, X, normal, verdicts


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
        ("layer", r"got 'layer'\. A name is for the command, .*: gradcheck\(npattn\.CBAM\(8\), x\)$"),
        (X, r"got an array of shape \(4, 3\)\. An array is an input; before it comes .*: gradcheck\(layer, x\)$"),
        ([X, X], r"got a list of 2 \(ndarray, ndarray\)\. It can be an input; before .*: gradcheck\(layer, x\)$"),
        ({"x": X}, r"got a dict of 1 \(ndarray\)\. It can be an input; .*: gradcheck\(layer, x\)$"),
        ([np.sin, np.cos], r"got a list of 2 \(ufunc, ufunc\)\. A pair is a tuple: gradcheck\(\(forward, backward"),
        (3, r"got 3\. It can be an input; before the inputs comes what is to be checked: gradcheck\(layer, x\)$"),
        (None, r"got None\. It can be an input"),
        (np.float64(3), r"It can be an input"),
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
