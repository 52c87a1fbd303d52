"""More points for a check: of the same shapes, drawn anew, so that signs change and other units of a ReLU are active.

A gradient is right at one point, and a mistake may lie in a path that is dead there. So the numbers are drawn again, at
their own scale. What the forward asks of them must still hold: what has one sign keeps it (the input of a logarithm, a
variance), what lies between two bounds stays there on every second point, rows that sum to 1 still do (probabilities),
what is sorted stays sorted, what is symmetric symmetric. Where a forward refuses a point all the same, or gives NaN,
the point is left out, and never counts against the backward. A gradient that is NaN or of another shape does, where y
and its derivative are numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from npattn.checker.begin import kept
from npattn.checker.state import Arrays, Start, as_array, copies, equal, rms, signed, usable_gradients

NEAR, WITHIN, FREE = "near", "within", "free"
"""Ways to draw: each entry moved by up to a fifth; from between the given numbers; normal numbers of their scale.

The last, of what keeps its sign, is much smaller at times, and so are the two below: a bias may be positive by chance,
and hold a ReLU open.
"""

WIDE = "first wide", "second wide"
"""Normal numbers, for every second tensor of six times their scale: beyond the bounds of a ReLU6 or a hard sigmoid."""


def drawn(
    values: Mapping[str, np.ndarray], way: str, rng: np.random.Generator, freed: Mapping[str, np.ndarray]
) -> Arrays:
    """Other values of the same shapes.

    `freed` has tensors with a gradient that was always 0 in places, and a mask of these: they may change their sign,
    and what lies there is drawn larger, as it has to be to win a maximum.
    """
    usual = [rms(value) for value in values.values() if np.any(value)]
    scale = float(np.median(usual)) if usual else 1.0
    new = {name: like(value, way, rng, freed.get(name), scale) for name, value in values.items()}
    for i, (name, value) in enumerate(values.items()):
        both, chosen = np.any(value > 0) and np.any(value < 0), way in WIDE and i % 2 == WIDE.index(way)
        if chosen and both:
            new[name] = 6 * new[name]
        elif not both and (chosen or way == FREE):
            new[name] = shaped_like(value, rng.choice([1e-4, 1e-3, 0.01] if chosen else [1e-3, 0.1, 1.0]) * new[name])
    return new


def like(value: np.ndarray, way: str, rng: np.random.Generator, unseen: np.ndarray | None, scale: float) -> np.ndarray:
    """One tensor drawn anew. `scale` is for one that is 0 throughout, as a bias at its start."""
    if not value.size:
        return value.copy()
    if not np.any(value):
        new = 0.5 * scale * rng.standard_normal(value.shape)
        return new if unseen is None else new + scale * rng.choice([0.0, 1.0, -1.0]) * unseen
    if way == NEAR:
        new = value * rng.uniform(0.8, 1.2, value.shape)
    elif unseen is not None:
        new = rng.standard_normal(value.shape) + unseen * rng.choice([0.0, 3.0, -3.0])
        new = rms(value) * rng.choice([0.01, 0.03, 0.1, 0.3, 1.0, 1.0]) * new  # large ones may saturate a gate
    elif way == WITHIN or np.all(value >= 0) or np.all(value <= 0):
        new = within(value, rng)
    else:
        new = np.mean(value) + (np.std(value) or rms(value)) * rng.standard_normal(value.shape)
    return shaped_like(value, new)


def within(value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Numbers between two of the given ones each: inside of any bounds that those keep, and no two alike."""
    low, high = float(np.min(value)), float(np.max(value))
    if low == high:
        return low * rng.uniform(0.5, 1, value.shape)
    if low == 0 or high == 0:  # after a ReLU, say: a 0 would lie on its kink
        return np.asarray((low + high) * rng.uniform(0.02, 1, value.shape))
    flat = value.reshape(-1)
    first, second = flat[rng.integers(0, flat.size, (2, flat.size))]
    share = rng.uniform(0, 1, flat.size)
    mixed = first + share * (second - first)
    alike = first == second
    mixed[alike] = rng.uniform(low, high, int(np.sum(alike)))
    return np.asarray(mixed.reshape(value.shape))


def shaped_like(value: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The new numbers with what holds for the given ones: rows of sum 1, their order, symmetry."""
    if value.ndim and value.shape[-1] > 1 and np.all(value >= 0):
        for axis in range(value.ndim):
            if value.shape[axis] > 1 and np.allclose(np.sum(value, axis=axis), 1, rtol=0, atol=1e-6):
                return np.asarray(new / np.sum(new, axis=axis, keepdims=True))
    if value.ndim and value.shape[-1] > 2:
        steps = np.diff(value, axis=-1)
        if np.all(steps > 0):
            return np.asarray(np.sort(new, axis=-1))
        if np.all(steps < 0):
            return np.asarray(-np.sort(-new, axis=-1))
    square = value.ndim > 1 and value.shape[-1] == value.shape[-2] > 1
    if square and np.array_equal(value, np.swapaxes(value, -1, -2)):
        return np.asarray((new + np.swapaxes(new, -1, -2)) / 2)
    return new


def at(given: Start, values: Arrays, rng: np.random.Generator) -> Start | str:
    """The check's start at other values; or why there can be none."""
    form = given.form
    handed = copies(values)
    try:
        with np.errstate(all="ignore"):
            y, cache = form.forward(handed)
        y = as_array("y", y).astype(np.float64)
    except Exception as error:
        return f"forward raised {type(error).__name__}"
    if not np.all(np.isfinite(y)):
        return "y is not finite"
    dy, y = signed(rng, y.shape), y.copy()
    broken = [f"{name}: mutated by forward" for name in values if not equal(handed[name], values[name])]
    before = copies(handed)
    try:
        with np.errstate(all="ignore"):
            gradients = kept(form.backward(dy.copy(), cache))
            again = kept(form.backward(dy.copy(), cache))
    except Exception as error:
        return f"backward raised {type(error).__name__}"
    broken += [f"{name}: mutated by backward" for name in values if not equal(handed[name], before[name])]
    known = {name: values[name] for name in given.gradients}
    faults, usable, rounded = usable_gradients(known, gradients, exact=False)
    faults |= {name: "expected a gradient, got None" for name in known if name not in (*faults, *usable)}
    for name in [name for name in usable if not equal(gradients[name], again.get(name))]:
        faults[name] = "another gradient the second time, for the same dy"
        del usable[name]
    measured = {name: np.asarray(g, dtype=np.float64) for name, g in usable.items()}
    return Start(
        form, values, y, dy, given.mutates or any("forward" in text for text in broken), measured, faults, given.eps,
        {name: eps for name, eps in rounded.items() if name in given.rounded}, broken=broken,
    )  # fmt: skip
