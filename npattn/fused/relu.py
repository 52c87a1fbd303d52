"""ReLU in one pass forward and one back.

    RELU.1   y = max(x, 0), which keeps a NaN                                        reads x       writes y, a byte
             dx = dy, its bits masked by 0 where x ≤ 0 and by all ones elsewhere     a byte, dy    dx

A choice between dy and 0 costs a branch a number in NumPy, and dy · mask is wrong for an infinite dy; masking is
neither.
"""

from __future__ import annotations

import numpy as np

from npattn.backend import Array
from npattn.checks import floating, same_shape
from npattn.fused import check_takes, layout, maps, threads, tiles
from npattn.ops.relu import Cache

__all__ = ["Cache", "backward", "forward"]


def forward(x: Array) -> tuple[Array, Cache]:
    """Rectify, as `npattn.ops.relu.forward` does, and with its errors."""
    floating(x=x)
    check_takes(x=x)
    flat, y, blocked = layout.flat(x), np.empty(x.size, dtype=x.dtype), np.empty(x.size, dtype=np.bool_)
    parts = tiles.pixels(x.size, x.itemsize)

    def part(t: int) -> None:
        np.maximum(flat[parts[t]], 0, out=y[parts[t]])  # RELU.1
        np.less_equal(flat[parts[t]], 0, out=blocked[parts[t]])

    threads.in_parallel(part, len(parts))
    y, blocked = (layout.images(numbers, x.shape, layout.beside(x)) for numbers in (y, blocked))
    return y, Cache(blocked)


def backward(dy: Array, cache: Cache) -> Array:
    """Return dx, as `npattn.ops.relu.backward` does, and with its errors."""
    floating(dy=dy)
    same_shape("dy", dy, cache.blocked.shape, "the output y")
    b = layout.beside(cache.blocked)
    flat, dx, blocked = layout.flat(layout.alike(dy, b)), np.empty(dy.size, dtype=dy.dtype), layout.flat(cache.blocked)
    parts = tiles.pixels(dy.size, dy.itemsize)

    def part(t: int) -> None:
        maps.unless(blocked[parts[t]], flat[parts[t]], dx[parts[t]])  # RELU.1

    threads.in_parallel(part, len(parts))
    return layout.images(dx, dy.shape, b)
