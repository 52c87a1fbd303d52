"""How exact a gradient can be in float64: what rounding makes of it, measured at the point itself [3]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from npattn.checker.numeric import EPS
from npattn.checker.state import Arrays, Start, copies

SHRUNK = (1, 0.7, 0.5, 0.35, 0.25, 0.12)
SMALL, SMALL32 = 1e-6, 1e-3  # of the largest entry of a gradient: rounding beyond that has to be seen
TIMES = 30  # what was seen of rounding at seven points, and may be larger at this one
OUTLIER = 1e4  # times the median: such a number of y may be a constant, as a mask's −1e9 is


def floors(start: Start) -> dict[str, float]:
    """A share of the loss: a whole gradient that is smaller cannot be told from 0."""
    loss = float(np.linalg.norm(moving(start)))
    return dict.fromkeys(start.values, (100 if start.eps == EPS else 10) * start.eps * loss)


def moving(start: Start) -> np.ndarray:
    """dy · y; where single numbers stand out, without those that never move when all of θ does.

    A saturated gate rests where θ moves by little, and is rounded all the same: so θ moves by much.
    """
    parts: np.ndarray = np.abs(start.dy * start.y).reshape(-1)
    there = parts[parts > 0]
    if not there.size or np.max(there) <= OUTLIER * np.median(there):
        return parts
    try:
        moved = np.zeros(start.y.shape, dtype=bool)
        for by in (1 + 1e-6, 0.7, 0.1, 0.01, 0.0):
            at = {name: by * value if name in start.gradients else value.copy() for name, value in start.values.items()}
            with np.errstate(all="ignore"):
                moved |= np.asarray(start.form.forward(at)[0], dtype=np.float64) != start.y
    except Exception:  # it may refuse to be moved
        return parts
    return np.asarray(parts * moved.reshape(-1)) if np.any(moved) else parts


def least_noise(start: Start) -> dict[str, float]:
    """A share of the loss that no gradient can be asked to be exact beyond, and never more than a share of itself."""
    small, floor = SMALL if start.eps == EPS else SMALL32, floors(start)
    noise = {name: min(floor[name], small * largest(start.gradients.get(name))) for name in start.values}
    for name, g in start.gradients.items():
        noise[name] += 8 * max(start.rounded.get(name, 0.0), start.eps if start.eps > EPS else 0.0) * largest(g)
    return noise


def largest(g: np.ndarray | None) -> float:
    return 0.0 if g is None else float(np.max(np.abs(g), initial=0))


def rounding_noise(start: Start, name: str) -> float:
    """How exact a gradient can be expected to be in float64.

    The backward runs in float32 and, on the very same numbers, in float64: what differs is rounding, 2²⁹ times as
    coarse as float64's. Smaller values of θ are asked as well: a gate at 1 − 10⁻¹² is plain 1 in float32 and shows no
    rounding there, but on its way it does. There y may be much larger than here (exp(1/x) explodes towards 0), so what
    is found counts in proportion to y. Where float32 is not taken, a share of the loss stands for it.

    More than a millionth of a gradient is believed only if the gradient itself jumps so much in float64.
    """
    least = least_noise(start)[name]
    start.jumps = start.jumps or jumps(start)
    seen = TIMES * start.jumps[name]
    if start.eps > EPS:
        return max(least, seen)
    start.coarse = start.coarse or by_float32(start)
    coarse, cap = start.coarse[name], SMALL * largest(start.gradients[name])
    if coarse > cap:
        start.nearby = start.nearby or jumps_nearby(start)
        cap = max(cap, TIMES * start.nearby[name])
    return max(least, seen, min(coarse, cap))


def by_float32(start: Start) -> dict[str, float]:
    """What the differences between float32 and float64 let expect, name to number."""
    loss = float(np.linalg.norm(moving(start)))
    unknown = dict.fromkeys(start.values, 1e-11 * loss)
    if "float32" not in start.form.dtypes:
        return unknown
    noise = dict.fromkeys(start.values, 0.0)
    single = start.dy.astype(np.float32)
    for shrink in SHRUNK:
        low = {
            name: ((shrink if name in start.gradients else 1) * value).astype(np.float32)
            for name, value in start.values.items()
        }
        high = {name: value.astype(np.float64) for name, value in low.items()}
        try:
            with np.errstate(all="ignore"):
                _, cache = start.form.forward(low)
                coarse = {name: np.array(g) for name, g in start.form.backward(single, cache).items() if g is not None}
                y, cache = start.form.forward(high)
                there = float(np.linalg.norm(single * y))
                fine = start.form.backward(single.astype(np.float64), cache)
        except Exception:  # a forward may well refuse float32
            return {name: max(noise[name], unknown[name]) for name in start.values}
        share = min(1.0, loss / there) if np.isfinite(there) and there else 1.0
        for name in start.gradients:
            apart = np.abs(coarse[name] - fine[name])
            worst = float(np.max(np.where(np.isfinite(apart), apart, 0), initial=0))
            noise[name] = max(noise[name], 100 * 2.0**-29 * share * worst)
    return noise


def spread(seen: Sequence[Any], axis: int | None = None) -> Any:
    """The size of the noise in what was seen at seven points of a line, evenly apart.

    Fourth differences of what is smooth are nothing; those of noise are √70 times its size (Hamming 1973; Moré & Wild
    2011).
    """
    with np.errstate(invalid="ignore"):
        fourth = np.diff(np.array(seen), n=4, axis=0)
    return np.max(np.abs(np.nan_to_num(fourth, posinf=0, neginf=0)), axis=axis, initial=0) / np.sqrt(70)


def scaled(start: Start, k: int) -> Arrays:
    """θ, all of it larger by k · 2¹² roundings: the same point but for the digits. What is tied stays so."""
    by = 1 + k * 2**12 * start.eps
    return {name: by * value if name in start.gradients else value for name, value in start.values.items()}


def jumps(start: Start) -> dict[str, float]:
    """By how much each gradient jumps between points that are the same but for their last digits."""
    with np.errstate(all="ignore"):
        seen = [backward_at(start, scaled(start, k)) for k in range(1, 8)]
    return {name: float(spread([one[name] for one in seen])) for name in start.gradients}


def jumps_nearby(start: Start) -> dict[str, float]:
    """The same a few millionths of θ apart: 1 − g of a saturated gate g moves by no digit where θ moves by so few.

    The smaller of two lines: a kink may lie on one.
    """
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(2):
        u = {name: rng.uniform(-1, 1, value.shape) for name, value in start.values.items()}
        at = ({name: value * (1 + 4e-6 * k * u[name]) for name, value in start.values.items()} for k in range(1, 8))
        with np.errstate(all="ignore"):
            seen = [backward_at(start, one) for one in at]
        lines.append({name: float(spread([one[name] for one in seen])) for name in start.gradients})
    return {name: min(line[name] for line in lines) for name in start.gradients}


def backward_at(start: Start, values: Arrays) -> Arrays:
    """The gradients at another point, for the same dy; of no size where it is refused."""
    try:
        _, cache = start.form.forward(copies(values))
        found = start.form.backward(start.dy.copy(), cache)
        return {name: np.array(found[name], dtype=np.float64) for name in start.gradients}
    except Exception:
        return {name: np.full_like(g, np.nan) for name, g in start.gradients.items()}
