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
RUNGS = 36  # of the ladder: from h down to h / 2³⁵, and to no step that rounding would change
TELLING = 0.01  # of a slope: what is known no better is no slope of which smaller steps could only be worse
FIRST = 4  # the rung that is tried first: there both truncation and rounding are small for most functions


class Slope(NamedTuple):
    """The derivative of every output along one direction, weighted by dy and summed where it says so."""

    middle: float  # Σ dy · derivative
    error: float  # of middle, an estimate
    right: np.ndarray  # dy · derivative, for every output
    left: np.ndarray
    kink: bool  # whether right and left differ

    @property
    def without(self) -> np.ndarray:
        """Which outputs do not depend on it at all."""
        return np.asarray((self.right == 0) & (self.left == 0))

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


class Rung(NamedTuple):
    """Quotients at one step h, dy · quotient for every output, and what rounding makes of their sum."""

    odd: np.ndarray  # (f(h) − f(−h)) / 2h: even powers of h are gone where f is smooth
    up: np.ndarray  # (f(h) − f(0)) / h
    down: np.ndarray  # (f(0) − f(−h)) / h
    rounding: float

    @property
    def finite(self) -> bool:
        return all(bool(np.all(np.isfinite(q))) for q in (self.odd, self.up, self.down))


class Estimate(NamedTuple):
    """What three rungs say."""

    slope: Slope
    total: float  # the error of its middle, with all that speaks against it
    jump: float  # what right and left differ by
    error_sides: float

    @property
    def size(self) -> float:
        return float(np.sum(np.abs(self.slope.right) + np.abs(self.slope.left)))

    @property
    def telling(self) -> bool:
        """Whether it is known much better than that it may be 0."""
        return self.total <= TELLING * self.size


def differences(
    f: Callable[[float], np.ndarray],
    dy: np.ndarray,
    y: np.ndarray,
    h: float,
    goal: float,
    share: float = 0.0,
    eps: float = EPS,
    least: float = 0.0,
    noise: Callable[[], np.ndarray] | None = None,
    rests: np.ndarray | None = None,
) -> Slope:
    """The slope of f(t) at t = 0, y = f(0), from steps of h and smaller, until its error is small enough.

    That is: at most `goal`, or at most `share` of the slope that the first steps show, since no gradient tells how
    large it is where the backward gives 0. Three steps are at hand on each rung of the ladder. Those that nearly
    always do are tried first. A kink within reach makes them disagree, and the ladder goes on below it. A kink at 0
    itself stays on every rung, and only then is it called one. What the two sides differ by, where that is no kink,
    counts as error. Rounding, by `eps` of y or by the `noise` that y shows, grows from rung to rung: where it alone is
    more than the best error so far, the rungs below can bring nothing. No step is smaller than `least`. Steps far
    beyond a function's own scale agree on a slope that is none; the rungs below agree on another one, and are
    believed. `rests` has outputs that are known not to depend on the direction, unless they are seen to move.
    """
    known: dict[int, Rung] = {}
    moved = np.zeros(y.shape, dtype=bool)  # the outputs that the direction reaches
    own = [np.zeros(y.shape)]  # how far y is off by its own rounding

    def rung(k: int) -> Rung:
        if k not in known:
            step = h / 2**k
            above, below = f(step), f(-step)
            moved[...] |= (above != y) | (below != y)
            size = float(np.sum(np.abs(dy) * (np.abs(above) + np.abs(y) + own[0] / eps) * moved))
            up, down = dy * ((above - y) / step), dy * ((y - below) / step)
            known[k] = Rung(dy * ((above - below) / (2 * step)), up, down, 2 * eps * size / step)
        return known[k]

    def three(k: int) -> Estimate | None:
        rungs = [rung(k), rung(k + 1), rung(k + 2)]
        return estimated(rungs) if all(one.finite for one in rungs) else None

    def told(slope: Slope) -> Slope:
        """With what an output may have moved by that stayed the same, bit for bit: less than rounding shows."""
        still = float(np.sum(np.abs(dy) * np.abs(y) * (~moved if rests is None else ~moved & ~rests)))
        return slope._replace(error=slope.error + eps * still * 2**FIRST / h)

    first = three(FIRST)
    if first is not None:
        goal = max(goal, share * first.size / 2)
        if first.total <= goal:
            return told(first.slope)
    if noise is not None:
        own[0] = noise()
        known.clear()
    smooth: Estimate | None = None
    all_smooth: list[Estimate] = []
    kinked: Estimate | None = None
    for k in range(RUNGS - 2):
        if k > FIRST and h / 2 ** (k + 2) < least:
            break
        found = three(k)
        known.pop(k, None)
        if found is None:
            continue
        if found.total <= goal:
            return told(found.slope)
        if found.jump <= 8 * found.error_sides:
            all_smooth.append(found)
            if smooth is None or found.total < smooth.total:
                smooth = found
        elif kinked is None or found.error_sides < kinked.error_sides:
            kinked = found
        enough = smooth is not None and known[k + 2].rounding >= smooth.total
        if smooth is not None and enough and smooth.telling and found.telling and agree(smooth, found):
            break
    smooth = uncontradicted(all_smooth)
    if kinked is not None and (smooth is None or smooth.total > 1e-3 * kinked.jump):
        right, left = kinked.slope.right, kinked.slope.left
        return told(Slope(float(np.sum(right + left)) / 2, kinked.error_sides, right, left, kink=True))
    if smooth is not None:
        return told(smooth.slope)
    nan = np.full_like(dy, np.nan)
    return Slope(np.nan, np.inf, nan, nan, kink=False)


def agree(one: Estimate, other: Estimate) -> bool:
    """Whether two estimates are the same, as far as they say to know."""
    return abs(one.slope.middle - other.slope.middle) <= 10 * (one.total + other.total)


def uncontradicted(found: list[Estimate]) -> Estimate | None:
    """The estimate of the smallest error; of smaller steps if two of these that follow each other agree otherwise."""
    pairs = [(i, found[i]) for i in range(1, len(found)) if agree(found[i - 1], found[i])]
    for one in sorted(found, key=lambda each: each.total):
        place = next(i for i, each in enumerate(found) if each is one)
        if all(agree(one, other) or agree(one, found[i - 1]) for i, other in pairs if i > place + 1):
            return one
    return found[-1] if found else None


def estimated(rungs: list[Rung]) -> Estimate:
    """The slope to which the quotients of three rungs lead, and how far it may be off."""
    rounding = rungs[2].rounding
    middle, error = extrapolated([one.odd for one in rungs], 2)
    right, error_right = extrapolated([one.up for one in rungs], 1)
    left, error_left = extrapolated([one.down for one in rungs], 1)
    jump = float(np.sum(np.abs(right - left)))
    error_sides = error_right + error_left + 4 * rounding
    # The middle is the better number where f is smooth; where its second derivative jumps the sides are
    apart = abs(float(np.sum(middle - (right + left) / 2)))
    total = error + rounding + jump / 2 + apart
    return Estimate(Slope(float(np.sum(middle)), total, right, left, kink=False), total, jump, error_sides)


def extrapolated(q: list[np.ndarray], power: int) -> tuple[np.ndarray, float]:
    """From q at h, h/2, h/4, whose error goes by h^power and h^(2·power), that at h = 0, and its error."""
    a, b = 2.0**power, 4.0**power
    first, second = (a * q[1] - q[0]) / (a - 1), (a * q[2] - q[1]) / (a - 1)
    third = (b * second - first) / (b - 1)
    return third, float(np.sum(np.abs(third - second)))
