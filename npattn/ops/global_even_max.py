"""Global max pooling with even ties: all maxima of a channel share the gradient.

    x (N, C, H, W)

    GEVEN.1  y = maximum over the pixels of x                 (N, C)
    GEVEN.2  b = 1 where x is y, else 0                       (N, C, H, W)   for the way back

It gives what `npattn.ops.global_max_pool` gives; only backward do they differ, and only on ties, as PyTorch's amax
differs from its max(dim). Derivation: docs/variants.md
"""

from __future__ import annotations

from typing import Any

from npattn.backend import Array
from npattn.checks import floating, same_shape
from npattn.ops.pooling import EvenCache, share, some_pixels, winners
from npattn.samples import Draw

Cache = EvenCache


def forward(x: Array) -> tuple[Array, EvenCache]:
    """Global max pooling with even ties: (N, C, H, W) to (N, C).

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
    """
    xp = floating(x=x)
    some_pixels(x)
    y = xp.max(x, axis=(2, 3), keepdims=True)  # GEVEN.1
    b = winners(x, y)  # GEVEN.2
    return y[:, :, 0, 0], EvenCache(b)


def backward(dy: Array, cache: EvenCache) -> Array:
    """Return dx (N, C, H, W): dy divided by the number of maxima, at each of them.

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
    floating(dy=dy)
    same_shape("dy", dy, tuple(cache.b.shape[:2]), "the output y")

    # GEVEN.2 found all maxima. GEVEN.1 could have read any of them: each receives the same part of dy
    dx = share(dy[:, :, None, None], cache.b, axis=(2, 3))  # GEVEN.2, GEVEN.1
    return dx


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"global max pool, even ties": (draw.x(),)}
