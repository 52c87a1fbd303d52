"""Layers whose backward takes the optimiser's step itself: backward(dy, learning_rate) moves the parameters.

There the gradient of a parameter is how far it moved, by the rate. The rate is so large that nothing of it is lost
beside the parameter's own digits, and a power of two, so that dividing by it is exact.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from npattn.checker.calls import RATE
from npattn.checker.copying import attributes, is_object
from npattn.checker.places import Place, Way, at, gradient_name, is_number
from npattn.checker.running import Runner


def moved_by_backward(runner: Runner, target: Any) -> list[Place]:
    """The arrays that a backward moves and a forward does not: the parameters."""
    probe = copy.deepcopy(target)
    trees = runner.inputs.at(runner.inputs.values)
    with np.errstate(all="ignore"):
        y, cache = runner.call.split(runner.run(probe, trees))
        before = {way: np.array(at(probe, way)) for way in ways(probe)}
        runner.undo(probe, runner.outputs.like(np.ones_like(np.asarray(runner.outputs.flat(y)))), y, cache, trees)
    found = []
    for way in ways(target):
        if way in before and not np.array_equal(before[way], at(probe, way), equal_nan=True):
            found.append(Place(".".join(str(what) for _, what in way), way, ()))
    return found


def ways(target: Any, way: Way = (), seen: dict[int, Any] | None = None) -> Iterator[Way]:
    """The ways to all float arrays of an object that are not named as another's gradient."""
    seen = {} if seen is None else seen
    if id(target) in seen:
        return
    seen[id(target)] = target
    inside = is_object(target)
    held: Mapping[Any, Any] = attributes(target) if inside else {}
    if isinstance(target, dict):
        held = target
    elif isinstance(target, list | tuple):
        held = dict(enumerate(target))
    named = {key: value for key, value in held.items() if isinstance(key, str)}
    lower = {key.lower(): key for key in named}
    gradients = {gradient_name(key, named, lower) for key, value in named.items() if is_number(value)}
    for key, value in held.items():
        step = (*way, ("attribute" if inside else "item", key))
        if is_number(value) and key not in gradients:
            yield step
        elif isinstance(value, dict | list | tuple) or is_object(value):
            yield from ways(value, step, seen)


def distance(before: np.ndarray, after: Any) -> np.ndarray:
    """The gradient that a parameter was moved by."""
    return np.asarray((before - np.asarray(after)) / RATE)
