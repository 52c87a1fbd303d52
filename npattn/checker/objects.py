"""Somebody's object as a target: it keeps what forward saw, its parameters, and their gradients after a backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from npattn.backend import Array
from npattn.checker.calls import Call, CallError
from npattn.checker.copying import Twin, copied, generators
from npattn.checker.exploring import choose_way, ignores_dy, parameters
from npattn.checker.functions import scaled
from npattn.checker.inputs import Choice
from npattn.checker.onetime import OneTime
from npattn.checker.places import at, gradient_at, is_number, put
from npattn.checker.recipe import Recipe
from npattn.checker.repeat import Repeat
from npattn.checker.running import Runner
from npattn.checker.stepping import distance
from npattn.checker.trees import Values


class Stateful(OneTime):
    """An object. It is copied; its parameters are set in place before each forward, and its gradients read after."""

    stateful = True
    dtypes: tuple[str, ...] = ("complex128",)
    path: str | None = None

    def __init__(self, target: Any, recipe: Recipe, inputs: tuple[Any, ...], choice: Choice, repeat: Repeat) -> None:
        self.name = recipe.name or type(target).__name__
        self._target = copied(target, recipe.copy)
        self._runner = runner = Runner(self._target, recipe, inputs, choice, repeat)
        self.notes = runner.notes
        choose_way(runner, self._target, may_call=recipe.forward is None)
        if ignores_dy(runner, self._target):
            runner.call = Call(())
            self.notes.append("backward gives the same for every dy, and is checked for dy = 1, its default")
        self._places = dict(parameters(runner, self._target, recipe, choice))
        if runner.call.steps:
            self.notes.append("backward takes the step itself: a gradient is how far it moves, by the learning rate")
        self._settle()
        self.values = dict(runner.inputs.values)
        for key, place in self._places.items():
            self.values[key] = np.array(at(self._target, place.value), dtype=np.float64, order="K")
        self._twin: Twin | None = None
        repeat.hold(generators(self._target))

    def _settle(self) -> None:
        """Go on with the object as it was; or with one forward behind it, if its parameters appear only then."""
        try:
            if all(is_number(at(self._target, place.value)) for place in self._places.values()):
                return
        except (LookupError, AttributeError, TypeError):
            pass
        self._runner.repeat.hold(generators(self._target))
        self._runner.run(self._target, self._runner.inputs.at(self._runner.inputs.values))
        self._target = copied(self._target)

    @property
    def lengths(self) -> list[int]:
        return self._runner.outputs.lengths

    def forward(self, values: Values) -> tuple[Array, Any]:
        if any(value.dtype.kind == "c" for value in values.values()):
            target = self._with_complex(values)
        else:
            target = self._target
            for key, place in self._places.items():
                put(target, place.value, values[key])
        trees = self._runner.inputs.at(values)
        y, cache = self._runner.call.split(self._runner.run(target, trees))
        return self._runner.outputs.flat(y), [y, cache, trees, values]

    def _with_complex(self, values: Values) -> Any:
        if self._twin is None:
            arrays = {key: at(self._target, place.value) for key, place in self._places.items()}
            self._twin = Twin(self._target, arrays)
            self._runner.repeat.hold_twins(generators(self._twin.target))
        self._twin.put({key: values[key] for key in self._places})
        return self._twin.target

    def backward(self, dy: Array, cache: Any) -> dict[str, Array]:
        hooked = self._runner.hook is not None
        steps = self._runner.call.steps
        if hooked:  # it may empty what a forward has kept, and a graph may serve one backward only
            self._runner.run_hook(self._target)
        found = self.undone(dy, cache, fresh=hooked or steps)
        if steps:
            for key, place in self._places.items():
                found[key] = distance(cache[3][key], at(self._target, place.value))
                put(self._target, place.value, cache[3][key])
        return found

    def gradients(self, dy: Array, cache: list[Any]) -> dict[str, Array]:
        y, kept, trees = cache[:3]
        runner = self._runner
        if not runner.call.takes_dy and np.size(dy) != 1:
            raise CallError(f"backward: expected it to take dy, since y has {np.size(dy)} numbers and is no loss")
        returned = runner.undo(self._target, runner.outputs.like(dy), y, kept, trees)
        found = {} if isinstance(returned, dict) and not returned else runner.inputs.by_name(returned)
        found |= {key: gradient_at(self._target, place) for key, place in self._places.items()}
        return scaled(found, 1 if runner.call.takes_dy else dy)
