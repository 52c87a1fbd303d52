"""The convolution with stride, padding, dilation and groups, written letter by letter, for the proofs of the blocks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

Place = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def touched(
    x: np.ndarray, w: np.ndarray, stride: int, padding: int, dilation: int, groups: int
) -> tuple[tuple[int, ...], Iterator[Place]]:
    """The shape of the output, and which number of it is a sum with which of x and of w: every triple of indices."""
    N, _, H, W = x.shape
    M, D, k, _ = w.shape
    rows, columns = ((side + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for side in (H, W))

    def triples() -> Iterator[Place]:
        for n, m, h, v, d, i, j in product(*map(range, (N, M, rows, columns, D, k, k))):
            c = m // (M // groups) * D + d
            r, s = stride * h + dilation * i - padding, stride * v + dilation * j - padding
            if 0 <= r < H and 0 <= s < W:
                yield (n, m, h, v), (n, c, r, s), (m, d, i, j)

    return (N, M, rows, columns), triples()


def convolved(x: np.ndarray, w: np.ndarray, **how: int) -> np.ndarray:
    """z = w ∗ x."""
    shape, triples = touched(x, w, **how)
    z = np.zeros(shape)
    for here, there, weight in triples:
        z[here] += w[weight] * x[there]
    return z


def convolved_back(dz: np.ndarray, x: np.ndarray, w: np.ndarray, **how: int) -> tuple[np.ndarray, np.ndarray]:
    """dx and dw."""
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for here, there, weight in touched(x, w, **how)[1]:
        dx[there] += w[weight] * dz[here]
        dw[weight] += x[there] * dz[here]
    return dx, dw
