"""At which inputs a trial is made: where no path is dead, and where maxima are tied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from npattn.checker.calls import argument_names
from npattn.exercises.trials import Trial

SEEDS = 20  # from which the inputs with the fewest dead paths are taken


def points_of(trial: Trial, points: int) -> list[tuple[str, tuple[Any, ...], int]]:
    """Inputs without a tie, at several points; then an x of small whole numbers, in which maxima are tied.

    Of that x every entry is looked at, so that it is a single image where it can be.
    """
    inputs = alive(trial)
    found = [(trial.name, inputs, points)]
    x = inputs[0]
    if not trial.is_form and x.ndim > 1 and np.issubdtype(x.dtype, np.floating) and "train" not in trial.name:
        images = 1 if x.ndim == 4 and all(hasattr(one, "_fields") for one in inputs[1:]) else len(x)
        tied = np.random.default_rng(4).integers(0, 3, (images, *x.shape[1:])).astype(float)
        found.append((f"{trial.name}, with ties in {names_of(trial, inputs)[0]}", (tied, *inputs[1:]), 1))
    return found


def alive(trial: Trial) -> tuple[Any, ...]:
    """Inputs with as little as can be that has no gradient: a ReLU's units that are shut, say, hide what is wrong."""
    draws = [trial.draw(np.random.default_rng(seed)) for seed in range(SEEDS)]
    return min(draws, key=lambda inputs: dead(trial, inputs))


def dead(trial: Trial, inputs: tuple[Any, ...]) -> int:
    """How many slices of the gradients are 0."""
    y, cache = trial.forward(*inputs)
    gradients = trial.backward(np.random.default_rng(0).standard_normal(np.shape(y)), cache)
    return sum(
        int(np.sum(~np.any(array, axis=tuple(i for i in range(array.ndim) if i != axis))))
        for array in arrays_in(gradients)
        for axis in range(array.ndim)
    )


def arrays_in(tree: Any) -> Iterator[np.ndarray]:
    """The arrays of nested tuples."""
    if isinstance(tree, tuple):
        for one in tree:
            yield from arrays_in(one)
    elif tree is not None:
        yield np.asarray(tree)


def names_of(trial: Trial, inputs: Sequence[Any]) -> list[str]:
    """What the inputs are called, each of them: as in a report."""
    return argument_names(trial.forward, inputs)
