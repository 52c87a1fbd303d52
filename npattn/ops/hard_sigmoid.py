"""The hard sigmoid: three straight lines in place of the sigmoid.

    x (any shape)

    HSIG.1   y = x/d + 1/2, but at least 0 and at most 1      slope  1/d where −d/2 < x < d/2, else 0;  d = 6

Keras 2 and, at places, PaddlePaddle have d = 5.

`torch_backward` is the same with a slope that is off by 3e-8: PyTorch multiplies with 1/6 rounded to float32, in
float64 too. It is there to give PyTorch's gradients to the last digit; in float32 the two do not differ.
Derivation: docs/variants.md
"""

from __future__ import annotations

from typing import Any, NamedTuple

from npattn.backend import Array
from npattn.checks import floating, real_number, same_shape
from npattn.samples import Draw


class Cache(NamedTuple):
    flat: Array  # bool, the shape of x: where the slope is 0
    d: float  # how far it is from where it leaves 0 to where it reaches 1


def forward(x: Array, d: float = 6) -> tuple[Array, Cache]:
    """Squash to a gate between 0 and 1 by straight lines. NaN passes.

    Parameters
    ----------
    x
        Any shape.
    d
        Above 0, 1 over the slope.

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
    Howard et al., MobileNetV3, ICCV 2019, section 5.2.
    """
    xp = floating(x=x)
    d = real_number("d", d, least=1e-6)
    low, high = x <= -d / 2, x >= d / 2
    y = xp.where(low, xp.zeros_like(x), xp.where(high, xp.ones_like(x), x / d + 0.5))  # HSIG.1
    return y, Cache(low | high, d)


def backward(dy: Array, cache: Cache) -> Array:
    """Return dx: dy/d between −d/2 and d/2, else 0.

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
    same_shape("dy", dy, tuple(cache.flat.shape), "the output y")

    # HSIG.1 was a line of slope 1/d, flat at both ends
    dx = xp.where(cache.flat, xp.zeros_like(dy), dy / cache.d)  # HSIG.1
    return dx


def torch_backward(dy: Array, cache: Cache) -> Array:
    """Return dx as PyTorch's hardsigmoid does (2.13, on a CPU), with a slope of 1/6 rounded to float32."""
    return backward(dy, cache) * (6 * SIXTH)


SIXTH = 11184811 / 2**26  # the float32 next to 1/6


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"hard sigmoid": (3 * draw.x("... W"),)}  # as far as both ends
