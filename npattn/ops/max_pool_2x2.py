"""Maximum over 2×2 windows, stride 2: the largest of four pixels, which routes its gradient.

    x (N, C, H, W)

    WIN.1   u = the four pixels of each 2×2 window            (N, C, H//2, W//2, 4)
    MAX2.1  i = the first of the four where u is largest
    MAX2.2  y = u at i                    (N, C, H//2, W//2) an odd last row or column is left out

"First" is in reading order. On a tie the first maximum receives the whole gradient, as in PyTorch: a maximum is one of
its inputs, not a blend of them. A NaN counts as largest. Derivation: docs/ops/pooling.md
"""

from __future__ import annotations

from typing import Any

from npattn.backend import Array
from npattn.block import Block
from npattn.checks import floating, same_shape
from npattn.ops.pooling import MaxCache, first_max, route, unwindows, windows
from npattn.samples import Draw

Cache = MaxCache


def forward(x: Array) -> tuple[Array, MaxCache]:
    """Maximum over 2×2 windows, stride 2: (N, C, H, W) to (N, C, H//2, W//2).

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
    u = windows(x)  # WIN.1
    y, i = first_max(u, axis=4)  # MAX2.1, MAX2.2
    return y[..., 0], MaxCache(i, tuple(x.shape))


def backward(dy: Array, cache: MaxCache) -> Array:
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
    floating(dy=dy)
    N, C, H, W = cache.shape
    same_shape("dy", dy, (N, C, H // 2, W // 2), "the output y")

    # MAX2.2 read one of four pixels: that one receives dy. MAX2.1 chose it; a choice has no slope
    du = route(dy[..., None], cache.i, size=4, axis=4)  # MAX2.2, MAX2.1
    # WIN.1 only moved pixels: their gradients move back
    dx = unwindows(du, cache.shape)  # WIN.1
    return dx


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"2×2 max pool": (draw.x(),)}


PAGE = {"N": 1, "C": 1, "H": 2, "W": 5}  # the sizes of the docs' worked example


class MaxPool2x2(Block):
    """Maximum over 2×2 windows as a layer: (N, C, H, W) to (N, C, H//2, W//2). The first maximum gets the gradient.

    Parameters
    ----------
    dtype, rng, xp, fused
        As in `npattn.Layer`.
    """

    input_axes = "N C H W"
