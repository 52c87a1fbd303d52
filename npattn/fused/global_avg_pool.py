"""Global averages by BLAS: x is read once forward, and dx written once.

x (N, C, H, W), a group of n images at a time, or all of them side by side (layout.py)

GAP.1   y = Σ_pixels x / (H·W), a product with ones                                reads x
        dx = dy / (H·W), repeated over the pixels                                  reads dy    writes dx
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npattn.backend import Array
from npattn.checks import floating, same_shape
from npattn.fused import check_takes, layout, maps, threads, tiles
from npattn.ops.pooling import some_pixels


class Cache(NamedTuple):
    shape: tuple[int, ...]  # of x
    b: int  # images side by side


def forward(x: Array) -> tuple[Array, Cache]:
    """Global average pooling, as `npattn.ops.global_avg_pool.forward` does, and with its errors."""
    floating(x=x)
    N, C, H, W = some_pixels(x)
    check_takes(x=x)
    X, b = layout.planes(x), layout.beside(x)
    y = np.empty((N // b, C, b), dtype=x.dtype)
    groups = tiles.images(N // b, C * H * W * b * x.itemsize)

    def group(index: int) -> None:
        y[groups[index]] = maps.image_sum(X[groups[index]], b) / (H * W)  # GAP.1

    threads.in_parallel(group, len(groups))
    return layout.by_image(y), Cache((N, C, H, W), b)


def backward(dy: Array, cache: Cache) -> Array:
    """Return dx, as `npattn.ops.global_avg_pool.backward` does, and with its errors."""
    floating(dy=dy)
    (N, C, H, W), b = cache
    same_shape("dy", dy, (N, C), "the output y")
    dx = layout.output((N, C, H, W), dy.dtype, b)
    layout.pixels(layout.planes(dx), b)[...] = layout.by_plane(dy / (H * W), b)[:, :, None]  # GAP.1
    return dx
