"""Wrong backwards that show at some points only, or by what is kept: dead units, ties, objects. In our own words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.checker.zoo_found import normal
from tests.support.mistakes import MISTAKES, Backward, Mistake, mistake


def planted(blames: str, says: str = "") -> Callable[[Backward], Backward]:
    """Put what the decorated function makes, a target and its inputs, among the mistakes."""

    def add(make: Backward) -> Backward:
        MISTAKES.append(Mistake(make, make, blames, says))
        return make

    return add


# A gate whose hidden units are dead at some points: the wrong backward is right there


def gate_of_two_runs(x, w1, w2):
    mean, most = x.mean(axis=(2, 3)), x.max(axis=(2, 3))
    a, b = mean @ w1.T, most @ w1.T
    h = np.maximum(a, 0) + np.maximum(b, 0)
    g = 1 / (1 + np.exp(-h @ w2.T))
    return x * g[:, :, None, None], (x, w1, w2, mean, most, a, b, h, g)


def gate_backward(dy, cache, path=True, shared_mask=False, scale=1.0):
    x, w1, w2, mean, most, a, b, h, g = cache
    dz = (dy * x).sum(axis=(2, 3)) * g * (1 - g)
    dh = dz @ w2
    da, db = dh * (a > 0), dh * ((a if shared_mask else b) > 0)
    dx = dy * g[:, :, None, None]
    if path:
        dx = dx + (da @ w1)[:, :, None, None] / x[0, 0].size
        first = (x == most[:, :, None, None]).reshape(*x.shape[:2], -1).argmax(axis=2)
        one = np.arange(x[0, 0].size) == first[:, :, None]
        dx = dx + ((db @ w1)[:, :, None] * one).reshape(x.shape)
    return dx, scale * (da.T @ mean + db.T @ most), scale * dz.T @ h


FOR_GATE = normal((2, 4, 5, 3), (2, 4), (4, 2))


@mistake(gate_of_two_runs, FOR_GATE, "x", "the direct path alone")
def gate_path_missing_and_weights_off_by_the_batch(dy, cache):
    return gate_backward(dy, cache, path=False, scale=0.5)


@mistake(gate_of_two_runs, FOR_GATE, "x", "the direct path alone")
def gate_path_missing(dy, cache):
    return gate_backward(dy, cache, path=False)


@mistake(gate_of_two_runs, FOR_GATE, "w1")
def mask_of_the_mean_run_for_both(dy, cache):
    return gate_backward(dy, cache, shared_mask=True)


# Ties: four values lost in a large tensor


def highest(x):
    return x.max(axis=1), x


@mistake(highest, lambda rng: (rng.integers(0, 2, (8, 4, 6, 8)).astype(float),), "x", "on none of the ties")
def four_of_many_tied_maxima_lost(dy, x):
    first = np.argmax(x, axis=1)[:, None] == np.arange(x.shape[1])[None, :, None, None]
    dx = dy[:, None] * first
    tied = np.argwhere((x == x.max(axis=1, keepdims=True)).sum(axis=1) > 1)
    for n, i, j in tied[:4]:
        dx[n, :, i, j] = 0
    return dx


# Objects


class Held:
    """A layer of somebody: y = tanh(x w), with its parameter and its gradient in dicts."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.params, self.grads = {"w": rng.standard_normal((5, 5))}, {"w": np.zeros((5, 5))}

    def forward(self, x):
        self.x, self.y = x, np.tanh(x @ self.params["w"])
        return self.y

    def backward(self, dy):
        d = dy * (1 - self.y**2)
        self.grads["w"] = self.x.T @ d
        return d @ self.params["w"].T


class Accumulating(Held):
    def backward(self, dy):
        before = self.grads["w"]
        dx = super().backward(dy)
        self.grads["w"] = self.grads["w"] + before
        return dx


@planted("gradient of w: another one the second time", "it accumulates")
def gradients_that_grow_from_call_to_call(rng):
    return Accumulating(rng), rng.standard_normal((4, 5))


class Twice:
    """Two steps that share one layer object."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.inner = Held(rng)
        self.params, self.grads = {}, {}

    def forward(self, x):
        return self.inner.forward(self.inner.forward(x))

    def backward(self, dy):
        return self.inner.backward(self.inner.backward(dy))


@planted("x", "one layer object is used twice")
def one_object_at_two_places(rng):
    return Twice(rng), rng.standard_normal((4, 5))


class Breaking(Held):
    def backward(self, dy):
        return dy @ self.params["weight"].T


@planted("backward: raised KeyError: 'weight'", "zoo_states.py, line")
def backward_that_raises(rng):
    return Breaking(rng), rng.standard_normal((4, 5))


def kept_anywhere() -> Any:
    """A pair whose backward looks at what the last forward of all left behind."""
    last: dict[str, np.ndarray] = {}

    def forward(x):
        last["x"] = x
        return x**3, None

    return forward, lambda dy, cache: 3 * dy * last["x"] ** 2


@planted("gradient of x: changed by a later forward")
def cache_in_a_closure(rng):
    return kept_anywhere(), rng.standard_normal((4, 5))
