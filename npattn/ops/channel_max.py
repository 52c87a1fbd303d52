"""Maximum over the channels: a pixel becomes one number, and the maximum routes its gradient.

    x (N, C, H, W)

    CMAX.1  i = the first channel where x is largest          (N, 1, H, W)
    CMAX.2  y = x at channel i            (N, 1, H, W)

On a tie the first maximum receives the whole gradient, as in PyTorch: a maximum is one of its inputs, not a blend of
them. A NaN counts as largest. Derivation: docs/ops/pooling.md
"""

from __future__ import annotations

from typing import Any

from npattn.backend import Array
from npattn.checks import floating, same_shape
from npattn.ops.pooling import MaxCache, first_max, route, some_pixels
from npattn.samples import Draw

Cache = MaxCache


def forward(x: Array) -> tuple[Array, MaxCache]:
    """Maximum over the channels: (N, C, H, W) to (N, 1, H, W).

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
    floating(x=x)
    shape = some_pixels(x)
    y, i = first_max(x, axis=1)  # CMAX.1, CMAX.2
    return y, MaxCache(i, shape)


def backward(dy: Array, cache: MaxCache) -> Array:
    """Return dx (N, C, H, W), dy at the first maximum and 0 elsewhere.

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
    N, C, H, W = cache.shape
    same_shape("dy", dy, (N, 1, H, W), "the output y")

    # CMAX.2 read one channel at each pixel: that channel receives dy. CMAX.1 chose it; a choice has no slope
    dx = route(dy, cache.i, size=C, axis=1)  # CMAX.2, CMAX.1
    return dx


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"channel max": (draw.x(),)}


PAGE = {"N": 1, "C": 2, "H": 2, "W": 2}  # the sizes of the docs' worked example
