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
OFF = 1e-3  # more than float64 is off by at the small move, as a share of it, by a factor of a thousand


def in_steps(start: Start) -> str:
    """What to say of a forward that moves in steps; empty if it is smooth, or lies on some kinks of its own."""
    rng = np.random.default_rng(1)
    steps = [moves_in_steps(start, rng) for _ in range(2)]
    if not all(steps):
        return ""
    return (
        "y moves in steps, or not at all, where the inputs move by a billionth of themselves. The forward rounds "
        'inside, to float32 or still more coarsely, and no derivative can be measured; dtype="float32" allows for that'
    )


def moves_in_steps(start: Start, rng: np.random.Generator) -> bool:
    """Along one random direction of everything."""
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
            return False
        expected = 2 * SMALL * slope
        floor = 1e4 * EPS * float(np.max(np.abs(start.y), initial=0))
        told = np.abs(expected) > floor
        off = np.abs((up - down) - expected)
        finer = (up != down) & (np.abs(up - down) < 0.01 * np.abs(expected))  # a slope that is 0 just here: no step
        jumping = told & ~finer & (off > np.maximum(OFF * np.abs(expected), floor))
        if np.any(told) and 2 * int(np.sum(jumping)) >= int(np.sum(told)):
            return True
        return flat(start, y, up, down)
    except Exception:  # outside of its domain
        return False


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
    """Whether an output that rests at both ends moves on its way between them: a gate that is saturated at both does.

    One that rounds rests nearly everywhere. Its steps are looked for where it leaves the first value.
    """

    def y(t: float) -> float:
        value = float(all_of_y(t).reshape(-1)[one])
        return value if abs(value) > 1e-290 else 0.0  # what is smaller moves in steps of its own

    low, moving, resting = 0.0, 0, 0
    at_low, at_high = y(low), y(high)
    for _ in range(40):
        middle = (low + high) / 2
        value = y(middle)
        if value == at_low:
            low = middle
            continue
        if value != at_high:
            rests = y(middle + SMALL) == value and y(middle - SMALL) == value
            resting, moving = resting + rests, moving + (not rests)
        high = middle
    return moving > resting
