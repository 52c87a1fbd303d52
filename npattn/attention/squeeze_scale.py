"""SE without its FC: the squeeze is the scale. Nothing is learnt, which is what SE is compared with.

    x (N, C, H, W)

    NOFC.1   s = mean over the pixels of x     (N, C)
    NOFC.2   y = x · s                         (N, C, H, W)

x is used twice: its gradient is the sum of a direct path and one through the mean. Derivation: docs/blocks/wrong.md
"""

from __future__ import annotations

from typing import NamedTuple

from npattn.backend import Array
from npattn.block import Block, Card
from npattn.checks import floating, same_shape
from npattn.ops import global_avg_pool


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    s: Array  # (N, C)
    squeeze: global_avg_pool.Cache


def forward(x: Array) -> tuple[Array, Cache]:
    """Scale every channel of x by its own mean.

    Parameters
    ----------
    x : (N, C, H, W)

    Returns
    -------
    y : (N, C, H, W)
    cache : Cache

    Raises
    ------
    TypeError, ValueError
        If x is no float array of 4 axes with at least one pixel.
    """
    s, squeeze = global_avg_pool.forward(x)  # NOFC.1
    y = x * s[:, :, None, None]  # NOFC.2
    return y, Cache(x, s, squeeze)


def backward(dy: Array, cache: Cache) -> Array:
    """Return dx; there is nothing else.

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x, s, squeeze = cache
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, x.shape, "the output y")

    # NOFC.2 was y = x · s: each factor receives dy times the other, and s, broadcast over the pixels, their sum
    dx_direct = dy * s[:, :, None, None]  # NOFC.2
    ds = xp.sum(dy * x, axis=(2, 3))  # NOFC.2

    # NOFC.1 was a mean. No weight stands between the two: the way ends at x, in the same channel
    dx_gate = global_avg_pool.backward(ds, squeeze)  # NOFC.1
    dx = dx_direct + dx_gate
    return dx


class SqueezeScale(Block):
    """SE without its FC as a layer: x (N, C, H, W), any C, times the mean of each channel, the same shape.

    It has no parameters, and its factor is no gate: it is not kept between 0 and 1, and it is 0 where a channel is.

    Parameters
    ----------
    dtype, rng, xp, fused
        As in `npattn.Layer`.

    Attributes
    ----------
    attention
        "channel" (N, C, 1, 1), the means.
    """

    input_axes = "N C H W"
    gates = {"channel": ("s", "N C 1 1")}
    card = Card(
        "squeeze",
        "SE without its FC",
        asks="what matters?",
        gives="x · s",
        source="the article, figure 2, above",
        page="blocks/wrong",
        group="wrong structures",
        what="the squeeze as the scale, no FC",
    )
