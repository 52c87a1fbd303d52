"""The sigmoid: a function of one element, so a gradient is multiplied by the slope at that element.

    x (any shape)

    SIG.1    e = exp(−|x|)             in (0, 1]: nothing can overflow
    SIG.2    y = 1 / (1 + exp(−x))     slope  y (1 − y)

Derivation: docs/ops/activation.md
"""

from __future__ import annotations

from typing import Any, NamedTuple

from npattn.backend import Array, copied
from npattn.block import Block
from npattn.checks import floating, same_shape
from npattn.samples import Draw


class Cache(NamedTuple):
    y: Array  # the output itself: the slope needs nothing else


def forward(x: Array) -> tuple[Array, Cache]:
    """Squash to a gate between 0 and 1. Never overflows, and keeps its digits far out on both sides.

    Parameters
    ----------
    x
        Any shape.

    Returns
    -------
    y : the shape of x
        In [0, 1].
    cache : Cache

    Raises
    ------
    TypeError
        If x is no float array.

    References
    ----------
    The logistic function; Hu et al. 2018, equation 3.
    """
    xp = floating(x=x)
    negative = x < 0
    e = xp.exp(xp.where(negative, x, -x))  # SIG.1
    y = xp.where(negative, e, xp.ones_like(e)) / (1 + e)  # SIG.2, with both sides multiplied by e where x < 0
    return y, Cache(copied(y))  # a copy: y belongs to the caller, who may write into it


def backward(dy: Array, cache: Cache) -> Array:
    """Return dx = dy · y (1 − y).

    Parameters
    ----------
    dy : the shape of y
    cache : Cache

    Returns
    -------
    dx : the shape of x

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    y = cache.y
    floating(dy=dy, y=y)
    same_shape("dy", dy, y.shape, "the output y")

    # SIG.2 was y = 1 / (1 + exp(−x)), and dy/dx = exp(−x) / (1 + exp(−x))² = y (1 − y); SIG.1 is inside that slope
    dx = dy * y * (1 - y)  # SIG.2, SIG.1
    return dx


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"sigmoid": (draw.x("... W"),)}


PAGE = {"...": 2, "W": 3}  # the sizes of the docs' worked example


class Sigmoid(Block):
    """`forward` and `backward` as a layer. Input and output: any shape.

    Parameters
    ----------
    dtype, rng, xp, fused
        As in `npattn.Layer`.
    """
