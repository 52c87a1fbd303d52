"""Is one layer object used twice in a forward? It keeps one forward, so its backward undoes the last one both times."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from npattn.checker.target import Target
from npattn.grad_mode import no_grad

DEEP = 5  # levels of attributes, lists and dicts that are looked into


def used_twice(form: Target) -> str:
    """What to say of a layer inside of the target that one forward calls more than once; empty if there is none."""
    counts: dict[int, tuple[str, int]] = {}
    with contextlib.ExitStack() as stack:
        for name, layer in inner_layers(form):
            stack.enter_context(counting(name, layer, counts))
        with contextlib.suppress(Exception), np.errstate(all="ignore"), no_grad():
            form.forward(form.values)
    found = [f"{name}, {count} times" for name, count in counts.values() if count > 1]
    if not found:
        return ""
    return (
        f"one layer object is used twice in a forward ({'; '.join(found)}): a layer keeps one forward, so make it two"
    )


def inner_layers(form: Target) -> list[tuple[str, Any]]:
    """Objects with a forward and a backward inside of what is checked, the outermost left out, each once."""
    seen: set[int] = set()
    found = [(name, each) for name, each in reachable("", form, DEEP, seen) if is_layer(each)]
    return [
        (name.replace("_target.", "").lstrip("."), each)
        for name, each in found
        if not type(each).__module__.startswith("npattn.checker")
    ]


def is_layer(thing: Any) -> bool:
    """Whether it is an object that can go forward and back."""
    return not isinstance(thing, type) and all(callable(getattr(thing, way, None)) for way in ("forward", "backward"))


def reachable(name: str, thing: Any, depth: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """What hangs on a thing: attributes, items, and what a function has closed over or calls by a global name."""
    if id(thing) in seen or depth < 0 or isinstance(thing, np.ndarray | str | bytes | int | float | type | None):
        return
    seen.add(id(thing))
    yield name, thing
    parts: dict[str, Any] = {}
    if isinstance(thing, Mapping):
        parts = {f"{name}[{key!r}]": value for key, value in thing.items()}
    elif isinstance(thing, tuple | list):
        parts = {f"{name}[{i}]": value for i, value in enumerate(thing)}
    elif hasattr(thing, "__code__"):
        cells = zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=False)
        with contextlib.suppress(ValueError):
            parts = {key: cell.cell_contents for key, cell in cells}
        used = set(thing.__code__.co_names) & set(thing.__globals__)
        parts |= {key: thing.__globals__[key] for key in used if is_layer(thing.__globals__[key])}
    elif hasattr(thing, "__dict__") and not hasattr(thing, "__path__") and type(thing).__name__ != "module":
        inner = isinstance(thing, object) and type(thing).__module__.startswith("npattn.checker")
        parts = {(key if inner else f"{name}.{key}"): value for key, value in vars(thing).items()}
        if hasattr(thing, "__func__"):
            parts["self"] = thing.__self__
    for key, value in parts.items():
        yield from reachable(key, value, depth - 1, seen)


@contextlib.contextmanager
def counting(name: str, layer: Any, counts: dict[int, tuple[str, int]]) -> Iterator[None]:
    """Count the calls of a layer's forward, as `layer.forward(x)` or as `layer(x)`, while this lasts."""
    kind = type(layer)
    inside = [False]

    def counted(method: Any) -> Any:
        def call(self: Any, *given: Any, **named: Any) -> Any:
            if self is not layer or inside[0]:
                return method(self, *given, **named)
            _, count = counts.get(id(layer), (name, 0))
            counts[id(layer)] = f"{name}, a {kind.__name__}", count + 1
            inside[0] = True
            try:
                return method(self, *given, **named)
            finally:
                inside[0] = False

        return call

    ways = {way: counted(getattr(kind, way)) for way in ("forward", "__call__") if callable(getattr(kind, way, None))}
    try:
        layer.__class__ = type(kind.__name__, (kind,), {"__slots__": (), **ways})
    except TypeError:  # an object that cannot be watched
        yield
        return
    try:
        yield
    finally:
        layer.__class__ = kind
