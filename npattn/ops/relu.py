"""ReLU: a function of one element, so a gradient is multiplied by the slope at that element, which is 1 or 0.

    x (any shape)

    RELU.1   y = max(x, 0)             slope  1 where x > 0, else 0   (0 at x = 0, by convention)

Derivation: docs/ops/activation.md
"""

from __future__ import annotations

from typing import Any, NamedTuple

from npattn.backend import Array
from npattn.block import Block
from npattn.checks import floating, same_shape
from npattn.samples import Draw


class Cache(NamedTuple):
    blocked: Array  # bool, the shape of x: where nothing passes


def forward(x: Array) -> tuple[Array, Cache]:
    """Rectify: what is positive passes, the rest becomes 0. NaN passes, as in PyTorch.

    Parameters
    ----------
    x
        Any shape.

    Returns
    -------
    y : the shape of x
    cache : Cache

    Raises
    ------
    TypeError
        If x is no float array.

    References
    ----------
    Nair & Hinton 2010, section 2.
    """
    xp = floating(x=x)
    blocked = x <= 0
    y = xp.where(blocked, xp.zeros_like(x), x)  # RELU.1
    return y, Cache(blocked)


def backward(dy: Array, cache: Cache) -> Array:
    """Return dx: dy where x was positive, else 0.

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
    xp = floating(dy=dy)
    same_shape("dy", dy, cache.blocked.shape, "the output y")

    # RELU.1 let through what was positive; where it wrote a 0, x no longer had a say
    dx = xp.where(cache.blocked, xp.zeros_like(dy), dy)  # RELU.1
    return dx


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"relu": (draw.x("... W"),)}


PAGE = {"...": 2, "W": 3}  # the sizes of the docs' worked example


class ReLU(Block):
    """`forward` and `backward` as a layer. Input and output: any shape.

    Parameters
    ----------
    dtype, rng, xp, fused
        As in `npattn.Layer`.
    """
