"""Global log-sum-exp pooling: a channel becomes a soft maximum, and the gradient is shared out by a softmax.

    x (N, C, H, W)   maximum and sum are over the H·W pixels of a channel

    LSE.1    m = maximum over the pixels of x                 (N, C)         so that no exponential overflows
    LSE.2    e = exp(x − m)                                   (N, C, H, W)   in [0, 1], with a 1 in every channel
    LSE.3    y = m + log Σ_pixels e                           (N, C)         not divided by H·W

Derivation: docs/variants.md
"""

from __future__ import annotations

from typing import Any, NamedTuple

from npattn.backend import Array
from npattn.checks import floating, same_shape
from npattn.ops.pooling import some_pixels
from npattn.samples import Draw


class Cache(NamedTuple):
    e: Array  # (N, C, H, W)
    total: Array  # (N, C)


def forward(x: Array) -> tuple[Array, Cache]:
    """Global log-sum-exp pooling: (N, C, H, W) to (N, C). At least the maximum, at most log(H·W) above it.

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
    The sum is not divided by H·W, as CBAM's authors have it.
    """
    xp = floating(x=x)
    some_pixels(x)
    m = xp.max(x, axis=(2, 3), keepdims=True)  # LSE.1
    e = xp.exp(x - m)  # LSE.2
    total = xp.sum(e, axis=(2, 3))
    y = m[:, :, 0, 0] + xp.log(total)  # LSE.3
    return y, Cache(e, total)


def backward(dy: Array, cache: Cache) -> Array:
    """Return dx (N, C, H, W): dy shared out by a softmax.

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
    e, total = cache
    floating(dy=dy, e=e)
    same_shape("dy", dy, tuple(total.shape), "the output y")

    # LSE.3 was y = m + log Σ e: each e has the slope 1/Σe
    de = (dy / total)[:, :, None, None]  # LSE.3
    # LSE.2 was an exponential, its own slope: what x receives is dy times its share e/Σe in the sum
    dx = de * e  # LSE.2
    # LSE.1: m takes from every exponent what it adds outside. y does not depend on it, and nothing comes back
    return dx  # LSE.1


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"lse pool": (draw.x(),)}
