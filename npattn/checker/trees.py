"""Inputs and outputs are trees: arrays, or dicts and tuples of them. Their float arrays go by dotted names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from npattn.backend import Array, array_module, to_numpy

Values = Mapping[str, Array]
"""The arrays that have a gradient, by name."""


def is_array(tree: Any) -> bool:
    """Whether it is an array of a known library. A NumPy scalar is none."""
    try:
        array_module(tree)
    except TypeError:
        return is_of_jax(tree)
    return True


def is_of_jax(tree: Any) -> bool:
    """Whether it is an array of JAX's, on which no pair of ours runs, but functions of others."""
    return type(tree).__module__.split(".")[0] in ("jax", "jaxlib") and hasattr(tree, "dtype")


def plain(array: Array) -> np.ndarray:
    """A NumPy array with its values."""
    return np.asarray(array) if is_of_jax(array) else to_numpy(array)


def within(name: str, tree: Any) -> Iterator[tuple[str, Any]]:
    """What stands in an input, by dotted name: in dicts, NamedTuples, tuples and lists of whatever depth."""
    if isinstance(tree, Mapping) and not is_array(tree):
        for key, value in tree.items():
            yield from within(f"{name}.{key}", value)
    elif isinstance(tree, tuple | list):
        for key, value in zip(getattr(tree, "_fields", range(len(tree))), tree, strict=True):
            yield from within(f"{name}.{key}", value)
    else:
        yield name, tree


def leaves(name: str, tree: Any) -> Iterator[tuple[str, Array]]:
    """The float arrays of an input, by dotted name. None, numbers and integer arrays have no gradient."""
    for key, part in within(name, tree):
        if is_array(part):
            array = plain(part)
            if array.dtype.kind == "c":
                raise TypeError(f"{key}: expected a real array, got dtype {array.dtype}")
            if array.dtype.kind == "f":
                yield key, array


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
    return np.array(plain(array), dtype=np.float64, order="K")


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


def belongs(name: str, chosen: Iterable[str]) -> bool:
    """Whether a dotted name is one of the chosen, or lies inside one: `params.w1` inside `params`."""
    return any(name == one or name.startswith(f"{one}.") for one in chosen)


class Outputs:
    """What a forward gives, as one array: an output alone stays as it is, several are laid end to end.

    How they are built is learned at the first `flat`. Then `like` builds dy in the same way.
    """

    def __init__(self) -> None:
        self._tree: Any = None
        self._shapes: dict[str, tuple[int, ...]] = {}

    @property
    def lengths(self) -> list[int]:
        """How many numbers each output has; empty if there is one output alone."""
        return [int(np.prod(shape)) for shape in self._shapes.values()]

    def flat(self, y: Any) -> Any:
        """All float arrays of y in one; y itself if it is one array or number."""
        self._tree = y
        if not isinstance(y, Mapping | tuple | list):
            return y
        found = {key: np.asarray(array) for key, array in parts("y", y)}
        self._shapes = {key: array.shape for key, array in found.items()}
        return np.concatenate([array.reshape(-1) for array in found.values()]) if found else y

    def like(self, dy: np.ndarray) -> Any:
        """dy, built as y is; None for what is no float array."""
        if not isinstance(self._tree, Mapping | tuple | list):
            return np.asarray(dy)  # arithmetic with a single number makes a scalar of it
        start, given = 0, {}
        for key, shape in self._shapes.items():
            size = int(np.prod(shape))
            given[key] = dy[start : start + size].reshape(shape)
            start += size
        return without_others("y", self._tree, given)


def parts(name: str, y: Any) -> Iterator[tuple[str, Any]]:
    """The float arrays and numbers of an output, complex ones too, by dotted name."""
    if isinstance(y, Mapping):
        for key, value in y.items():
            yield from parts(f"{name}.{key}", value)
    elif isinstance(y, tuple | list):
        for i, value in enumerate(y):
            yield from parts(f"{name}.{i}", value)
    elif y is not None and not isinstance(y, str):
        array = plain(y) if is_array(y) else np.asarray(y)
        if array.dtype.kind in "fc":
            yield name, array


def without_others(name: str, y: Any, given: Values) -> Any:
    """The output's tree with the arrays of `given`, and None elsewhere."""
    if isinstance(y, Mapping):
        return {key: without_others(f"{name}.{key}", value, given) for key, value in y.items()}
    if isinstance(y, tuple | list):
        built = [without_others(f"{name}.{i}", value, given) for i, value in enumerate(y)]
        return type(y)(*built) if hasattr(y, "_fields") else type(y)(built)
    return given.get(name)
