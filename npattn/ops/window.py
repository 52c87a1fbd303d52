"""The pixels under windows that slide over an image, with padding around it, and the way back.

For pools over windows of any size; where each window stands says `ops/sliding.py`. `ops/pooling.py` has the fixed
windows of 2×2.
"""

from __future__ import annotations

from typing import NamedTuple

from npattn.backend import Array, copied, device
from npattn.checks import floating
from npattn.ops.pooling import some_pixels
from npattn.ops.sliding import Slide, rows_and_columns

Pair = int | tuple[int, int]
"""Rows and columns; one number is for both."""


class Windows(NamedTuple):
    """Which windows stand on an image."""

    shape: tuple[int, int, int, int]  # of the image
    slide: Slide

    @property
    def outputs(self) -> tuple[int, int, int, int]:
        """A number for each window: (N, C, H', W')."""
        N, C, H, W = self.shape
        return N, C, *self.slide.outputs(H, W)

    @property
    def places(self) -> int:
        """How many pixels a window has."""
        return self.slide.kernel[0] * self.slide.kernel[1]


def settings(window: Pair, stride: Pair | None, padding: Pair) -> dict[str, tuple[int, int]]:
    """The three as pairs. Without a stride the windows touch.

    Raises
    ------
    TypeError, ValueError
        If one is no whole number and no pair of them, or out of range: a padding above half the window, too, since
        windows of nothing but padding would have no maximum.
    """
    size, around = rows_and_columns("window", window), rows_and_columns("padding", padding, least=0)
    if any(2 * q > k for q, k in zip(around, size, strict=True)):
        raise ValueError(f"padding: expected at most half the window, which is {size}, got {around}")
    return {"window": size, "stride": size if stride is None else rows_and_columns("stride", stride), "padding": around}


def windows_on(x: Array, window: Pair, stride: Pair | None, padding: Pair) -> Windows:
    """The windows on x. Raises as `settings` does, and ValueError if x is too small for one."""
    found = Windows(some_pixels(x), Slide(*settings(window, stride, padding).values()))
    found.slide.outputs(*found.shape[2:])
    return found


def padded(x: Array, on: Windows, value: float) -> Array:
    """x with so many rows and columns of `value` on every side as the windows ask for."""
    (N, C, H, W), (q_h, q_v) = x.shape, on.slide.padding
    shape = (N, C, *on.slide.padded(H, W))
    x_bar = floating(x=x).full(shape, value, dtype=x.dtype, device=device(x))
    x_bar[:, :, q_h : q_h + H, q_v : q_v + W] = x
    return x_bar


def cropped(dx_bar: Array, on: Windows) -> Array:
    """The gradient of x from that of x with padding around it: a constant has none."""
    (_, _, H, W), (q_h, q_v) = on.shape, on.slide.padding
    return copied(dx_bar[:, :, q_h : q_h + H, q_v : q_v + W])


def slid(x_bar: Array, on: Windows) -> Array:
    """The pixels of each window, in reading order along a new last axis."""
    reads = on.slide.reads(*on.shape[2:])
    return floating(x_bar=x_bar).stack([x_bar[:, :, rows, columns] for rows, columns in reads], axis=4)


def unslid(du: Array, on: Windows) -> Array:
    """The gradient of the padded image: what comes back from all windows that saw a pixel adds up."""
    N, C, H, W = on.shape
    dx_bar = floating(du=du).zeros((N, C, *on.slide.padded(H, W)), dtype=du.dtype, device=device(du))
    for place, (rows, columns) in enumerate(on.slide.reads(H, W)):
        dx_bar[:, :, rows, columns] += du[..., place]
    return dx_bar


def places(x: Array, on: Windows, outside: float) -> Array:
    """For each place of each window 1 where it is in the image, else `outside`: (1, 1, H', W', k_h·k_v)."""
    ones = floating(x=x).ones((1, 1, *on.shape[2:]), dtype=x.dtype, device=device(x))
    return slid(padded(ones, on, outside), on)
