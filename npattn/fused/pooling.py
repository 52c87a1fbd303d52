"""Pooling in one pass: 2×2 maxima by comparing pairs of pixels, and global averages by BLAS.

    x (N, C, H, W), a group of n images at a time

    MAX2.1, MAX2.2   the maximum of each pair of rows, then of each pair of columns    reads x          writes y
                     blocked: a byte a pixel, 0 at the first maximum of its window     (cache)          a byte each
    back             dx = dy, repeated over its window, where not blocked              dy, a byte each  dx

Two pixels of a row of a window are two bytes of `hit`, and read as one number of 16 bits: 1, 256 or 257 says that the
left one, the right one or both are largest (on a machine that stores the low byte first). So ties cost nothing.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import numpy as np

from npattn.backend import Array
from npattn.checks import floating, same_shape, shaped
from npattn.fused import contiguous, maps, taken, threads, tiles
from npattn.ops.pooling import MeanCache, global_avg_pool_backward, some_pixels

__all__ = [
    "MaxCache",
    "MeanCache",
    "global_avg_pool_backward",
    "global_avg_pool_forward",
    "max_pool_2x2_backward",
    "max_pool_2x2_forward",
]

LEFT, RIGHT = (1, 256) if sys.byteorder == "little" else (256, 1)


class MaxCache(NamedTuple):
    blocked: Array  # bool, (N, C, 2·(H//2), 2·(W//2)): False at the first maximum of each window
    shape: tuple[int, ...]  # of x


def global_avg_pool_forward(x: Array) -> tuple[Array, MeanCache]:
    """Global average pooling, as `npattn.ops.pooling.global_avg_pool_forward` does, and with its errors."""
    floating(x=x)
    N, C, H, W = some_pixels(x)
    taken(x=x)
    X, y = x.reshape(N, C, H * W), np.empty((N, C), dtype=x.dtype)
    groups = tiles.images(N, C * H * W * x.itemsize)

    def group(index: int) -> None:
        y[groups[index]] = maps.pixel_mean(X[groups[index]])  # GAP.1

    threads.spread(group, len(groups))
    return y, MeanCache((N, C, H, W))


def doubled(a: Array) -> Array:
    """Every column of a (n, C, h, v) twice, in scratch: (n, C, h, 2v)."""
    wide = threads.scratch("wide", (*a.shape[:3], 2 * a.shape[3]), a.dtype)
    wide[..., 0::2] = a
    wide[..., 1::2] = a
    return wide


def max_pool_2x2_forward(x: Array) -> tuple[Array, MaxCache]:
    """Maximum over 2×2 windows, as `npattn.ops.pooling.max_pool_2x2_forward` does, and with its errors."""
    floating(x=x)
    N, C, H, W = shaped("x", x, "N C H W")
    if H < 2 or W < 2:
        raise ValueError(f"x: expected H and W of at least 2 for a 2×2 window, got {(N, C, H, W)}")
    taken(x=x)
    h, v = H // 2, W // 2
    y = np.empty((N, C, h, v), dtype=x.dtype)
    blocked = np.empty((N, C, h, 2, v), dtype=np.uint16)
    groups = tiles.images(N, C * H * W * x.itemsize)

    def group(index: int) -> None:
        n = groups[index]
        upper, lower = x[n, :, 0 : 2 * h : 2, : 2 * v], x[n, :, 1 : 2 * h : 2, : 2 * v]  # WIN.1
        larger = np.maximum(upper, lower, out=threads.scratch("wide", upper.shape, x.dtype))
        np.maximum(larger[..., 0::2], larger[..., 1::2], out=y[n])  # MAX2.2
        wide = doubled(y[n])
        nan = bool(np.isnan(y[n]).any())
        for row, pixels in enumerate((upper, lower)):
            equal = np.equal(pixels, wide, out=threads.scratch("equal", wide.shape, np.bool_))
            if nan:  # NaN equals nothing, itself included, and counts as largest
                equal |= np.isnan(pixels)
            hit = equal.view(np.uint16)
            hit -= (hit == LEFT + RIGHT) * np.uint16(RIGHT)  # MAX2.1: left before right
            if row == 1:
                hit *= blocked[n, :, :, 0] == LEFT + RIGHT  # MAX2.1: the upper row before the lower
            np.subtract(LEFT + RIGHT, hit, out=blocked[n, :, :, row])

    threads.spread(group, len(groups))
    return y, MaxCache(blocked.view(np.bool_).reshape(N, C, 2 * h, 2 * v), (N, C, H, W))


def max_pool_2x2_backward(dy: Array, cache: MaxCache) -> Array:
    """Return dx, as `npattn.ops.pooling.max_pool_2x2_backward` does, and with its errors."""
    floating(dy=dy)
    N, C, H, W = cache.shape
    h, v = H // 2, W // 2
    same_shape("dy", dy, (N, C, h, v), "the output y")
    dy = contiguous(dy)
    dx = np.empty((N, C, H, W), dtype=dy.dtype)
    dx[:, :, 2 * h :] = 0  # an odd last row or column belongs to no window
    dx[:, :, :, 2 * v :] = 0
    groups = tiles.images(N, C * H * W * dy.itemsize)

    def group(index: int) -> None:
        n = groups[index]
        wide = doubled(dy[n])
        for row in (0, 1):
            inside = dx[n, :, row : 2 * h : 2, : 2 * v]  # WIN.1
            maps.unless(cache.blocked[n, :, row::2], wide, inside)  # MAX2.2, MAX2.1

    threads.spread(group, len(groups))
    return dx
