"""Where a user says that an object keeps its parameters and gradients: by dotted names, or by functions of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from npattn.checker.copying import attributes
from npattn.checker.places import GRADIENT_OF, Place, Way, at, contents, gradient_name, in_tree, is_number

Params = Mapping[str, str] | Sequence[str] | Callable[[Any], Any]
"""Names, each with its gradient's or without; or a function that gives a dict or list of arrays."""

Grads = Sequence[str] | Callable[[Any], Any]


def named_places(params: Params, grads: Grads | None, target: Any) -> list[Place]:
    """The places that a user names: what `wrap` takes as `params` and `grads`.

    Raises
    ------
    TypeError, ValueError
        If they are of no such form, or nothing is there.
    """
    if callable(params):
        return by_function(params, grads, target)
    if isinstance(params, Mapping):
        if grads is not None:
            raise TypeError("grads: expected none, since params names the gradients too, got some")
        return [named(target, name, gradient) for name, gradient in params.items()]
    names = [params] if isinstance(params, str) else list(params)
    if callable(grads):
        raise TypeError("grads: expected names, as params has them, got a function")
    gradients = [None] * len(names) if grads is None else [grads] if isinstance(grads, str) else list(grads)
    if len(gradients) != len(names):
        raise ValueError(f"grads: expected a name for each of the {len(names)} params, got {len(gradients)}")
    return [named(target, name, gradient) for name, gradient in zip(names, gradients, strict=True)]


def by_function(params: Callable[[Any], Any], grads: Grads | None, target: Any) -> list[Place]:
    """The places that a function of the object gives, as a dict or a list."""
    tree = contents(params(target))
    if isinstance(tree, np.ndarray):
        raise TypeError("params: expected a function that gives a dict or list of arrays, got one that gives an array")
    found = list(in_tree(tree, (("function", params),)))
    if not found:
        raise ValueError(f"params: expected a dict or list of float arrays, got {type(tree).__name__} without any")
    if not callable(grads) and not all(beside for _, _, beside in found):
        raise TypeError("grads: expected a function of the object, as params is one, got " + type(grads).__name__)
    return [Place(name, way, beside or ((("function", grads), *way[1:]),)) for name, way, beside in found]


def named(target: Any, name: str, gradient: str | None) -> Place:
    """The place of a dotted name such as "W" or "layers.0.W"; its gradient's, or what stands beside it."""
    way = steps(name)
    try:
        there, owner = at(target, way), at(target, way[:-1])
    except (LookupError, AttributeError, TypeError, ValueError):
        there = owner = None
    if not is_number(there):
        has = ", ".join(key for key, value in attributes(target).items() if is_number(value))
        raise ValueError(
            f"params: expected names of float arrays of {type(target).__name__} ({has or 'it has none'}), got {name!r}"
        )
    if gradient is not None:
        return Place(name, way, (steps(gradient),))
    last = str(way[-1][1])
    held = owner if isinstance(owner, Mapping) else attributes(owner)
    beside = gradient_name(last, held, {one.lower(): one for one in held})
    likely = [pattern.format(last) for pattern in GRADIENT_OF]
    return Place(name, way, tuple((*way[:-1], ("part", one)) for one in ([beside] if beside else []) + likely))


def steps(name: str) -> Way:
    """A dotted name as steps."""
    return tuple(("part", part) for part in name.split("."))
