"""The softmax along an axis: numbers become shares, positive and adding up to 1.

    x (..., K, ...)   the sum and the maximum run over the axis of length K

    SOFT.1   e = exp(x − max x)       no exponent is positive, and at least one is 0: nothing can overflow
    SOFT.2   y = e / Σ e              the shares

Every share depends on every number of its row. Shifting all of them alike changes nothing, so what goes back through
the maximum is 0. Bridle, 1990; Bahdanau et al., ICLR 2015, equation 6. Derivation: docs/ops/softmax.md
"""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

from npattn.backend import Array, copied
from npattn.block import Block
from npattn.checks import floating, same_shape, shaped, whole_number
from npattn.layer import Options
from npattn.samples import Draw


class Cache(NamedTuple):
    y: Array  # (..., K, ...): the slopes need nothing else
    axis: int


def forward(x: Array, axis: int = -1) -> tuple[Array, Cache]:
    """Make shares of the numbers along an axis.

    Parameters
    ----------
    x
        Of one axis or more.
    axis
        Which of them, counted from the end where it is negative.

    Returns
    -------
    y : the shape of x
        In [0, 1].
    cache : Cache

    Raises
    ------
    TypeError
        If x is no float array.
    ValueError
        If there is no such axis, or nothing along it.
    """
    xp = floating(x=x)
    axes = len(shaped("x", x, "... K"))
    axis = whole_number("axis", axis, least=-axes, most=axes - 1)
    if x.shape[axis] == 0:
        raise ValueError(f"x: expected at least one number along axis {axis}, got shape {tuple(x.shape)}")

    e = xp.exp(x - xp.max(x, axis=axis, keepdims=True))  # SOFT.1
    y = e / xp.sum(e, axis=axis, keepdims=True)  # SOFT.2
    return y, Cache(copied(y), axis)  # a copy: y belongs to the caller, who may write into it


def backward(dy: Array, cache: Cache) -> Array:
    """Return dx.

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
    y, axis = cache
    xp = floating(dy=dy, y=y)
    same_shape("dy", dy, tuple(y.shape), "the output y")

    # SOFT.2 was a quotient with one sum below all: de = (dy − mean) / Σ e, the mean being that of dy with y for weights
    mean = xp.sum(dy * y, axis=axis, keepdims=True)  # SOFT.2

    # SOFT.1 was an exponential, which is its own slope: de · e, and e / Σ e is y
    dx = y * (dy - mean)  # SOFT.1
    return dx


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"softmax": (draw.x("... W"),)}


PAGE = {"...": 2, "W": 3}  # the sizes of the docs' worked example


class Softmax(Block):
    """The softmax along an axis as a layer. Input and output: any shape with that axis.

    Parameters
    ----------
    axis
        Which one, counted from the end where it is negative.
    dtype, rng, xp, fused
        As in `npattn.Layer`.

    Raises
    ------
    TypeError, ValueError
        If axis is no whole number; in forward, if there is no such axis.
    """

    def __init__(self, axis: int = -1, **options: Unpack[Options]) -> None:
        super().__init__(settings={"axis": whole_number("axis", axis, least=-64, most=63)}, **options)
