"""What somebody's object turns out to be: copies of it are run, and it is seen what they do and what they keep."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from npattn.checker.calls import Call, asked, call_of_object
from npattn.checker.copying import attributes, generators
from npattn.checker.inputs import Choice
from npattn.checker.named_places import named_places
from npattn.checker.places import Place, at, gradient_at, is_number, places, put
from npattn.checker.recipe import Recipe, has_method
from npattn.checker.running import Runner, bound
from npattn.checker.stepping import moved_by_backward

STATISTIC = re.compile(r"running|moving|(^|[_.])ema([_.]|$)", re.IGNORECASE)
FIRST_ALONE = Call(("dy",), outputs=1, alone=True)
"""A backward that takes the dy of the first output, though forward gives more."""


def choose_way(runner: Runner, target: Any, may_call: bool) -> None:
    """Decide how backward is called, and whether forward is `layer.forward(x)` or `layer(x)`.

    The first way whose gradients have the shapes of the inputs; or else the first that raises nothing.
    """
    plain = runner.forward_method
    ways: list[tuple[int, str, Call]] = []
    for how in (plain, "__call__") if may_call and plain == "forward" and has_method(target, "__call__") else (plain,):
        runner.forward_method = how
        for call in calls(runner, target, quiet=how != plain):
            runner.call = call
            found = gradients_of(runner, copy.deepcopy(target))
            ways.append((0 if found is None else 2 if fits(runner, found) else 1, str(how), call))
            if ways[-1][0] == 2:
                break
        if ways and ways[-1][0] == 2:
            break
    best = max(range(len(ways)), key=lambda i: (ways[i][0], -i))
    _, name, runner.call = ways[best]
    runner.forward_method = "__call__" if name == "__call__" else plain
    if name == "__call__" and plain == "forward":
        runner.notes.append("forward: taken to be layer(x), since backward fails after layer.forward(x)")
    if runner.call is FIRST_ALONE:
        runner.notes.append("forward gives several values, and backward takes the dy of the first: the others are left")


def calls(runner: Runner, target: Any, quiet: bool) -> Iterator[Call]:
    """The ways in which this backward may be called after this forward."""
    probe = copy.deepcopy(target)
    runner.repeat.hold(generators(probe))
    try:
        with np.errstate(all="ignore"):
            result = runner.run(probe, runner.inputs.at(runner.inputs.values))
    except Exception:
        if quiet:
            return
        raise
    first = call_of_object(bound(probe, runner.backward_method), result, runner.inputs.names)
    yield first
    if isinstance(result, tuple) and first == Call(("dy",)):
        yield FIRST_ALONE


def gradients_of(runner: Runner, probe: Any, size: float = 1.0) -> Any:
    """What a backward gives for dy = `size` everywhere; None if it raises."""
    runner.repeat.hold(generators(probe))
    try:
        with np.errstate(all="ignore"):
            if runner.hook is not None:
                runner.run_hook(probe)
            trees = runner.inputs.at(runner.inputs.values)
            y, cache = runner.call.split(runner.run(probe, trees))
            dy = np.full_like(np.asarray(runner.outputs.flat(y)), size)
            return runner.undo(probe, runner.outputs.like(dy), y, cache, trees)
    except Exception:  # the check itself tells of it
        return None


def fits(runner: Runner, gradients: Any) -> bool:
    """Whether the gradients have the shapes of the inputs."""
    before = len(runner.notes)
    try:
        found = runner.inputs.by_name(gradients) if not isinstance(gradients, dict) or gradients else {}
    except Exception:
        return False
    finally:
        del runner.notes[before:]
    values = runner.inputs.values
    return all(g is None or np.shape(g) == values[name].shape for name, g in found.items())


def parameters(runner: Runner, target: Any, recipe: Recipe, choice: Choice) -> list[tuple[str, Place]]:
    """Parameters by name: those of a copy that has run, since some appear only then."""
    probe = copy.deepcopy(target)
    given = gradients_of(runner, probe)
    if given is None:
        runner.run(probe, runner.inputs.at(runner.inputs.values))
    first = numbers(probe)
    if recipe.params is not None:
        found = named_places(recipe.params, recipe.grads, probe)
    elif runner.call.steps:
        found = moved_by_backward(runner, target)
    else:
        found = places(probe)
    has_gradient = {place.name for place in found if given is not None and gradient_at(probe, place) is not None}
    moved = {key: value * 1.25 + 0.125 for key, value in runner.inputs.values.items()}
    with contextlib.suppress(Exception):  # it may refuse such numbers
        runner.run(probe, runner.inputs.at(moved))
    chosen = []
    trial = copy.deepcopy(probe)
    runner.repeat.hold(generators(trial))
    for place in found:
        key = f"self.{place.name}" if place.name in runner.inputs.known else place.name
        old = first.get(place.value)
        changes = old is not None and not np.array_equal(old, at(probe, place.value), equal_nan=True)
        if np.ndim(at(probe, place.value)) == 0 and not place.listed and untouched(probe, target, place):
            continue  # numbers such as t and dt, of which the second is no gradient
        missing = given is not None and not runner.call.steps and place.name not in has_gradient
        if recipe.params is None and (changes or (missing and STATISTIC.search(key))):
            if place.listed:
                runner.notes.append(f"{key}: no gradient asked for, since it is a running statistic")
        elif recipe.params is None and not place.listed and influence(runner, trial, place.value) == (False, False):
            continue  # forward sets it anew: a state, such as a first h
        elif choice.takes(key):
            chosen.append((key, place))
    choice.must_name([*runner.inputs.known, *(key for key, _ in chosen), *(place.name for place in found)])
    if not runner.call.steps:
        tell_of_others(runner, target, first, probe, trial, [place for _, place in chosen])
    tell_of_no_arrays(runner, probe, {place.name for _, place in chosen})
    return chosen


def tell_of_no_arrays(runner: Runner, probe: Any, chosen: set[str]) -> None:
    """Name what stands among the parameters and is no float array, so that nothing checks it."""
    held = attributes(probe).get("params")
    items = held.items() if isinstance(held, dict) else enumerate(held) if isinstance(held, list | tuple) else ()
    for key, value in items:
        kind = value.dtype.kind if isinstance(value, np.ndarray) else "" if isinstance(value, dict) else "?"
        if kind in ("i", "u", "b", "?") and isinstance(value, int | float | list | tuple | np.ndarray):
            got = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
            if not {str(key), f"params.{key}"} & chosen:
                runner.notes.append(f"params[{key!r}]: not checked: expected a float array, got {got}")


def untouched(probe: Any, target: Any, place: Place) -> bool:
    """Whether a gradient is a number that a backward leaves as it was."""
    before = gradient_at(target, place)
    return before is not None and bool(np.all(before == gradient_at(probe, place)))


def numbers(probe: Any) -> dict[Any, np.ndarray]:
    """A copy of every float array that the object keeps, by the way to it."""
    found = {place.value: at(probe, place.value) for place in places(probe)}
    found |= {(("attribute", key),): value for key, value in attributes(probe).items() if is_number(value)}
    return {way: np.array(value) for way, value in found.items()}


def ignores_dy(runner: Runner, target: Any) -> bool:
    """Whether backward has a default for dy, and gives the same whatever is handed to it, as many losses do."""
    if runner.call != Call(("dy",)) or asked(bound(target, runner.backward_method)).required:
        return False
    once, twice = (gradients_of(runner, copy.deepcopy(target), size) for size in (1.0, 2.0))
    return isinstance(once, np.ndarray) and bool(np.any(once)) and np.array_equal(once, twice)


def tell_of_others(
    runner: Runner, target: Any, first: dict[Any, np.ndarray], probe: Any, trial: Any, chosen: list[Place]
) -> None:
    """Name arrays that y depends on and that have no gradient that the checker knows of."""
    held, before = attributes(probe), attributes(target)
    known = {id(at(probe, place.value)) for place in chosen} | {id(gradient_at(probe, place)) for place in chosen}
    for way, old in first.items():
        name = way[-1][1]
        value = held.get(name)
        if len(way) > 1 or not isinstance(value, np.ndarray) or id(value) in known or name not in before:
            continue
        still = isinstance(before[name], np.ndarray) and np.array_equal(old, value) and not STATISTIC.search(name)
        if still and influence(runner, trial, way) == (True, True):
            runner.notes.append(
                f"{name}: not checked, since no gradient of it was found (d{name}, grad_{name}, …; "
                "gradcheck.wrap(layer, params={...}) names it)"
            )


def influence(runner: Runner, probe: Any, way: Any) -> tuple[bool, bool]:
    """Whether a number that is moved stays so in a forward, and whether y moves with it."""
    trees = runner.inputs.at(runner.inputs.values)
    there = np.array(at(probe, way))
    with np.errstate(all="ignore"):
        try:
            y = np.array(runner.outputs.flat(runner.call.split(runner.run(probe, trees))[0]))
            put(probe, way, there * 1.25 + 0.125)
            other = np.array(runner.outputs.flat(runner.call.split(runner.run(probe, trees))[0]))
            kept = not np.array_equal(at(probe, way), there)
        except Exception:  # such numbers may be refused
            return True, True
        finally:
            put(probe, way, there)
    return kept, not np.array_equal(y, other)
