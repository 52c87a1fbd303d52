"""Mean over the channels: a pixel becomes one number, and the mean shares its gradient.

    x (N, C, H, W)

    CMEAN.1 y = (1/C) Σ_c x               (N, 1, H, W)

Derivation: docs/ops/pooling.md
"""

from __future__ import annotations

from typing import Any

from npattn.backend import Array, device
from npattn.checks import floating, same_shape
from npattn.ops.pooling import MeanCache, some_pixels
from npattn.samples import Draw

Cache = MeanCache


def forward(x: Array) -> tuple[Array, MeanCache]:
    """Mean over the channels: (N, C, H, W) to (N, 1, H, W).

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

    References
    ----------
    Woo et al. 2018, section 3.2.
    """
    xp = floating(x=x)
    shape = some_pixels(x)
    y = xp.mean(x, axis=1, keepdims=True)  # CMEAN.1
    return y, MeanCache(shape)


def backward(dy: Array, cache: MeanCache) -> Array:
    """Return dx (N, C, H, W).

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
    xp = floating(dy=dy)
    N, C, H, W = cache.shape
    same_shape("dy", dy, (N, 1, H, W), "the output y")

    # CMEAN.1 gave each of the C channels the share 1/C in y: each receives that share of dy
    dx = dy / C * xp.ones(cache.shape, dtype=dy.dtype, device=device(dy))  # CMEAN.1
    return dx


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"channel mean": (draw.x(),)}


PAGE = {"N": 1, "C": 2, "H": 2, "W": 2}  # the sizes of the docs' worked example
