"""Average over 2×2 windows, stride 2: the mean of four pixels, which shares its gradient.

    x (N, C, H, W)

    WIN.1   u = the four pixels of each 2×2 window            (N, C, H//2, W//2, 4)
    AVG2.1  y = mean of u                 (N, C, H//2, W//2) an odd last row or column is left out

Derivation: docs/ops/pooling.md
"""

from __future__ import annotations

from typing import Any

from npattn.backend import Array
from npattn.block import Block
from npattn.checks import floating, same_shape
from npattn.ops.pooling import MeanCache, unwindows, windows
from npattn.samples import Draw

Cache = MeanCache


def forward(x: Array) -> tuple[Array, MeanCache]:
    """Average over 2×2 windows, stride 2: (N, C, H, W) to (N, C, H//2, W//2).

    Parameters
    ----------
    x : (N, C, H, W)

    Returns
    -------
    y : (N, C, H//2, W//2)
    cache : Cache

    Raises
    ------
    TypeError, ValueError
        If x is no float array of 4 axes with H and W of at least 2.
    """
    xp = floating(x=x)
    u = windows(x)  # WIN.1
    y = xp.mean(u, axis=4)  # AVG2.1
    return y, MeanCache(tuple(x.shape))


def backward(dy: Array, cache: MeanCache) -> Array:
    """Return dx (N, C, H, W).

    Parameters
    ----------
    dy : (N, C, H//2, W//2)
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
    same_shape("dy", dy, (N, C, H // 2, W // 2), "the output y")

    # AVG2.1 gave each of four pixels a quarter share in y
    du = xp.stack([dy / 4] * 4, axis=4)  # AVG2.1
    # WIN.1 only moved pixels: their gradients move back
    dx = unwindows(du, cache.shape)  # WIN.1
    return dx


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"2×2 average pool": (draw.x(),)}


PAGE = {"N": 1, "C": 1, "H": 2, "W": 5}  # the sizes of the docs' worked example


class AvgPool2x2(Block):
    """Average over 2×2 windows as a layer: (N, C, H, W) to (N, C, H//2, W//2).

    Parameters
    ----------
    dtype, rng, xp, fused
        As in `npattn.Layer`.
    """

    input_axes = "N C H W"
