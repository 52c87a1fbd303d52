"""Where somebody's object keeps its parameters and their gradients: found by the names that people give them.

A place is a way from the object to an array: steps through attributes, keys and calls. It is looked up anew each time,
since most objects put new arrays there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from npattn.checker.calls import asked
from npattn.checker.copying import attributes, is_object

Step = tuple[str, Any]  # ("attribute", name), ("item", key), ("part", either), ("call", name) or ("function", f)
Way = tuple[Step, ...]

CONTAINERS = (
    ("params", "grads"), ("parameters", "gradients"), ("params", "gradients"), ("parameters", "grads"),
    ("params", "dparams"), ("weights", "gradients"), ("weights", "grads"), ("weights", "dweights"),
    ("parameters", "dparameters"), ("_params", "_grads"),
)  # fmt: skip
"""Attributes, or methods of no arguments, that give all parameters at once, and all gradients."""

GRADIENT_OF = (
    "d{}", "d_{}", "grad_{}", "{}_grad", "{}_gradient", "grad{}", "g{}", "g_{}", "gradient_{}", "dL_d{}", "dL{}",
    "nabla_{}", "delta_{}",
)  # fmt: skip
"""What the gradient of an attribute is called."""

ALSO = {"weights": "W", "weight": "W", "kernel": "W", "w": "W", "bias": "b", "biases": "b", "b": "bias"}
BOXES = (("data", "grad"), ("value", "grad"), ("data", "gradient"), ("value", "gradient"), ("val", "grad"))
"""Attributes of an object that holds one parameter and its gradient."""


class Place(NamedTuple):
    """One parameter: its name, the way to it, and the ways on which its gradient may be found, the likeliest first."""

    name: str
    value: Way
    gradients: tuple[Way, ...]
    listed: bool = False  # among those that the object gives all at once


def at(target: Any, way: Way) -> Any:
    """What is at the end of the way.

    Raises
    ------
    LookupError, AttributeError
        If there is nothing.
    """
    for kind, what in way:
        if kind == "attribute":
            target = getattr(target, what)
        elif kind == "item":
            target = target[what]
        elif kind == "part":
            target = part_of(target, what)
        elif kind == "call":
            target = contents(getattr(target, what)())
        else:
            target = contents(what(target))
    return target


def put(target: Any, way: Way, value: np.ndarray) -> None:
    """Set what is at the end of the way: into the array that is there, for others may hold it too."""
    there = at(target, way)
    if isinstance(there, np.ndarray) and there.dtype == value.dtype and there.flags.writeable:
        there[...] = value
        return
    *before, (kind, what) = way
    owner = at(target, tuple(before))
    new = value.copy() if np.ndim(value) else value[()]
    if kind == "attribute" or (kind == "part" and not isinstance(owner, Mapping | list)):
        setattr(owner, what, new)
    else:
        owner[int(what) if isinstance(owner, list) else what] = new


def part_of(owner: Any, name: str) -> Any:
    """A part of a dotted name: a key of a dict, a place in a list, or else an attribute."""
    if isinstance(owner, Mapping):
        return owner[name]
    return owner[int(name)] if isinstance(owner, list | tuple) else getattr(owner, name)


def gradient_at(target: Any, place: Place) -> Any:
    """The gradient of a parameter as it is now, or None."""
    for way in place.gradients:
        try:
            found = unboxed(at(target, way))
        except (LookupError, AttributeError, TypeError):
            continue
        if found is not None:
            return found
    return None


def unboxed(value: Any) -> Any:
    """An array out of an object that holds it, as an autograd's Variable does."""
    if value is None or isinstance(value, np.ndarray | np.generic | float | int):
        return value
    for name in ("data", "value"):
        if isinstance(getattr(value, name, None), np.ndarray | np.generic):
            return getattr(value, name)
    return value


def contents(value: Any) -> Any:
    """A generator's or a view's items as a list."""
    if isinstance(value, Mapping | list | tuple | np.ndarray) or not hasattr(value, "__iter__"):
        return value
    return list(value)


def is_number(value: Any) -> bool:
    """Whether it is a float array or a float."""
    return isinstance(value, float | np.floating) or (isinstance(value, np.ndarray) and value.dtype.kind == "f")


def places(target: Any) -> list[Place]:
    """Every parameter of an object and of the objects in it, each array once."""
    found: dict[str, Place] = {}
    arrays: dict[int, Any] = {}
    for place in inside(target, "", (), {}):
        array = at(target, place.value)
        if isinstance(array, np.ndarray) and id(array) in arrays:
            continue
        arrays[id(array)] = array
        found.setdefault(place.name, place)
    return list(found.values())


def inside(target: Any, prefix: str, way: Way, seen: dict[int, Any]) -> Iterator[Place]:
    """Containers first, then attributes with a gradient beside, then the objects that it is made of."""
    if id(target) in seen:
        return
    seen[id(target)] = target
    in_all = list(in_containers(target, prefix, way))
    boxed = any(place.value[-1][0] == "attribute" for place in in_all)  # these have better names as attributes
    yield from [] if boxed else in_all
    yield from as_attributes(target, prefix, way)
    for name, value in attributes(target).items():
        yield from within(value, f"{prefix}{name}", (*way, ("attribute", name)), seen)
    yield from in_all if boxed else []


def within(value: Any, name: str, way: Way, seen: dict[int, Any]) -> Iterator[Place]:
    """The parameters of an attribute: of an object, or of objects in a list or dict."""
    if isinstance(value, Mapping | list | tuple):
        for key, one in value.items() if isinstance(value, Mapping) else enumerate(value):
            if isinstance(one, Mapping | list | tuple) or is_object(one):
                yield from within(one, f"{name}.{key}", (*way, ("item", key)), seen)
    elif is_object(value):
        box = box_of(value)
        if box is None:
            yield from inside(value, f"{name}.", way, seen)
        elif id(value) not in seen:
            seen[id(value)] = value
            yield Place(name, (*way, ("attribute", box[0])), ((*way, ("attribute", box[1])),))


def box_of(value: Any) -> tuple[str, str] | None:
    """The names under which an object holds one parameter and its gradient, if that is what it is."""
    if not is_object(value):
        return None
    for data, gradient in BOXES:
        if is_number(getattr(value, data, None)) and hasattr(value, gradient):
            return data, gradient
    return None


def opened(target: Any, name: str) -> tuple[Step, Any]:
    """An attribute, or what a method of that name gives; None if there is none."""
    try:
        value = getattr(target, name, None)
        if callable(value) and not isinstance(value, Mapping):
            return ("call", name), None if asked(value).required else contents(value())
    except Exception:  # a method or property of that name that is something else
        return ("call", name), None
    return ("attribute", name), value


def in_containers(target: Any, prefix: str, way: Way) -> Iterator[Place]:
    """Parameters that the object gives all at once."""
    for params, grads in (*CONTAINERS, ("parameters", "")):
        step, tree = opened(target, params)
        leaves = list(in_tree(tree, (step,)))
        other, gradients = opened(target, grads) if grads else (("attribute", ""), None)
        boxed = any(len(beside) for _, _, beside in leaves)
        if not leaves or not (boxed or isinstance(gradients, Mapping | list | tuple)):
            continue
        for name, inner, beside in leaves:
            ways = beside or tuple((other, *rest) for rest in alike(inner[1:]))
            called = name if isinstance(tree, Mapping) else f"{params}.{name}"
            yield Place(f"{prefix}{called}", (*way, *inner), tuple((*way, *one) for one in ways), listed=True)
        return


def in_tree(tree: Any, way: Way) -> Iterator[tuple[str, Way, tuple[Way, ...]]]:
    """Arrays and boxes in dicts and lists: name, way, and for a box the way to its gradient."""
    if not isinstance(tree, Mapping | list | tuple):
        return
    for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
        here = (*way, ("item", key))
        box = box_of(value)
        if box is not None:
            yield (
                str(getattr(value, "name", None) or key),
                (*here, ("attribute", box[0])),
                ((*here, ("attribute", box[1])),),
            )
        elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
            yield str(key), here, ()
        else:
            for name, inner, beside in in_tree(value, here):
                yield f"{key}.{name}", inner, beside


def alike(way: Way) -> Iterator[Way]:
    """The same way in the gradients; a key may have a d before it there: grads["dW1"] of params["W1"]."""
    yield way
    *before, (kind, key) = way
    if isinstance(key, str):
        for pattern in GRADIENT_OF:
            yield (*before, (kind, pattern.format(key)))


def as_attributes(target: Any, prefix: str, way: Way) -> Iterator[Place]:
    """Attributes that have one beside them with a gradient's name: W and dW, weights and dweights."""
    held = attributes(target)
    lower = {name.lower(): name for name in reversed(list(held))}
    for name, value in held.items():
        if is_number(value):
            beside = gradient_name(name, held, lower)
            if beside is not None:
                yield Place(f"{prefix}{name}", (*way, ("attribute", name)), ((*way, ("attribute", beside)),))


def gradient_name(name: str, held: Mapping[str, Any], lower: Mapping[str, str]) -> str | None:
    """The attribute that holds the gradient of this one."""
    stem = name.lstrip("_")
    lead = name[: len(name) - len(stem)]
    for word in (stem, stem.removesuffix("s"), ALSO.get(stem)):
        for pattern in GRADIENT_OF if word else ():
            for wanted in (lead + pattern.format(word), pattern.format(word)):
                found = wanted if wanted in held else lower.get(wanted.lower())
                if found is not None and found != name and (is_number(held[found]) or held[found] is None):
                    return found
    return None
