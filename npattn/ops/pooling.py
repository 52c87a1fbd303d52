"""What several pools share: how a maximum is found and its gradient routed, and how an image is cut into windows.

"First" is in reading order. On a tie the first maximum receives the whole gradient, as in PyTorch: a maximum is one of
its inputs, not a blend of them. The even maxima differ only there, as PyTorch's amax differs from its max(dim). A NaN
counts as largest.
"""

from __future__ import annotations

from typing import NamedTuple

from npattn.backend import Array, device
from npattn.checks import floating, shaped


class MeanCache(NamedTuple):
    shape: tuple[int, int, int, int]  # of x: a mean needs to remember nothing else


class MaxCache(NamedTuple):
    i: Array  # where the first maximum is; its axis kept, with length 1
    shape: tuple[int, ...]  # of x


class EvenCache(NamedTuple):
    b: Array  # bool, (N, C, H, W): the winners


def some_pixels(x: Array, **known: int) -> tuple[int, int, int, int]:
    """`shaped` for x (N, C, H, W), which also has to have something to pool."""
    N, C, H, W = shaped("x", x, "N C H W", **known)
    if 0 in (C, H, W):
        raise ValueError(f"x: expected C, H and W of at least 1, got {(N, C, H, W)}: there is nothing to pool")
    return N, C, H, W


def first_max(x: Array, axis: int) -> tuple[Array, Array]:
    """The first maximum along `axis` and its index, the axis kept with length 1."""
    xp = floating(x=x)
    i = xp.argmax(x, axis=axis, keepdims=True)
    return xp.take_along_axis(x, i, axis=axis), i


def route(dy: Array, i: Array, size: int, axis: int) -> Array:
    """An array of `size` along `axis`: dy at index i, 0 elsewhere. dy and i have length 1 there."""
    xp = floating(dy=dy)
    index_shape = [1] * dy.ndim
    index_shape[axis] = size
    winner = xp.reshape(xp.arange(size, device=device(dy)), tuple(index_shape)) == i
    return xp.where(winner, dy, xp.zeros_like(dy))


def winners(x: Array, y: Array) -> Array:
    """Where x is its maximum y. A NaN counts as largest."""
    return (x == y) | (x != x)


def share(dy: Array, b: Array, axis: int | tuple[int, ...]) -> Array:
    """dy, divided evenly among the winners b along `axis`, 0 elsewhere. dy has length 1 there."""
    xp = floating(dy=dy)
    count = xp.sum(xp.astype(b, dy.dtype), axis=axis, keepdims=True)
    return xp.where(b, dy / count, xp.zeros_like(dy))


def windows(x: Array) -> Array:
    """The four pixels of each 2×2 window, in reading order along a new last axis: (N, C, H//2, W//2, 4)."""
    xp = floating(x=x)
    N, C, H, W = shaped("x", x, "N C H W")
    if H < 2 or W < 2:
        raise ValueError(f"x: expected H and W of at least 2 for a 2×2 window, got {(N, C, H, W)}")
    h, v = H // 2 * 2, W // 2 * 2  # an odd last row or column belongs to no window
    return xp.stack([x[:, :, i:h:2, j:v:2] for i in (0, 1) for j in (0, 1)], axis=4)


def unwindows(du: Array, shape: tuple[int, ...]) -> Array:
    """Put the gradients of the windows' pixels back into an image of `shape`; what belongs to no window gets 0."""
    xp = floating(du=du)
    h, v = shape[2] // 2 * 2, shape[3] // 2 * 2
    dx = xp.zeros(shape, dtype=du.dtype, device=device(du))
    for n, (i, j) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        dx[:, :, i:h:2, j:v:2] = du[..., n]
    return dx
