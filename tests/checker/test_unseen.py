"""One tie in a large tensor, and parameters that nothing can check."""

from __future__ import annotations

import numpy as np
import pytest

import npattn


def both_get_all():
    def forward(x):
        m = x.reshape(-1, 4).max(1)
        return m, (x, m)

    def backward(dy, cache):
        x, m = cache
        return ((x.reshape(-1, 4) == m[:, None]) * dy[:, None]).reshape(x.shape)

    return forward, backward


@pytest.mark.parametrize("seed", range(4))
def test_one_tie_among_thousands_is_seen(seed: int):
    x = np.random.default_rng(seed).standard_normal(2400)
    x[40:42] = 9
    assert not npattn.gradcheck(both_get_all(), x, seed=seed, raise_exception=False, points=1)


class Counted:
    def __init__(self, w):
        self.params, self.grads = {"w": w}, {}

    def forward(self, x):
        self.x = x
        return x * self.params["w"]

    def backward(self, dy):
        self.grads = {"w": -7}
        return dy * self.params["w"]


@pytest.mark.parametrize("w", [3, np.array(3), np.array([1, 2, 3])])
def test_a_parameter_that_is_no_float_array_is_named(w):
    report = npattn.gradcheck(Counted(w), np.random.default_rng(0).standard_normal((2, 3)), raise_exception=False)
    assert "params['w']: not checked: expected a float array" in str(report)


def test_an_array_is_no_target():
    for target in (np.array([1, 2]), np.array(3)):
        with pytest.raises(TypeError, match=r"an array of shape"):
            npattn.gradcheck(target)
