"""Average over windows of any size, with a stride and padding: a pixel gets a share from every window that saw it.

    x (N, C, H, W)   windows of k_h × k_v pixels   stride s_h, s_v   padding q_h, q_v on every side
    H' = (H + 2 q_h − k_h) // s_h + 1 windows below each other, W' side by side, likewise

    SLIDE.1   x̄ = x with zeros around                                      (N, C, H + 2 q_h, W + 2 q_v)
    SLIDE.2   u = the pixels of each window of x̄, in reading order         (N, C, H', W', k_h·k_v)
    WAVG.1    y = Σ u / m        (N, C, H', W')   m = k_h·k_v, or, without padding, how many of them are in the image

Windows may overlap: then gradients add. Derivation: docs/ops/pooling.md
"""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block
from npattn.checks import floating, same_shape, true_or_false
from npattn.layer import Options
from npattn.ops.window import Pair, Windows, cropped, padded, places, settings, slid, unslid, windows_on
from npattn.samples import Draw


class Cache(NamedTuple):
    on: Windows
    m: Array  # how many numbers each mean is of: (1, 1, H', W')


def forward(
    x: Array, window: Pair, stride: Pair | None = None, padding: Pair = 0, count_padding: bool = True
) -> tuple[Array, Cache]:
    """Average over windows.

    Parameters
    ----------
    x : (N, C, H, W)
    window
        Rows and columns of a window; one number is for both.
    stride
        How far from one window to the next; None for the window's size.
    padding
        Rows and columns on every side, at most half the window.
    count_padding
        Whether a mean is over its padding as well, zeros that make it smaller.

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
    true_or_false("count_padding", count_padding)
    on = windows_on(x, window, stride, padding)

    x_bar = padded(x, on, 0)  # SLIDE.1
    u = slid(x_bar, on)  # SLIDE.2
    m = xp.sum(places(x, on, 1 if count_padding else 0), axis=4)
    y = xp.sum(u, axis=4) / m  # WAVG.1
    return y, Cache(on, m)


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
    on, m = cache
    xp = floating(dy=dy, m=m)
    same_shape("dy", dy, on.outputs, "the output y")

    # WAVG.1 gave each of the m numbers the same share in y
    du = xp.stack([dy / m] * on.places, axis=4)  # WAVG.1
    # SLIDE.2 copied a pixel into every window that saw it: their gradients add
    dx_bar = unslid(du, on)  # SLIDE.2
    # SLIDE.1 put zeros around x: they are constants, only the middle goes back
    dx = cropped(dx_bar, on)  # SLIDE.1
    return dx


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"average over windows": (draw.x(),), "average over oblong windows": (draw.x(),)}


SETTINGS = {
    "average over windows": {"window": 3, "stride": 2, "padding": 1},
    "average over oblong windows": {"window": (2, 3), "stride": (1, 2), "padding": 1, "count_padding": False},
}
PAGE = {"N": 1, "C": 1, "H": 2, "W": 4}  # the sizes of the docs' worked example


class WindowAvgPool(Block):
    """Average over windows as a layer: (N, C, H, W) to (N, C, H', W').

    Parameters
    ----------
    window
        Rows and columns of a window; one number is for both.
    stride
        How far from one window to the next; None for the window's size.
    padding
        Rows and columns of zeros on every side, at most half the window.
    count_padding
        Whether the zeros count: a mean is over a whole window then, and at the edge it is smaller.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Raises
    ------
    TypeError, ValueError
        If a number is outside its range, or count_padding no bool; in forward, if x is smaller than a window.
    """

    input_axes = "N C H W"
    arguments = {"window": "k"}

    def __init__(
        self,
        window: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        *,
        count_padding: bool = True,
        **options: Unpack[Options],
    ) -> None:
        counted = {"count_padding": true_or_false("count_padding", count_padding)}
        super().__init__(settings=settings(window, stride, padding) | counted, **options)
