"""Entries at kinks, moved together: a tied maximum moves smoothly then, and one gradient for each is known [4].

The sum over all outputs for one dy is one number, and in a large tensor mistakes can cancel in it. But J v is known for
every output, so it is compared with several random dy, and with ones that ask for a single output.
"""

from __future__ import annotations

import numpy as np

from npattn.checker.compare import Comparison
from npattn.checker.state import signed

STEEP = 7.0  # the logarithm of how much larger the last nudge of an order is than its first
GROSS = 1e-4  # of what is added up: a mistake of this kind is no small one
RANDOM, SINGLE = 4, 128  # how many dy of each sort


def together(on: Comparison, name: str, at_kink: np.ndarray | None) -> tuple[str, str]:
    """What is wrong with the entries at kinks when they are all moved by the same, and the likely cause.

    Where not all of them are known, None, the whole tensor is moved.
    """
    v = np.zeros(on.start.values[name].shape)
    v.reshape(-1)[slice(None) if at_kink is None else at_kink] = 1
    which = "all entries" if at_kink is None else f"the {len(at_kink)} entries at kinks"
    slope = on.differences(name, v, np.ones_like(on.start.dy))  # of every output; the complex step sees one side alone
    least, most = np.minimum(slope.right, slope.left), np.maximum(slope.right, slope.left)
    slack = 10 * slope.error + on.noise[name] * np.sqrt(v.size)
    for dy, words in cotangents(on, least):
        g = on.start.for_dy(dy)[name]
        a = float(np.sum(g * v))
        low, high = np.sum(np.where(dy > 0, least, most) * dy), np.sum(np.where(dy > 0, most, least) * dy)
        off = max(float(low) - a, a - float(high))
        size = float(np.sum(np.abs(g * v))) + float(np.sum(np.abs(dy) * np.maximum(np.abs(least), np.abs(most))))
        if off <= GROSS * size + slack or size <= 3 * np.sqrt(v.size) * on.floor[name]:
            continue
        if slope.kink:  # a bound from points beside, as for a single entry
            low, high = on.beside(name, v, dy, in_order(v.shape))
            if float(np.sum(np.abs(dy) * (most - least))) > GROSS * size:  # a ReLU at 0 meets the tie: it may be shut
                low, high = min(low, 0.0), max(high, 0.0)
            if low - GROSS * size - slack <= a <= high + GROSS * size + slack:
                continue
        return told(f"with {which} moved together, and a dy that is {words}", a, float(low), float(high))

    verdict = on.compare(name, [v])  # for the first dy, by either method
    a, n = float(verdict.analytic[0]), float(verdict.numeric[0])
    if verdict.wrong.any() and abs(a - n) > GROSS * float(np.sum(np.abs(on.start.gradients[name] * v))):
        return told(f"with {which} moved together", a, n, n)
    return "", ""


def in_order(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Nudges with which the first of every tie wins, or the last, along whichever axis the tie is.

    By factors along one axis, so that a scale of each channel does not change the order, and a little along the others.
    """
    found = []
    size = int(np.prod(shape))
    for axis, length in enumerate(shape):
        steps = np.arange(length).reshape(-1, *[1] * (len(shape) - axis - 1))
        ramp = np.exp(STEEP * steps / max(length - 1, 1) - STEEP) * np.linspace(1, 1.1, size).reshape(shape)
        found += [sign * one for one in (ramp, np.flip(ramp)) for sign in (1, -1)]
    return found


def told(how: str, a: float, low: float, high: float) -> tuple[str, str]:
    """What is wrong along the ties, and the likely cause."""
    n = low if a < low else high
    cause = "a gradient on all ties, where one of them should get it"
    if abs(a) < abs(n) and a * n >= 0:
        cause = "a gradient on none of the ties in places, where one of them should get it"
    return f"{how}: analytic {a:.9g}, numeric {n:.9g}, error {abs(a - n):.3g}", cause


def cotangents(on: Comparison, reached: np.ndarray) -> list[tuple[np.ndarray, str]]:
    """dy that are 1 at one output that the direction reaches and 0 elsewhere, and several random ones."""
    found = []
    outputs = np.flatnonzero(reached)
    if len(outputs) > SINGLE:
        outputs = np.sort(on.rng.choice(outputs, SINGLE, replace=False))
    for output in outputs:
        dy = np.zeros(on.start.y.shape)
        dy.reshape(-1)[output] = 1
        index = [int(i) for i in np.unravel_index(int(output), on.start.y.shape)]
        found.append((dy, f"1 at {index} of y and 0 elsewhere"))
    return found + [(signed(on.rng, on.start.y.shape), "another random one") for _ in range(RANDOM)]
