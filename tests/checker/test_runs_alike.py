"""Runs that are made alike: gradients that add up, graphs that serve once, random numbers."""

from __future__ import annotations

import numpy as np
import pytest

import npattn
from npattn import GradcheckError, gradcheck
from tests.checker.small_targets import MASK, Scale, X, normal, product, product_backward, verdicts


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
    assert "backward works once after a forward, so each is given a forward of its own" in report.notes
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
