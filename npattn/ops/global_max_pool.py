"""Global max pooling: a channel becomes its maximum over space, and the maximum routes its gradient.

    x (N, C, H, W)

    GMP.1   i = the first pixel where x is largest            (N, C)
    GMP.2   y = x at pixel i              (N, C)

"First" is in reading order. On a tie the first maximum receives the whole gradient, as in PyTorch: a maximum is one of
its inputs, not a blend of them. A NaN counts as largest. Derivation: docs/ops/pooling.md
"""

from __future__ import annotations

from typing import Any

from npattn.backend import Array
from npattn.block import Block
from npattn.checks import floating, same_shape
from npattn.ops.pooling import MaxCache, first_max, route, some_pixels
from npattn.samples import Draw

Cache = MaxCache


def forward(x: Array) -> tuple[Array, MaxCache]:
    """Global max pooling: (N, C, H, W) to (N, C).

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
    Woo et al. 2018, section 3.1.
    """
    xp = floating(x=x)
    N, C, H, W = some_pixels(x)
    y, i = first_max(xp.reshape(x, (N, C, H * W)), axis=2)  # GMP.1, GMP.2
    return y[:, :, 0], MaxCache(i, (N, C, H, W))


def backward(dy: Array, cache: MaxCache) -> Array:
    """Return dx (N, C, H, W), dy at the first maximum and 0 elsewhere.

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

    # GMP.2 read one pixel: that pixel receives dy. GMP.1 chose it; a choice has no slope
    dx = route(dy[:, :, None], cache.i, size=H * W, axis=2)  # GMP.2, GMP.1
    return xp.reshape(dx, cache.shape)


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"global max pool": (draw.x(),)}


PAGE = {"N": 1, "C": 2, "H": 2, "W": 2}  # the sizes of the docs' worked example


class GlobalMaxPool(Block):
    """Global max pooling as a layer: (N, C, H, W) to (N, C). The first maximum gets the gradient.

    Parameters
    ----------
    dtype, rng, xp, fused
        As in `npattn.Layer`.
    """

    input_axes = "N C H W"
