"""Maximum over the channels with even ties: all maxima at a pixel share the gradient.

    x (N, C, H, W)

    CEVEN.1  y = maximum over the channels of x               (N, 1, H, W)
    CEVEN.2  b = 1 where x is y, else 0                       (N, C, H, W)   for the way back

It gives what `npattn.ops.channel_max` gives; only backward do they differ, and only on ties, as PyTorch's amax differs
from its max(dim). Derivation: docs/variants.md
"""

from __future__ import annotations

from typing import Any

from npattn.backend import Array
from npattn.checks import floating, same_shape
from npattn.ops.pooling import EvenCache, share, some_pixels, winners
from npattn.samples import Draw

Cache = EvenCache


def forward(x: Array) -> tuple[Array, EvenCache]:
    """Maximum over the channels with even ties: (N, C, H, W) to (N, 1, H, W).

    Parameters
    ----------
    x : (N, C, H, W)

    Returns
    -------
    y : (N, 1, H, W)
    cache : Cache

    Raises
    ------
    TypeError, ValueError
        If x is no float array of 4 axes with at least one channel.
    """
    xp = floating(x=x)
    some_pixels(x)
    y = xp.max(x, axis=1, keepdims=True)  # CEVEN.1
    b = winners(x, y)  # CEVEN.2
    return y, EvenCache(b)


def backward(dy: Array, cache: EvenCache) -> Array:
    """Return dx (N, C, H, W): dy divided by the number of maxima, at each of them.

    Parameters
    ----------
    dy : (N, 1, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    floating(dy=dy)
    N, _, H, W = cache.b.shape
    same_shape("dy", dy, (N, 1, H, W), "the output y")

    # CEVEN.2 found all maxima. CEVEN.1 could have read any of them: each receives the same part of dy
    dx = share(dy, cache.b, axis=1)  # CEVEN.2, CEVEN.1
    return dx


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"channel max, even ties": (draw.x(),)}
