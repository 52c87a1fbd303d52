"""What can be checked, brought into one form: named float64 arrays in, y out; dy in, named gradients out."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, Protocol

import numpy as np

from npattn.backend import Array, array_module, to_numpy
from npattn.layer import Layer

Values = Mapping[str, Array]
"""The arrays that have a gradient, by name."""


class GradientCountError(ValueError):
    """A backward gives more or fewer gradients than there are inputs."""


class Target(Protocol):
    """One form for layers, objects and pairs. Nothing of the caller's is touched: all of it works on copies."""

    name: str
    values: dict[str, np.ndarray]  # at which the check is made, float64
    stateful: bool  # whether backward belongs to the last forward, as a layer's does
    dtypes: tuple[str, ...]  # what forward can be asked to run in, beside float64

    @property
    def path(self) -> str | None:
        """Which of several implementations the last forward took, where there are several."""
        ...

    def forward(self, values: Values) -> tuple[Array, Any]: ...

    def backward(self, dy: Array, cache: Any) -> dict[str, Array]:
        """Gradients by name: None where one is missing, and no entry where none is claimed."""
        ...


def is_array(tree: Any) -> bool:
    """Whether it is an array of a known library. A NumPy scalar is none."""
    try:
        array_module(tree)
    except TypeError:
        return False
    return True


def leaves(name: str, tree: Any) -> Iterator[tuple[str, Array]]:
    """The float arrays of an input, by dotted name. None, numbers and integer arrays have no gradient."""
    if is_array(tree):
        array = to_numpy(tree)
        if array.dtype.kind == "c":
            raise TypeError(f"{name}: expected a real array, got dtype {array.dtype}")
        if array.dtype.kind == "f":
            yield name, array
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves(f"{name}.{key}", value)
    elif isinstance(tree, tuple | list):
        for key, value in zip(getattr(tree, "_fields", range(len(tree))), tree, strict=True):
            yield from leaves(f"{name}.{key}", value)


def rebuilt(name: str, tree: Any, values: Values) -> Any:
    """The input again, with its float arrays replaced by those of `values`."""
    if name in values:
        return values[name]
    if isinstance(tree, Mapping):
        return {key: rebuilt(f"{name}.{key}", value, values) for key, value in tree.items()}
    if hasattr(tree, "_fields"):
        pairs = zip(tree._fields, tree, strict=True)
        return type(tree)(*(rebuilt(f"{name}.{key}", value, values) for key, value in pairs))
    if isinstance(tree, tuple | list):
        return type(tree)(rebuilt(f"{name}.{i}", value, values) for i, value in enumerate(tree))
    return tree


def float64(array: Array) -> np.ndarray:
    """A copy in float64, in the memory order it came in."""
    return np.array(to_numpy(array), dtype=np.float64, order="K")


def matched(name: str, tree: Any, gradient: Any) -> Iterator[tuple[str, Array]]:
    """The gradients of an input's float arrays: the gradient must be built as the input is."""
    if gradient is None:
        for key, _ in leaves(name, tree):
            yield key, None
    elif isinstance(tree, Mapping) or hasattr(tree, "_fields"):
        parts = gradient if isinstance(gradient, Mapping) else getattr(gradient, "_asdict", dict)()
        for key, value in (tree if isinstance(tree, Mapping) else tree._asdict()).items():
            yield from matched(f"{name}.{key}", value, parts.get(key))
    elif isinstance(tree, tuple | list):
        items = gradient if isinstance(gradient, tuple | list) else ()
        for i, value in enumerate(tree):
            yield from matched(f"{name}.{i}", value, items[i] if i < len(items) else None)
    else:
        for key, _ in leaves(name, tree):
            yield key, gradient


def by_input(names: list[str], inputs: tuple[Any, ...], gradients: Any) -> dict[str, Array]:
    """Gradients by name, from what a backward returned. An input without one, None, is left out."""
    with_arrays = [i for i, tree in enumerate(inputs) if any(leaves(names[i], tree))]
    plain = type(gradients) is tuple or isinstance(gradients, list)
    if plain and len(gradients) == len(inputs):
        aligned = dict(enumerate(gradients))
    elif plain and len(gradients) == len(with_arrays):
        aligned = dict(zip(with_arrays, gradients, strict=True))
    elif len(with_arrays) == 1 and not plain:
        aligned = {with_arrays[0]: gradients}
    else:
        got = f"{len(gradients)} gradients" if plain else "one gradient"
        raise GradientCountError(
            f"backward: expected a gradient for each of the {len(inputs)} inputs ({', '.join(names)}), None where "
            f"there is none, got {got}"
        )
    given = {i: tree for i, tree in enumerate(inputs) if aligned.get(i) is not None}
    return {key: g for i, tree in given.items() for key, g in matched(names[i], tree, aligned[i])}


def argument_names(forward: Callable[..., Any], inputs: tuple[Any, ...]) -> list[str]:
    """What the forward calls its arguments."""
    try:
        known = [p.name for p in inspect.signature(forward).parameters.values() if p.kind not in (p.VAR_POSITIONAL,)]
    except (TypeError, ValueError):
        known = []
    return [known[i] if i < len(known) else f"inputs[{i}]" for i in range(len(inputs))]


class Pair:
    """A pair of functions: forward(*inputs) -> (y, cache), backward(dy, cache) -> gradients."""

    stateful = False
    dtypes: tuple[str, ...] = ("float32", "complex128")
    path: str | None = None

    def __init__(self, name: str, forward: Callable[..., Any], backward: Callable[..., Any], *inputs: Any) -> None:
        self.name, self._forward, self._backward, self._inputs = name, forward, backward, inputs
        self._names = argument_names(forward, inputs)
        found = [leaf for key, tree in zip(self._names, inputs, strict=True) for leaf in leaves(key, tree)]
        self.values = {key: float64(array) for key, array in found}

    def forward(self, values: Values) -> tuple[Array, Any]:
        trees = [rebuilt(key, tree, values) for key, tree in zip(self._names, self._inputs, strict=True)]
        result = self._forward(*trees)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(f"forward: expected it to return (y, cache), got {type(result).__name__}")
        return result

    def backward(self, dy: Array, cache: Any) -> dict[str, Array]:
        return by_input(self._names, self._inputs, self._backward(dy, cache))


class Module:
    """An object with forward, backward, params and grads. It is copied; its float64 parameters are set in place."""

    stateful = True
    dtypes: tuple[str, ...] = ()
    path: str | None = None

    def __init__(self, module: Any, *inputs: Any) -> None:
        self.name = type(module).__name__
        self._module: Any = copy.deepcopy(module)
        self._inputs = inputs
        self._names = argument_names(module.forward, inputs)
        if not isinstance(self._module.params, MutableMapping):
            raise TypeError(f"params: expected a dict, name to array, got {type(self._module.params).__name__}")
        for key, old in list(self._module.params.items()):
            if old.dtype == np.float32:  # replaced wherever the object keeps it, since it may use either
                self._module.params[key] = new = old.astype(np.float64)
                for attribute, value in list(vars(self._module).items()):
                    if value is old:
                        setattr(self._module, attribute, new)
        found = [leaf for key, tree in zip(self._names, inputs, strict=True) for leaf in leaves(key, tree)]
        self.values = {key: float64(array) for key, array in found}
        self._params = [key for key, value in self._module.params.items() if value is not None]
        self.values |= {key: float64(self._module.params[key]) for key in self._params}

    def forward(self, values: Values) -> tuple[Array, Any]:
        for key in self._params:
            self._module.params[key][...] = values[key]
        trees = [rebuilt(key, tree, values) for key, tree in zip(self._names, self._inputs, strict=True)]
        return self._module.forward(*trees), None

    def backward(self, dy: Array, cache: Any) -> dict[str, Array]:
        gradients = by_input(self._names, self._inputs, self._module.backward(dy))
        return gradients | {key: self._module.grads.get(key) for key in self._params}


class OurLayer:
    """An `npattn.Layer`: a copy of it, in NumPy, whose parameters are replaced for every forward."""

    stateful = True
    dtypes: tuple[str, ...] = ("float32", "complex128")

    def __init__(self, layer: Layer, *inputs: Any) -> None:
        if len(inputs) != 1:
            raise ValueError(f"inputs: expected the one input x of the layer, got {len(inputs)}")
        if not any(leaves("x", inputs[0])):
            raise TypeError(f"x: expected a float array, got {getattr(inputs[0], 'dtype', type(inputs[0]).__name__)}")
        self.name = repr(layer).replace("\n", " ")
        self._layer = copy.deepcopy(layer).to(dtype="float64", xp=np)
        self._buffers = {key: float64(value) for key, value in self._layer.buffers.items()}
        self._params = list(self._layer.params)
        self.values = {"x": float64(inputs[0])} | {key: float64(self._layer.params[key]) for key in self._params}

    @property
    def path(self) -> str | None:
        return self._layer.path

    def forward(self, values: Values) -> tuple[Array, Any]:
        for key in self._params:
            self._layer.params[key] = values[key]
        for key, value in self._buffers.items():  # a forward may move them; a check must start from the same
            self._layer.buffers[key] = value.astype(values["x"].dtype)
        return self._layer.forward(values["x"]), None

    def backward(self, dy: Array, cache: Any) -> dict[str, Array]:
        dx = self._layer.backward(dy)
        return {"x": dx} | {key: self._layer.grads.get(key) for key in self._params}


def as_target(target: Any, inputs: tuple[Any, ...]) -> Target:
    """Bring `target` into the one form.

    Raises
    ------
    TypeError, ValueError
        If it is none of the three, or the inputs do not fit.
    """
    found: Target
    if isinstance(target, Layer):
        found = OurLayer(target, *inputs)
    elif isinstance(target, tuple) and len(target) == 2 and all(map(callable, target)):
        module, name = getattr(target[0], "__module__", None), getattr(target[0], "__qualname__", repr(target[0]))
        name = name if module in (None, "__main__") else f"{module}.{name}"
        found = Pair(name, *target, *inputs)
    elif callable(getattr(target, "forward", None)) and callable(getattr(target, "backward", None)):
        if hasattr(target, "params"):
            found = Module(target, *inputs)
        else:
            found = Pair(getattr(target, "__name__", type(target).__name__), target.forward, target.backward, *inputs)
    else:
        raise TypeError(
            "target: expected a layer, an object with forward, backward, params and grads, or a pair "
            f"(forward, backward), got {target!r}"
        )
    if not found.values:
        raise TypeError("inputs: expected at least one float array to take a derivative by, got none")
    return found
