"""Does y move smoothly where the inputs move by a billionth of themselves? If it rounds, nothing can be measured.

Differences at small steps read 0 from a function that moves in steps, twice, and 0 agrees with 0. So it is asked first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from npattn.checker.numeric import EPS
from npattn.checker.state import Start, copies, rms
from npattn.grad_mode import no_grad

SMALL, MEDIUM = 1e-9, 1e-6  # moves, as shares of the inputs: below float32's resolution, and above
LARGE = (0.01, 0.1, 0.5)  # above that of anything coarser
LADDER = tuple(1e-6 / 4**k for k in range(10))  # down to where float64 itself is coarse
OFF = 1e-3  # more than float64 is off by at the small move, as a share of it, by a factor of a thousand


STEPS = (
    "y moves in steps, or not at all, where the inputs move by a billionth of themselves. The forward rounds "
    'inside, to float32 or still more coarsely, and no derivative can be measured; dtype="float32" allows for that'
)
ERRATIC = (
    "y jumps from point to point, however close these are: what it hangs on lies in the last digits of float64 here, "
    "so no derivative can be measured. Inputs nearer to 0, or of less weight, have more digits to spare"
)


def in_steps(start: Start) -> str:
    """What to say of a forward that moves in steps; empty if it is smooth, or lies on some kinks of its own."""
    rng = np.random.default_rng(1)
    found = [moves(start, rng) for _ in range(2)]
    return found[0] if all(found) else ""


def moves(start: Start, rng: np.random.Generator) -> str:
    """What is to be said along one random direction of everything; empty if y moves smoothly."""
    u = {name: rng.choice([-1.0, 1.0], value.shape) * rng.uniform(0.5, 1, value.shape)
         for name, value in start.values.items() if name in start.gradients}  # fmt: skip
    base = {name: np.where(value == 0, rms(value), value) for name, value in start.values.items()}

    def y(t: float) -> np.ndarray:
        values = {**start.values, **{name: start.values[name] + t * base[name] * u[name] for name in u}}
        with np.errstate(all="ignore"), no_grad():
            found = start.form.forward(copies(values))[0]
        return np.asarray(found, dtype=np.float64)

    try:
        up, down = y(SMALL), y(-SMALL)
        slope = (y(MEDIUM) - y(-MEDIUM)) / (2 * MEDIUM)
        if up.shape != start.y.shape or slope.shape != start.y.shape:
            return ""
        expected = 2 * SMALL * slope
        floor = 1e4 * EPS * float(np.max(np.abs(start.y), initial=0))
        told = np.abs(expected) > floor
        off = np.abs((up - down) - expected)
        finer = (up != down) & (np.abs(up - down) < 0.01 * np.abs(expected))  # a slope that is 0 just here: no step
        jumping = told & ~finer & (off > np.maximum(OFF * np.abs(expected), floor))
        if np.any(told) and 2 * int(np.sum(jumping)) >= int(np.sum(told)):
            return up_close(y, start.y, jumping)
        return STEPS if flat(start, y, up, down) else ""
    except Exception:  # outside of its domain
        return ""


def up_close(y: Callable[[float], np.ndarray], here: np.ndarray, jumping: np.ndarray) -> str:
    """What it is if slopes at a billionth and at a millionth differ: steps, a curve so sharp, or rounding.

    On a ladder of finer and finer moves the slopes of a curve come closer to each other by 16 from rung to rung, by 4
    where it lies on a kink. Those of steps are settled on the lowest rungs, below the steps' width. Those of rounding
    never settle; where they are the same on the highest ones, float64 has enough digits there.
    """
    size = float(np.max(np.abs(here), initial=0))
    slopes = np.array([(y(h) - y(-h))[jumping] / (2 * h) for h in LADDER])
    apart = np.abs(np.diff(slopes, axis=0))
    rough = np.array([16 * EPS * size / h for h in LADDER[1:]])[:, None] + 1e-12 * np.max(np.abs(slopes), axis=0)
    first, second, third = apart[:-2], apart[1:-1], apart[2:]
    curve = (second > rough[1:-1]) & (second < first / 3) & (third < np.maximum(second / 3, rough[2:]))
    most = np.max(np.abs(slopes), axis=0)
    fine = np.any(curve & (first < most), axis=0) | np.all(apart[:2] <= OFF * np.abs(slopes[0]), axis=0)
    if 2 * int(np.sum(fine)) >= len(fine):
        return ""
    lowest = apart[-5:-2] <= np.maximum(OFF * most, rough[-5:-2])
    return STEPS if 2 * int(np.sum(np.all(lowest, axis=0))) >= lowest.shape[1] else ERRATIC


def flat(start: Start, y: Callable[[float], np.ndarray], up: np.ndarray, down: np.ndarray) -> bool:
    """Whether most outputs that move at all stay the same, bit for bit, wherever they are moved by little."""
    still = (up == start.y) & (down == start.y)
    if not np.any(still):
        return False
    for t in LARGE:
        there = y(t)
        if there.shape != start.y.shape or not np.all(np.isfinite(there)):
            return False
        least = 1e3 * EPS * t / SMALL * float(np.max(np.abs(start.y), initial=0))
        moved = np.abs(there - start.y) > least  # so much that float64 would show a small move
        if np.any(moved):
            both = moved & still & (y(t + SMALL) == there) & (y(t - SMALL) == there)
            if 2 * int(np.sum(both)) >= int(np.sum(moved)):
                one = int(np.flatnonzero(both)[0])
                return not smooth_between(y, one, t)
    return False


def smooth_between(all_of_y: Callable[[float], np.ndarray], one: int, high: float) -> bool:
    """Whether an output that rests at both ends moves halfway between them: a gate that is saturated at both does.

    One that rounds rests nearly everywhere, there too. Where is found by bisection.
    """

    def y(t: float) -> float:
        return float(all_of_y(t).reshape(-1)[one])

    low, moving, resting = 0.0, 0, 0
    at_low, at_high = y(low), y(high)
    level, far = (at_low + at_high) / 2, 0.45 * abs(at_high - at_low)
    while high - low > (1e3 if moving + resting else 10) * SMALL:
        middle = (low + high) / 2
        value = y(middle)
        if abs(value - level) < far:  # neither end's value, nor nearly so
            rests = y(middle + SMALL) == value and y(middle - SMALL) == value
            resting, moving = resting + rests, moving + (not rests)
        if (value > level) == (at_low > level):
            low = middle
        else:
            high = middle
    return moving > resting
