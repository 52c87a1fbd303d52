"""Derivatives from the forward alone: by the complex step, or by differences on a ladder of steps.

Both give three numbers for every output: the derivative along v to the right, to the left, and the one in the middle.
Where the function is smooth all three are the same.

The complex step: f(θ + ihv) = f(θ) + ih f'(θ)v + O(h²), and nothing is subtracted, so h can be 1e-30. NumPy compares
complex numbers by their real part, and where that is tied by the imaginary one: at a tie it gives what comes to pass
on that side, the one-sided derivative.

Differences: (f(θ + hv) − f(θ − hv)) / 2h for h, h/2, h/4, extrapolated to h = 0 (Richardson). The last two
extrapolations differ by more than the error that is left. Squire & Trapp 1998; Ridders 1982.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

EPS = float(np.finfo(np.float64).eps)
STEP = 1e-30  # of the complex step: its square vanishes beside 1, and gradients of 1e-250 do not underflow
RUNGS = 26  # of the ladder: from h down to h / 2²⁵


class Slope(NamedTuple):
    """The derivative of every output along one direction, weighted by dy and summed where it says so."""

    middle: float  # Σ dy · derivative
    error: float  # of middle, an estimate
    right: np.ndarray  # dy · derivative, for every output
    left: np.ndarray
    kink: bool  # whether right and left differ

    @property
    def low(self) -> float:
        """The least that Σ dy · derivative can be, with each output's derivative between left and right."""
        return float(np.sum(np.minimum(self.left, self.right)))

    @property
    def high(self) -> float:
        return float(np.sum(np.maximum(self.left, self.right)))


def complex_step(f: Callable[[complex], np.ndarray], dy: np.ndarray) -> Slope:
    """The slope of f(t) at t = 0, f taking complex t."""
    right = dy * np.imag(f(1j * STEP)) / STEP
    left = dy * np.imag(f(-1j * STEP)) / -STEP
    size = float(np.sum(np.abs(right) + np.abs(left)))
    jump = float(np.sum(np.abs(right - left)))
    middle = float(np.sum(right + left)) / 2
    return Slope(middle, 4 * EPS * size, right, left, jump > 1e-10 * size)


def differences(f: Callable[[float], np.ndarray], dy: np.ndarray, y: np.ndarray, h: float, goal: float) -> Slope:
    """The slope of f(t) at t = 0, y = f(0), from steps of h and smaller, until its error is at most `goal`.

    Three steps are at hand on each rung of the ladder. A kink within reach makes them disagree, and the ladder goes
    on below it. A kink at 0 itself stays on every rung, and only then is it called one. What the two sides differ by,
    where that is no kink, counts as error.
    """
    smooth: tuple[float, Slope] | None = None
    kinked: tuple[float, Slope] | None = None
    odd: list[np.ndarray] = []  # (f(h) − f(−h)) / 2h: even powers of h are gone where f is smooth
    up: list[np.ndarray] = []  # (f(h) − f(0)) / h
    down: list[np.ndarray] = []  # (f(0) − f(−h)) / h
    moved = np.zeros(y.shape, dtype=bool)  # the outputs that the direction reaches
    for _ in range(RUNGS):
        above, below = f(h), f(-h)
        moved |= (above != y) | (below != y)
        odd = [*odd[-2:], dy * ((above - below) / (2 * h))]
        up = [*up[-2:], dy * ((above - y) / h)]
        down = [*down[-2:], dy * ((y - below) / h)]
        if len(odd) == 3 and all(np.all(np.isfinite(q)) for q in (*odd, *up, *down)):
            rounding = 2 * EPS * float(np.sum(np.abs(dy) * (np.abs(above) + np.abs(y)) * moved)) / h
            middle, error = extrapolated(odd, 2)
            right, error_right = extrapolated(up, 1)
            left, error_left = extrapolated(down, 1)
            jump = float(np.sum(np.abs(right - left)))
            error_sides = error_right + error_left + 4 * rounding
            # The middle is the better number where f is smooth; where its second derivative jumps the sides are
            apart = abs(float(np.sum(middle - (right + left) / 2)))
            total = error + rounding + jump / 2 + apart
            if total <= goal:
                return Slope(float(np.sum(middle)), total, right, left, kink=False)
            if jump <= 8 * error_sides:
                if smooth is None or total < smooth[0]:
                    smooth = total, Slope(float(np.sum(middle)), total, right, left, kink=False)
            elif kinked is None or error_sides < kinked[0]:
                middle = (right + left) / 2
                kinked = error_sides, Slope(float(np.sum(middle)), error_sides, right, left, kink=True)
        h /= 2
    if kinked is not None and (
        smooth is None or smooth[0] > 1e-3 * float(np.sum(np.abs(kinked[1].right - kinked[1].left)))
    ):
        return kinked[1]
    if smooth is not None:
        return smooth[1]
    nan = np.full_like(dy, np.nan)
    return Slope(np.nan, np.inf, nan, nan, kink=False)


def extrapolated(q: list[np.ndarray], power: int) -> tuple[np.ndarray, float]:
    """From q at h, h/2, h/4, whose error goes by h^power and h^(2·power), that at h = 0, and its error."""
    a, b = 2.0**power, 4.0**power
    first, second = (a * q[1] - q[0]) / (a - 1), (a * q[2] - q[1]) / (a - 1)
    third = (b * second - first) / (b - 1)
    return third, float(np.sum(np.abs(third - second)))
