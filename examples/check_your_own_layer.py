"""A layer of one's own, from a wrong backward to a right one. docs/checking.md tells the story around this output.

python examples/check_your_own_layer.py
npattn gradcheck examples.check_your_own_layer:make_layer --shape 2,3,4,5
"""

from __future__ import annotations

import numpy as np

import npattn


def forward(x, w):
    """Every channel of x (N, C, H, W) times a gate: the sigmoid of its mean, scaled by w (C)."""
    s = x.mean(axis=(2, 3))
    g = 1 / (1 + np.exp(-s * w))
    y = x * g[:, :, None, None]
    return y, (x, w, s, g)


def first_try(dy, cache):
    """y = x · g, so dx = dy · g. Is it?"""
    x, _, s, g = cache
    dx = dy * g[:, :, None, None]
    dg = (dy * x).sum(axis=(2, 3))
    dw = dg * g * (1 - g) * s
    return dx, dw


def second_try(dy, cache):
    """dw is summed over the batch, and x reaches y through the gate as well."""
    x, w, s, g = cache
    dg = (dy * x).sum(axis=(2, 3))
    da = dg * g * (1 - g)
    dx_gate = (da * w)[:, :, None, None]
    dx = dy * g[:, :, None, None] + dx_gate
    dw = (da * s).sum(axis=0)
    return dx, dw


def third_try(dy, cache):
    """The mean gave every pixel a share of 1/(H·W)."""
    x, w, s, g = cache
    dg = (dy * x).sum(axis=(2, 3))
    da = dg * g * (1 - g)
    dx_gate = (da * w)[:, :, None, None] / (x.shape[2] * x.shape[3])
    dx = dy * g[:, :, None, None] + dx_gate
    dw = (da * s).sum(axis=0)
    return dx, dw


class Gate:
    """The same as an object: what the forward must remember it keeps itself."""

    def __init__(self, channels):
        self.params = {"w": np.random.default_rng(1).standard_normal(channels)}
        self.grads = {}

    def forward(self, x):
        y, self.cache = forward(x, self.params["w"])
        return y

    def backward(self, dy):
        dx, self.grads["w"] = third_try(dy, self.cache)
        return dx


def make_layer():
    """What the command line calls."""
    return Gate(3)


def main():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal(3)
    for backward in (first_try, second_try, third_try):
        print(f"# {backward.__name__}")
        print(npattn.gradcheck((forward, backward), x, w, raise_exception=False))
        print()


if __name__ == "__main__":
    main()
