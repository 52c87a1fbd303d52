"""How exact a gradient can be in float64: what rounding makes of it, measured at the point itself [3]."""

from __future__ import annotations

import numpy as np

from npattn.checker.numeric import EPS
from npattn.checker.state import Arrays, Start

SHRUNK = (1, 0.7, 0.5, 0.35, 0.25, 0.12)
SMALL = 1e-6  # of the largest entry of a gradient: rounding beyond that has to be seen in float64


def least_noise(start: Start) -> dict[str, float]:
    """A share of the loss that no gradient can be asked to be exact beyond."""
    loss = float(np.linalg.norm(start.dy * start.y))
    noise = dict.fromkeys(start.values, (100 if start.eps == EPS else 10) * start.eps * loss)
    for name, g in start.gradients.items():
        noise[name] += 8 * max(start.rounded.get(name, 0.0), start.eps if start.eps > EPS else 0.0) * largest(g)
    return noise


def largest(g: np.ndarray | None) -> float:
    return 0.0 if g is None else float(np.max(np.abs(g), initial=0))


def rounding_noise(start: Start) -> dict[str, float]:
    """How exact each gradient can be expected to be in float64.

    The backward runs in float32 and, on the very same numbers, in float64: what differs is rounding, 2²⁹ times as
    coarse as float64's. Smaller values of θ are asked as well: a gate at 1 − 10⁻¹² is plain 1 in float32 and shows no
    rounding there, but on its way it does. There y may be much larger than here (exp(1/x) explodes towards 0), so what
    is found counts in proportion to y. Where float32 is not taken, a share of the loss stands for it.

    More than a millionth of a gradient is believed only if the gradient itself jumps so much in float64.
    """
    least = least_noise(start)
    if start.eps > EPS:
        return least
    coarse = by_float32(start)
    noise = {}
    for name in start.values:
        cap = SMALL * largest(start.gradients.get(name))
        if name in start.gradients and coarse[name] > max(cap, least[name]):
            cap = max(cap, 30 * jumps(start)[name])
        noise[name] = max(least[name], min(coarse[name], cap))
    return noise


def by_float32(start: Start) -> dict[str, float]:
    """What the differences between float32 and float64 let expect, name to number."""
    loss = float(np.linalg.norm(start.dy * start.y))
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


def jumps(start: Start) -> dict[str, float]:
    """By how much each gradient jumps between points that are nearly the same: what is not smooth is rounding.

    Seven points on a line, a few millionths of θ apart. Fourth differences of what is smooth are nothing; those of
    noise are √70 times its size (Hamming 1973; Moré & Wild 2011). The smaller of two lines: a kink may lie on one.
    """
    if not start.jumps:
        rng = np.random.default_rng(0)
        lines = []
        for _ in range(2):
            u = {name: rng.uniform(-1, 1, value.shape) for name, value in start.values.items()}
            seen = []
            for k in range(1, 8):
                at = {name: value * (1 + 4e-6 * k * u[name]) for name, value in start.values.items()}
                with np.errstate(all="ignore"):
                    _, cache = start.form.forward(at)
                    seen.append(taken(start, start.form.backward(start.dy.copy(), cache)))
            found = {}
            for name in start.gradients:
                fourth = np.diff(np.array([one[name] for one in seen]), n=4, axis=0)
                found[name] = float(np.max(np.abs(np.nan_to_num(fourth, posinf=0, neginf=0)), initial=0)) / np.sqrt(70)
            lines.append(found)
        start.jumps.update({name: min(line[name] for line in lines) for name in start.gradients})
    return start.jumps


def taken(start: Start, gradients: Arrays) -> Arrays:
    """Copies of those that are compared."""
    return {name: np.array(gradients[name], dtype=np.float64) for name in start.gradients}
