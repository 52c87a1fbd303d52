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
from npattn.fused import maps, order, taken, threads, tiles
from npattn.ops.activation import ReluCache

__all__ = ["ReluCache", "relu_backward", "relu_forward"]


def relu_forward(x: Array) -> tuple[Array, ReluCache]:
    """Rectify, as `npattn.ops.activation.relu_forward` does, and with its errors."""
    floating(x=x)
    taken(x=x)
    flat, y, blocked = order.flat(x), np.empty(x.size, dtype=x.dtype), np.empty(x.size, dtype=np.bool_)
    parts = tiles.pixels(x.size, x.itemsize)

    def part(t: int) -> None:
        np.maximum(flat[parts[t]], 0, out=y[parts[t]])  # RELU.1
        np.less_equal(flat[parts[t]], 0, out=blocked[parts[t]])

    threads.spread(part, len(parts))
    y, blocked = (order.images(numbers, x.shape, order.beside(x)) for numbers in (y, blocked))
    return y, ReluCache(blocked)


def relu_backward(dy: Array, cache: ReluCache) -> Array:
    """Return dx, as `npattn.ops.activation.relu_backward` does, and with its errors."""
    floating(dy=dy)
    same_shape("dy", dy, cache.blocked.shape, "the output y")
    b = order.beside(cache.blocked)
    flat, dx, blocked = order.flat(order.alike(dy, b)), np.empty(dy.size, dtype=dy.dtype), order.flat(cache.blocked)
    parts = tiles.pixels(dy.size, dy.itemsize)

    def part(t: int) -> None:
        maps.unless(blocked[parts[t]], flat[parts[t]], dx[parts[t]])  # RELU.1

    threads.spread(part, len(parts))
    return order.images(dx, dy.shape, b)
