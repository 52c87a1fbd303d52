"""The hard swish: x times a gate of straight lines that x itself makes.

    x (any shape)

    HSW.1   g = x/6 + 1/2, but at least 0 and at most 1      the hard sigmoid
    HSW.2   y = x · g                                        slope  0 where x ≤ −3, x/3 + 1/2, then 1 where x ≥ 3

x is used twice, as in squeeze-and-excitation, only that here each number is its own gate.
Derivation: docs/ops/activation.md
"""

from __future__ import annotations

from typing import Any, NamedTuple

from npattn.backend import Array
from npattn.checks import floating, same_shape
from npattn.ops import hard_sigmoid
from npattn.samples import Draw


class Cache(NamedTuple):
    x: Array  # any shape
    g: Array  # the shape of x
    gate: hard_sigmoid.Cache


def forward(x: Array) -> tuple[Array, Cache]:
    """Let through what is above 3, nothing of what is below −3, and a growing share between. NaN passes.

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
    Howard et al., MobileNetV3, ICCV 2019, section 5.2.
    """
    floating(x=x)
    g, gate = hard_sigmoid.forward(x)  # HSW.1
    y = x * g  # HSW.2
    return y, Cache(x, g, gate)


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
    x, g, gate = cache
    floating(dy=dy, x=x)
    same_shape("dy", dy, tuple(x.shape), "the output y")

    # HSW.2 was y = x · g: each factor receives dy times the other
    dx_direct = dy * g  # HSW.2
    dg = dy * x  # HSW.2

    # HSW.1 made g from x, the second way on which x reached y
    dx_gate = hard_sigmoid.backward(dg, gate)  # HSW.1
    dx = dx_direct + dx_gate
    return dx


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"hard swish": (3 * draw.x("... W"),)}  # as far as both ends
