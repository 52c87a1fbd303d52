"""A block's further forms, judged by the given backward: where y has a derivative, it has one only.

The block itself goes through the whole gradient check. For its options it is enough to see that the answer gives the
numbers of the given pair, which is much quicker; what does not is left to the check, which says what is wrong and why.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npattn.exercises.gradients import all_beside
from npattn.exercises.points import names_of
from npattn.exercises.trials import Trial
from npattn.exercises.verdict import Checked

ENOUGH = 1e-9
"""Of the largest entry of a gradient: as npattn.gradcheck."""


def as_given(trial: Trial, right: Trial, points: list[tuple[tuple[Any, ...], tuple[Any, ...]]]) -> list[Checked] | None:
    """A row for each gradient, if all are those of the given pair at all points and none has a slice of zeros.

    Else None. Each of the points is the inputs in the answer's types and in the given ones.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    worst: dict[str, float] = {}
    seen: dict[str, np.ndarray] = {}
    for number, (mine, inputs) in enumerate(points):
        y, cache = right.forward(*inputs)
        dy = np.random.default_rng(number).standard_normal(np.shape(y))
        wanted = right.backward(dy, cache)
        try:
            my_y, my_cache = trial.forward(*mine)
            if not np.allclose(my_y, y, rtol=1e-9, atol=1e-12):
                return None
            got = trial.backward(dy, my_cache)
            both = list(zip(found(got, mine, trial), found(wanted, inputs, right), strict=True))
        except Exception:  # the check is made next, and tells of it
            return None
        for (name, gradient), (_, expected) in both:
            if (gradient is None) != (expected is None) or np.shape(gradient) != np.shape(expected):
                return None
            if expected is not None:
                size = float(np.max(np.abs(expected), initial=0))
                error = float(np.max(np.abs(gradient - expected), initial=0)) / (size or 1.0)
                if not error <= ENOUGH:  # NaN too
                    return None
                shapes[name] = expected.shape
                worst[name] = max(worst.get(name, 0.0), error)
                seen[name] = seen.get(name, np.zeros(expected.shape, dtype=bool)) | (expected != 0)
    if any(some_slice_false(mask) for mask in seen.values()):
        return None
    told = f"{len(points)} points"
    return [
        Checked(trial.name, (name, str(shapes[name]), "as given", told, f"{error:.1e}", "ok"), "", "", True)
        for name, error in worst.items()
    ]


def found(gradients: Any, inputs: tuple[Any, ...], trial: Trial) -> list[tuple[str, Any]]:
    """The gradients by name."""
    return [(name, gradient) for name, _, gradient in all_beside(gradients, inputs, names_of(trial, inputs))]


def some_slice_false(mask: np.ndarray) -> bool:
    """Whether a mask is false throughout a slice, along any axis."""
    axes = range(mask.ndim)
    return any(bool(np.any(~np.any(mask, axis=tuple(i for i in axes if i != axis)))) for axis in axes)
