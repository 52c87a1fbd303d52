"""A function of somebody's own tensors, whose autograd leaves x.grad behind, as a target."""

from __future__ import annotations

import copy
import inspect
import re
from typing import Any

import numpy as np

from npattn.backend import Array
from npattn.checker.calls import CallError, asked
from npattn.checker.copying import copied, is_object
from npattn.checker.inputs import Choice
from npattn.checker.places import at, places, put, unboxed
from npattn.checker.recipe import Recipe
from npattn.checker.repeat import Repeat
from npattn.checker.running import bound
from npattn.checker.taped import Taped
from npattn.checker.trees import Values, float64

SEED = re.compile(r"d|dy|dout|g|gy|grad|grads|gradient|grad_output|upstream\w*")
"""What an autograd calls the gradient of y that its backward takes."""


class Tape(Taped):
    """A function of somebody's own tensors: `y.backward()` leaves `x.grad`."""

    def __init__(self, recipe: Recipe, inputs: tuple[Any, ...], choice: Choice, repeat: Repeat) -> None:
        what = recipe.target
        name = recipe.name or getattr(what, "__name__", type(what).__name__)
        super().__init__(name, getattr(what, "forward", what), inputs, choice, repeat)
        self._tensor: Any = recipe.tensor
        self._owner = copied(what, recipe.copy) if is_object(what) and not inspect.isroutine(what) else what
        self._function = bound(self._owner, recipe.forward) if recipe.forward is not None else self._owner
        found = places(self._owner) if self._owner is not what else []
        self._places = {p.name: p for p in found if choice.takes(p.name)}
        choice.must_name([*self._inputs.known, *self._places])
        self.values |= {name: float64(at(self._owner, place.value)) for name, place in self._places.items()}
        self._fresh = {name: at(self._owner, place.gradients[0]) for name, place in self._places.items()}
        self._times = False  # whether y.backward() starts from 1 whatever y.grad is
        self._wrapped = False  # whether y.grad wants to be a tensor, as x.grad is

    def _run(self, values: Values) -> tuple[Any, dict[str, Any]]:
        for name, place in self._places.items():
            put(self._owner, place.value, values[name])
        tensors = {name: self._tensor(values[name]) for name in self._inputs.values}
        trees = self._inputs.at(tensors)
        trees = [self._tensor(tree) if isinstance(tree, np.ndarray) and tree.dtype.kind == "f" else tree
                 for tree in trees]  # fmt: skip
        return self._repeat.forward(lambda: self._function(*trees)), tensors

    def forward(self, values: Values) -> tuple[Array, Any]:
        y, _ = self._run(values)
        if not isinstance(unboxed(y), np.ndarray | np.generic | float):
            raise CallError(f"target: expected a function that gives one tensor with .data, got {type(y).__name__}")
        return np.array(unboxed(y)), values

    def backward(self, dy: Array, cache: Any) -> dict[str, Array]:
        try:
            tensors = self._undo(dy, cache)
        except (AttributeError, TypeError):
            self._wrapped = not self._wrapped
            tensors = self._undo(dy, cache)
        found = {name: unboxed(getattr(one, "grad", None)) for name, one in tensors.items()}
        grads = {name: unboxed(at(self._owner, place.gradients[0])) for name, place in self._places.items()}
        return {**found, **grads}

    def _undo(self, dy: Array, values: Values) -> dict[str, Any]:
        for name, place in self._places.items():  # as they were before anything was added to them
            owner = at(self._owner, place.value[:-1])
            setattr(owner, place.gradients[0][-1][1], copy.deepcopy(self._fresh[name]))
        self._repeat.before_backward()
        y, tensors = self._run(values)
        if self._times:
            (y * self._tensor(dy)).backward()
            return tensors
        given = self._tensor(dy) if self._wrapped else dy
        want = asked(y.backward)
        if any(SEED.fullmatch(name) for name in (*want.required, *want.optional)[:1]):
            y.backward(given)
        else:
            y.grad = given
            y.backward()
            kept = unboxed(y.grad)  # None where an autograd forgets what lies on the way
            if kept is not None and not np.array_equal(kept, dy):
                self._times = True
                self.notes.append("y.backward() starts from 1, so it is run on y times dy")
                return self._undo(dy, values)
        return tensors
