"""Global average pooling: a channel becomes its mean over space, and the mean shares its gradient.

    x (N, C, H, W)   P = H·W pixels

    GAP.1   y = (1/P) Σ_pixels x          (N, C)

Derivation: docs/ops/pooling.md
"""

from __future__ import annotations

from typing import Any

from npattn.backend import Array, device
from npattn.block import Block
from npattn.checks import floating, same_shape
from npattn.ops.pooling import MeanCache, some_pixels
from npattn.samples import Draw

Cache = MeanCache


def forward(x: Array) -> tuple[Array, MeanCache]:
    """Global average pooling: (N, C, H, W) to (N, C). The squeeze of SE.

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
    Hu et al. 2018, eq. 2.
    """
    xp = floating(x=x)
    shape = some_pixels(x)
    y = xp.mean(x, axis=(2, 3))  # GAP.1
    return y, MeanCache(shape)


def backward(dy: Array, cache: MeanCache) -> Array:
    """Return dx (N, C, H, W).

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
    xp = floating(dy=dy)
    N, C, H, W = cache.shape
    same_shape("dy", dy, (N, C), "the output y")

    # GAP.1 gave each of the P pixels the share 1/P in y: each receives that share of dy
    share = dy[:, :, None, None] / (H * W)
    dx = share * xp.ones(cache.shape, dtype=dy.dtype, device=device(dy))  # GAP.1
    return dx


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"global average pool": (draw.x(),)}


PAGE = {"N": 1, "C": 2, "H": 2, "W": 2}  # the sizes of the docs' worked example


class GlobalAvgPool(Block):
    """Global average pooling as a layer: (N, C, H, W) to (N, C).

    Parameters
    ----------
    dtype, rng, xp, fused
        As in `npattn.Layer`.
    """

    input_axes = "N C H W"
