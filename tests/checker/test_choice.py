"""Which tensors a check takes derivatives by, and which gradient belongs to which input."""

from __future__ import annotations

import numpy as np
import pytest

import npattn
from npattn import gradcheck
from tests.checker.small_targets import MASK, Scale, X, normal, product, product_backward, verdicts


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


@pytest.mark.parametrize("target", [(product, product_backward), Scale()])
def test_more_or_fewer_inputs_than_forward_takes(target):
    with pytest.raises(TypeError, match=r"^inputs: expected what forward\(x.*\) takes, got 2 "):
        gradcheck(target, X, X)


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
