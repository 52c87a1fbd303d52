"""What targets have in common whose backward is run by an autograd: inputs by name, seeded runs, one array for y."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npattn.backend import Array
from npattn.checker.calls import fitting_names
from npattn.checker.inputs import Choice, Inputs
from npattn.checker.repeat import Repeat
from npattn.checker.trees import Outputs, Values, is_array


class Taped:
    """What all of them have: inputs by name, a seeded run, outputs as one array."""

    stateful = False
    dtypes: tuple[str, ...] = ()
    path: str | None = None

    def __init__(
        self, name: Any, signature: Callable[..., Any], inputs: tuple[Any, ...], choice: Choice, repeat: Repeat
    ) -> None:
        self.name: str = name
        self._repeat, self._outputs = repeat, Outputs()
        self._inputs = Inputs(fitting_names(signature, inputs), inputs, choice)
        self.values, self.notes = dict(self._inputs.values), self._inputs.notes

    def forward(self, values: Values) -> tuple[Array, Any]:
        raise NotImplementedError

    def backward(self, dy: Array, cache: Any) -> dict[str, Array]:
        raise NotImplementedError


def mapped(tree: Any, f: Callable[[Any], Any]) -> Any:
    """A tree with f of each array; what is no array stays."""
    if isinstance(tree, dict):
        return {key: mapped(value, f) for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        built = [mapped(value, f) for value in tree]
        return type(tree)(*built) if hasattr(tree, "_fields") else type(tree)(built)
    return f(tree) if is_array(tree) else tree


def flattened(tree: Any) -> list[Any]:
    """The arrays of a tree."""
    if isinstance(tree, dict):
        return [one for value in tree.values() for one in flattened(value)]
    if isinstance(tree, tuple | list):
        return [one for value in tree for one in flattened(value)]
    return [tree] if is_array(tree) or isinstance(tree, np.generic) else []
