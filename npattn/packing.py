"""Arrays by name: Params, a NamedTuple of arrays and of such, made of arrays by field, and taken apart again.

Also shapes by letter: "C 2C 1 1" with C = 4.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_type_hints

from npattn.backend import Array


def lengths(axes: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape that axes stand for: "C 2C 1" with C = 4 is (4, 8, 1)."""
    return tuple(times * sizes[letter] if letter else times for times, letter in factors(axes))


@functools.cache
def factors(axes: str) -> tuple[tuple[int, str], ...]:
    """Each axis as a number and a letter: "C 2C 1" is (1, "C"), (2, "C"), (1, "")."""
    found = [re.fullmatch(r"(\d*)(.*)", axis) for axis in axes.split()]
    return tuple((int(match[1] or 1), match[2]) for match in found if match)


@functools.cache
def stored_axes(axes: str, stored: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The indices that take the axes of length 1 away that only the state_dict has, and that put them back."""
    away: list[Any] = []
    back: list[Any] = []
    left = axes.split()
    for axis in stored.split():
        shared = bool(left) and axis == left[0]
        left = left[1:] if shared else left
        away.append(slice(None) if shared else 0)
        back.append(slice(None) if shared else None)
    return tuple(away), tuple(back)


def fields(tree: Any, name: str = "") -> Iterator[tuple[str, Array]]:
    """The arrays of a Params by field, "w1" or "ca.w1"; those that are None are left out."""
    for key, value in zip(tree._fields, tree, strict=True):
        path = f"{name}.{key}" if name else key
        if hasattr(value, "_fields"):
            yield from fields(value, path)
        elif value is not None:
            yield path, value


def packed(kind: Any, arrays: Mapping[str, Array]) -> Any:
    """A Params from arrays by field: the way back. A field that has none keeps its default."""
    return filled(plan(kind, tuple(arrays)), arrays)


def filled(parts: tuple[Any, dict[str, str], dict[str, Any]], arrays: Mapping[str, Array]) -> Any:
    """A NamedTuple made as `plan` says."""
    kind, flat, nested = parts
    made = {name: arrays[path] for name, path in flat.items()}
    for name, inner in nested.items():
        made[name] = filled(inner, arrays)
    return kind(**made)


@functools.cache
def plan(kind: Any, paths: tuple[str, ...], above: str = "") -> tuple[Any, dict[str, str], dict[str, Any]]:
    """How a NamedTuple is made of arrays by dotted path: itself, the path of each field, the plans of the others."""
    flat = {path: above + path for path in paths if "." not in path}
    inner: dict[str, list[str]] = {}
    for path in paths:
        name, dot, rest = path.partition(".")
        if dot:
            inner.setdefault(name, []).append(rest)
    nested = {name: plan(kinds(kind)[name], tuple(rests), f"{above}{name}.") for name, rests in inner.items()}
    return kind, flat, nested


@functools.cache
def kinds(kind: Any) -> dict[str, Any]:
    """The NamedTuples among the fields of a NamedTuple, by name; a field that may be None counts as what else it is."""
    hints = get_type_hints(kind)
    return {
        name: option for name, hint in hints.items() for option in (hint, *get_args(hint)) if hasattr(option, "_fields")
    }
