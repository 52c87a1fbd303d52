"""Maximum over windows of any size, with a stride and padding: the largest of each window, which routes its gradient.

    x (N, C, H, W)   windows of k_h × k_v pixels   stride s_h, s_v   padding q_h, q_v on every side
    H' = (H + 2 q_h − k_h) // s_h + 1 windows below each other, W' side by side, likewise

    SLIDE.1   x̄ = x with −∞ around                                         (N, C, H + 2 q_h, W + 2 q_v)
    SLIDE.2   u = the pixels of each window of x̄, in reading order         (N, C, H', W', k_h·k_v)
    WMAX.1    i = the first place within the image where u is largest      (N, C, H', W')
    WMAX.2    y = u at i                                                   (N, C, H', W')

On a tie the first maximum of a window receives its whole gradient, as in PyTorch; padding is never a maximum. Windows
may overlap, and a pixel be the maximum of several: then gradients add. A NaN counts as largest.
Derivation: docs/ops/pooling.md
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block
from npattn.checks import floating, same_shape
from npattn.layer import Options
from npattn.ops.pooling import route, winners
from npattn.ops.window import Pair, Windows, cropped, padded, places, settings, slid, unslid, windows_on
from npattn.samples import Draw


class Cache(NamedTuple):
    i: Array  # where in its window the first maximum is: (N, C, H', W', 1)
    on: Windows


def forward(x: Array, window: Pair, stride: Pair | None = None, padding: Pair = 0) -> tuple[Array, Cache]:
    """Maximum over windows.

    Parameters
    ----------
    x : (N, C, H, W)
    window
        Rows and columns of a window; one number is for both.
    stride
        How far from one window to the next; None for the window's size.
    padding
        Rows and columns on every side, at most half the window.

    Returns
    -------
    y : (N, C, H', W')
    cache : Cache

    Raises
    ------
    TypeError, ValueError
        If x is no float array of 4 axes, or smaller than a window, or a number out of range.
    """
    xp = floating(x=x)
    on = windows_on(x, window, stride, padding)

    x_bar = padded(x, on, -math.inf)  # SLIDE.1
    u = slid(x_bar, on)  # SLIDE.2
    largest = winners(u, xp.max(u, axis=4, keepdims=True)) & (places(x, on, 0) == 1)
    i = xp.argmax(xp.astype(largest, xp.int8), axis=4, keepdims=True)  # WMAX.1
    y = xp.take_along_axis(u, i, axis=4)  # WMAX.2
    return y[..., 0], Cache(i, on)


def backward(dy: Array, cache: Cache) -> Array:
    """Return dx (N, C, H, W).

    Parameters
    ----------
    dy : (N, C, H', W')
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    i, on = cache
    floating(dy=dy)
    same_shape("dy", dy, on.outputs, "the output y")

    # WMAX.2 read one number of each window: that one receives dy. WMAX.1 chose it; a choice has no slope
    du = route(dy[..., None], i, size=on.places, axis=4)  # WMAX.2, WMAX.1
    # SLIDE.2 copied a pixel into every window that saw it: their gradients add
    dx_bar = unslid(du, on)  # SLIDE.2
    # SLIDE.1 put −∞ around x: a constant, only the middle goes back
    dx = cropped(dx_bar, on)  # SLIDE.1
    return dx


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"maximum over windows": (draw.x(),), "maximum over oblong windows": (draw.x(),)}


SETTINGS = {
    "maximum over windows": {"window": 3, "stride": 2, "padding": 1},
    "maximum over oblong windows": {"window": (2, 3), "stride": (1, 2), "padding": 1},
}
PAGE = {"N": 1, "C": 1, "H": 2, "W": 4}  # the sizes of the docs' worked example


class WindowMaxPool(Block):
    """Maximum over windows as a layer: (N, C, H, W) to (N, C, H', W'). The first maximum of a window gets its gradient.

    Parameters
    ----------
    window
        Rows and columns of a window; one number is for both.
    stride
        How far from one window to the next; None for the window's size.
    padding
        Rows and columns on every side that are never a maximum, at most half the window.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Raises
    ------
    TypeError, ValueError
        If a number is outside its range; in forward, if x is smaller than a window.
    """

    input_axes = "N C H W"
    arguments = {"window": "k"}

    def __init__(self, window: Pair, stride: Pair | None = None, padding: Pair = 0, **options: Unpack[Options]) -> None:
        super().__init__(settings=settings(window, stride, padding), **options)
