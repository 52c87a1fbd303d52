"""Somebody's object as a target: it keeps what forward saw, its parameters, and their gradients after a backward."""

from __future__ import annotations

import contextlib
import copy
import functools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from npattn.backend import Array
from npattn.checker.calls import Call, CallError, argument_names, asked, call_of_object
from npattn.checker.copying import attributes, copied, generators
from npattn.checker.functions import scaled
from npattn.checker.inputs import Choice, Inputs
from npattn.checker.named_places import named_places
from npattn.checker.places import Place, at, gradient_at, gradient_name, is_number, places, put, unboxed
from npattn.checker.recipe import BACKWARDS, FORWARDS, Recipe, has_method, method
from npattn.checker.repeat import Repeat
from npattn.checker.trees import Outputs, Values

OUTPUT = ("output", "outputs", "out", "y", "activation", "a", "A")
"""Where a forward that returns nothing leaves what it computed."""

INPUT_GRADIENT = ("dinputs", "dinput", "dx", "dX", "d_input", "d_inputs", "grad_input", "input_grad",
                  "input_gradient", "gradInput", "dL_dx", "dvalues")  # fmt: skip
"""Where a backward that returns nothing leaves the gradient of its input."""

FORGETTING = ("zero_grad", "zero_grads", "flush_gradients", "clear_grads", "cleargrads", "clear_grad", "reset_grads",
              "reset_grad", "zero_gradients", "reset_gradients")  # fmt: skip
"""Methods that take back what earlier backwards have added up."""

STATISTIC = re.compile(r"running|moving|(^|[_.])ema([_.]|$)", re.IGNORECASE)


class Stateful:
    """An object. It is copied; its parameters are set in place before each forward, and its gradients read after."""

    stateful = True
    dtypes: tuple[str, ...] = ()
    path: str | None = None

    def __init__(self, target: Any, recipe: Recipe, inputs: tuple[Any, ...], choice: Choice, repeat: Repeat) -> None:
        self.name = recipe.name or type(target).__name__
        self._recipe, self._outputs, self._repeat = recipe, Outputs(), repeat
        self._target = copied(target, recipe.copy)
        self._names = (
            method(self._target, recipe.forward, FORWARDS, "forward"),
            method(self._target, recipe.backward, BACKWARDS, "backward"),
        )
        self._inputs = Inputs(argument_names(self._bound(self._target, 0), inputs), inputs, choice)
        self.notes = self._inputs.notes
        self._hook = recipe.before_backward or self._own_hook()
        self._call, self._once = Call(("dy",)), False
        if recipe.forward is None and self._names[0] == "forward":
            self._prefer_call()
        self._places = self._explored(choice)
        self.values = {**self._inputs.values, **{key: self._value(p) for key, p in self._places}}
        repeat.hold(generators(self._target))

    def _value(self, place: Place) -> np.ndarray:
        return np.array(at(self._target, place.value), dtype=np.float64, order="K")

    # What the object is called with

    def _bound(self, target: Any, which: int) -> Callable[..., Any]:
        """Its forward, 0, or its backward, 1."""
        how = self._names[which]
        if isinstance(how, str):
            found: Callable[..., Any] = getattr(target, how)
            return found
        return functools.partial(how, target)

    def _own_hook(self) -> str | None:
        for name in FORGETTING:
            found = getattr(self._target, name, None)
            if callable(found) and not asked(found).required:
                self.notes.append(f"{name}() is called before each backward (before_backward= calls something else)")
                return name
        return None

    def _run_hook(self, target: Any) -> None:
        hook: Any = self._hook
        if isinstance(hook, str):
            getattr(target, hook)()
        elif getattr(hook, "__self__", None) is not None and hasattr(target, getattr(hook, "__name__", "")):
            getattr(target, hook.__name__)()  # a method of the caller's object: that of the copy is meant
        elif hook is not None:
            hook(*([target] if asked(hook).required else []))

    # One run of it

    def _run(self, target: Any, trees: list[Any]) -> Any:
        result = self._repeat.forward(lambda: self._bound(target, 0)(*trees))
        if result is None:
            result = next((getattr(target, name) for name in OUTPUT if hasattr(target, name)), None)
            if result is None:
                raise CallError(
                    f"forward: expected it to return y, or to leave it in an attribute ({', '.join(OUTPUT)}), got None"
                )
        return type(result)(map(unboxed, result)) if type(result) in (tuple, list) else unboxed(result)

    def _undo(self, target: Any, call: Call, dy: Any, y: Any, cache: Any, trees: list[Any]) -> Any:
        """Gradients of the inputs: what backward returns, or leaves in attributes."""
        known = dict(zip(self._inputs.names, trees, strict=True))
        result = self._bound(target, 1)(*call.arguments(dy, y, cache, known))
        if result is not None:
            return type(result)(map(unboxed, result)) if type(result) in (tuple, list) else unboxed(result)
        held = attributes(target)
        lower = {name.lower(): name for name in held}
        found = {name: gradient_name(name, held, lower) for name in self._inputs.names}
        left = {name: unboxed(held[where]) for name, where in found.items() if where and held[where] is not None}
        if left:
            return left
        return next((unboxed(held[name]) for name in INPUT_GRADIENT if held.get(name) is not None), {})

    def forward(self, values: Values) -> tuple[Array, Any]:
        for key, place in self._places:
            put(self._target, place.value, values[key])
        trees = self._inputs.at(values)
        result = self._run(self._target, trees)
        y, cache = self._call.split(result)
        return self._outputs.flat(y), [y, cache, trees, values]

    def backward(self, dy: Array, cache: Any) -> dict[str, Array]:
        if self._hook is not None:  # it may empty what a forward has kept, and a graph may serve one backward only
            self._run_hook(self._target)
        if self._hook is not None or (self._once and cache[4:]):
            cache[:] = self.forward(cache[3])[1]
        try:
            found = self._gradients(dy, cache)
        except Exception:
            if self._once or not cache[4:]:
                raise
            cache[:] = self.forward(cache[3])[1]
            found = self._gradients(dy, cache)
            self._once = True
            self.notes.append("backward works once after a forward, so each is given a forward of its own")
        cache[4:] = ["served"]
        return found

    def _gradients(self, dy: Array, cache: list[Any]) -> dict[str, Array]:
        y, kept, trees = cache[:3]
        call = self._call
        if not call.takes_dy and np.size(dy) != 1:
            raise CallError(f"backward: expected it to take dy, since y has {np.size(dy)} numbers and is no loss")
        returned = self._undo(self._target, call, self._outputs.like(dy), y, kept, trees)
        found = {} if isinstance(returned, dict) and not returned else self._inputs.by_name(returned)
        found |= {key: gradient_at(self._target, place) for key, place in self._places}
        return scaled(found, 1 if call.takes_dy else dy)

    # What it turns out to be

    def _prefer_call(self) -> None:
        """Use `layer(x)` in place of `layer.forward(x)` if the backward works after that alone."""
        names = self._names
        if not has_method(self._target, "__call__"):
            return
        for first in (names[0], "__call__"):
            probe, self._names = copy.deepcopy(self._target), (first, names[1])
            self._repeat.hold(generators(probe))
            try:
                with np.errstate(all="ignore"):
                    trees = self._inputs.at(self._inputs.values)
                    result = self._run(probe, trees)
                    call = call_of_object(self._bound(probe, 1), result, self._inputs.names)
                    y, cache = call.split(result)
                    dy = np.ones_like(np.asarray(self._outputs.flat(y)))
                    self._undo(probe, call, self._outputs.like(dy), y, cache, trees)
            except Exception:
                continue
            if first == "__call__":
                self.notes.append("forward: taken to be layer(x), since backward fails after layer.forward(x)")
            return
        self._names = names

    def _explored(self, choice: Choice) -> list[tuple[str, Place]]:
        """Run a copy once and again, to see which parameters it has, with which gradients."""
        probe = copy.deepcopy(self._target)
        self._repeat.hold(generators(probe))
        trees = self._inputs.at(self._inputs.values)
        result = self._run(probe, trees)
        self._call = call_of_object(self._bound(probe, 1), result, self._inputs.names)
        first = self._numbers(probe)
        ran = self._probed_backward(probe, result, trees)
        recipe = self._recipe
        found = places(probe) if recipe.params is None else named_places(recipe.params, recipe.grads, probe)
        moved = {key: value * 1.25 + 0.125 for key, value in self._inputs.values.items()}
        with contextlib.suppress(Exception):  # it may refuse such numbers
            self._run(probe, self._inputs.at(moved))
        chosen = []
        for place in found:
            key = f"self.{place.name}" if place.name in self._inputs.known else place.name
            value = at(probe, place.value)
            changes = place.value in first and not np.array_equal(first[place.value], value, equal_nan=True)
            missing = ran and key not in ran
            if recipe.params is None and (changes or (missing and STATISTIC.search(key))):
                if not place.by_name:
                    self.notes.append(f"{key}: no gradient asked for, since it is a running statistic")
            elif choice.takes(key):
                chosen.append((key, place))
        choice.must_name([*self._inputs.known, *(key for key, _ in chosen), *(place.name for place in found)])
        self._settle(probe, [place for _, place in chosen])
        self._tell_of_others(first, probe, [place for _, place in chosen])
        return chosen

    def _numbers(self, probe: Any) -> dict[Any, np.ndarray]:
        """A copy of every float array that the object keeps, by the way to it."""
        found = {place.value: at(probe, place.value) for place in places(probe)}
        found |= {(("attribute", key),): value for key, value in attributes(probe).items() if is_number(value)}
        return {way: np.array(value) for way, value in found.items()}

    def _probed_backward(self, probe: Any, result: Any, trees: list[Any]) -> dict[str, Any]:
        """The parameters that have a gradient after a backward; none if it raises, which the check then tells of."""
        try:
            y, cache = self._call.split(result)
            dy = np.ones_like(np.asarray(self._outputs.flat(y)))
            if self._hook is not None:
                self._run_hook(probe)
                self._run(probe, trees)
            first = self._undo(probe, self._call, self._outputs.like(dy), y, cache, trees)
            if self._call == Call(("dy",)) and not asked(self._bound(probe, 1)).required and dy.size == 1:
                again = self._undo(probe, self._call, self._outputs.like(2 * dy), y, cache, trees)
                if isinstance(first, np.ndarray) and np.array_equal(first, again):
                    self._call = Call(())
                    self.notes.append("backward gives the same for every dy, and is checked for dy = 1, its default")
            return {place.name: 1 for place in places(probe) if gradient_at(probe, place) is not None}
        except Exception:
            return {}

    def _settle(self, probe: Any, chosen: list[Place]) -> None:
        """Go on with the object as it was; or with one forward behind it, if its parameters appear only then."""
        try:
            for place in chosen:
                at(self._target, place.value)
                if not is_number(at(self._target, place.value)):
                    raise LookupError(place.name)
        except (LookupError, AttributeError, TypeError):
            self._run(self._target, self._inputs.at(self._inputs.values))
            self._target = copied(self._target)

    def _tell_of_others(self, first: dict[Any, np.ndarray], probe: Any, chosen: list[Place]) -> None:
        """Name arrays that look like parameters and have no gradient that the checker knows of."""
        held = attributes(probe)
        known = {id(at(probe, place.value)) for place in chosen}
        gradients = {id(gradient_at(probe, place)) for place in chosen}
        before = attributes(self._target)
        for (*_, (_, name)), old in first.items():
            value = held.get(name)
            if not isinstance(value, np.ndarray) or id(value) in known | gradients or name not in before:
                continue
            still = value.size > 1 and isinstance(before[name], np.ndarray) and np.array_equal(old, value)
            if still and not STATISTIC.search(name) and not name.lower().startswith(("d", "grad")):
                self.notes.append(
                    f"{name}: not checked, since no gradient of it was found (d{name}, grad_{name}, …; "
                    "gradcheck.wrap(layer, params={...}) names it)"
                )
