"""A layer of one's own, from a wrong backward to a right one, and four ways in which a check can fool you.

Run it: python examples/check_your_own_layer.py. docs/checking.md tells the story around this output.
"""

from __future__ import annotations

import numpy as np

import npattn
from npattn.attention import se


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


def se_without_the_gate(dy, cache):
    """SE's backward with its direct path alone."""
    return dy * cache.g[:, :, None, None], se.backward(dy, cache)[1]


def mean_not_divided(dy, shape):
    """Global average pooling's backward without the division by H·W."""
    return np.broadcast_to(dy[:, :, None, None], shape).copy()


def standardize(x):
    """Every row of x (N, K) shifted and scaled to mean 0 and variance 1."""
    x_hat = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    return x_hat, (x_hat, x.std(axis=1, keepdims=True))


def standardize_backward(dy, cache):
    x_hat, std = cache
    level = dy.mean(axis=1, keepdims=True)
    along = x_hat * (dy * x_hat).mean(axis=1, keepdims=True)
    return (dy - level - 3 * along) / std  # the 3 is a mistake


def verdict(report):
    return "passed" if report else f"FAILED. {report.rows[0].wrong}"


def main():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal(3)
    for backward in (first_try, second_try, third_try):
        print(f"# {backward.__name__}")
        print(npattn.gradcheck((forward, backward), x, w, raise_exception=False))
        print()

    print("# 1. a dy of ones")
    rows = rng.standard_normal((4, 6))
    _, cache = standardize(rows)
    ones = np.ones_like(rows)
    largest = np.abs(standardize_backward(ones, cache)).max()
    print(f"wrong backward, dy of ones:   largest entry of dx {largest:.0e}, and 0 is right")
    report = npattn.gradcheck((standardize, standardize_backward), rows, raise_exception=False)
    print(f"wrong backward, npattn:       {verdict(report)}")

    print("\n# 2. a tolerance of 1e-4 at small weights")
    x = rng.standard_normal((2, 4, 5, 5))
    w1, w2 = 0.01 * rng.standard_normal((2, 4)), 0.01 * rng.standard_normal((4, 2))
    for rtol in (1e-4, 1e-9):
        report = npattn.gradcheck(
            (se.forward, se_without_the_gate), x, se.Params(w1, w2), rtol=rtol, raise_exception=False
        )
        print(f"no gate path, rtol={rtol:.0e}:  {verdict(report)}")

    print("\n# 3. shapes in which the mistake does not show")
    for H, W in ((1, 1), (2, 3)):
        pair = (lambda x: (x.mean(axis=(2, 3)), x.shape), mean_not_divided)
        report = npattn.gradcheck(pair, rng.standard_normal((2, 3, H, W)), raise_exception=False)
        print(f"not divided by H·W, {H}×{W}:     {verdict(report)}")

    print("\n# 4. a path that is switched off")
    for sign in (-1, 1):
        w1 = sign * np.abs(rng.standard_normal((2, 4)))
        report = npattn.gradcheck(
            (se.forward, se_without_the_gate), np.abs(x), se.Params(w1, w2), raise_exception=False
        )
        print(f"no gate path, ReLU {'off' if sign < 0 else 'on'}: ".ljust(30) + verdict(report))


if __name__ == "__main__":
    main()
