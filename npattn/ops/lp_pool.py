"""Global lp pooling with p = 2: a channel becomes the root of the sum of its squares.

    x (N, C, H, W)   the sum is over the H·W pixels of a channel

    LP.1     q = Σ_pixels x²                                  (N, C)
    LP.2     y = √q                                           (N, C)         a length: not divided by H·W

Derivation: docs/variants.md
"""

from __future__ import annotations

from typing import Any, NamedTuple

from npattn.backend import Array
from npattn.checks import floating, same_shape
from npattn.ops.pooling import some_pixels
from npattn.samples import Draw


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    y: Array  # (N, C)


def forward(x: Array) -> tuple[Array, Cache]:
    """Global power-2 pooling, the length of a channel: (N, C, H, W) to (N, C).

    |x| must stay below the root of the largest number, 1e19 in float32 and 1e154 in float64, or q is infinite.

    Parameters
    ----------
    x : (N, C, H, W)

    Returns
    -------
    y : (N, C)
    cache : Cache

    Raises
    ------
    TypeError, ValueError
        If x is no float array of 4 axes with at least one pixel.

    References
    ----------
    PyTorch's lp_pool2d with norm_type 2 over the whole map, as CBAM's authors use it.
    """
    xp = floating(x=x)
    some_pixels(x)
    q = xp.sum(x * x, axis=(2, 3))  # LP.1
    y = xp.sqrt(q)  # LP.2
    return y, Cache(x, y + 0)  # y is the caller's; the cache keeps one of its own


def backward(dy: Array, cache: Cache) -> Array:
    """Return dx (N, C, H, W), 0 where a channel is all zero.

    Parameters
    ----------
    dy : (N, C)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x, y = cache
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, tuple(y.shape), "the output y")

    # LP.2 was y = √q, with the slope 1/(2y). A root has none at 0: there, as PyTorch does, we take 0
    nothing = y == 0
    half = xp.where(nothing, xp.zeros_like(dy), dy / xp.where(nothing, xp.ones_like(y), y))
    dq = half / 2  # LP.2
    # LP.1 was a sum of squares, each with the slope 2x
    dx = 2 * x * dq[:, :, None, None]  # LP.1
    return dx


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"lp pool": (draw.x(),)}
