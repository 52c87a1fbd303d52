"""The SiLU, also called swish: x times a gate that x itself makes, the sigmoid of it.

    x (any shape)

    SILU.1   g = sigmoid(x)      in [0, 1]
    SILU.2   y = x · g           slope  g + x g (1 − g): below 0 for x under −1.28, 1/2 at 0, above 1 for x over 2.4

x is used twice, as in squeeze-and-excitation, only that here each number is its own gate.
Derivation: docs/ops/activation.md
"""

from __future__ import annotations

from typing import Any, NamedTuple

from npattn.backend import Array
from npattn.checks import floating, same_shape
from npattn.ops import sigmoid
from npattn.samples import Draw


class Cache(NamedTuple):
    x: Array  # any shape
    gate: sigmoid.Cache


def forward(x: Array) -> tuple[Array, Cache]:
    """Let through what is far above 0, nothing of what is far below, and a growing share between. NaN passes.

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
    Elfwing et al., Neural Networks 107, 2018; as swish: Ramachandran et al., 2017.
    """
    floating(x=x)
    g, gate = sigmoid.forward(x)  # SILU.1
    y = x * g  # SILU.2
    return y, Cache(x, gate)


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
    x, gate = cache
    floating(dy=dy, x=x)
    same_shape("dy", dy, tuple(x.shape), "the output y")

    # SILU.2 was y = x · g: each factor receives dy times the other
    dx_direct = dy * gate.y  # SILU.2
    dg = dy * x  # SILU.2

    # SILU.1 made g from x, the second way on which x reached y
    dx_gate = sigmoid.backward(dg, gate)  # SILU.1
    dx = dx_direct + dx_gate
    return dx


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"silu": (3 * draw.x("... W"),)}  # as far as both of its bends
