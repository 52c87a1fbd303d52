"""A copy of somebody's object, in float64: each array that it reaches. Those that share memory share it again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from npattn.checker.inputs import GENERATORS


def copied(target: Any, make: Callable[[Any], Any] | None = None) -> Any:
    """A deep copy whose float arrays are float64, wherever the object keeps them.

    Raises
    ------
    TypeError
        If it cannot be copied.
    """
    if make is not None:
        target = make(target)
    memo = {id(old): new for old, new in in_float64([a for a in reachable(target) if isinstance(a, np.ndarray)])}
    try:
        return copy.deepcopy(target, memo)
    except Exception as error:
        raise TypeError(
            f"target: expected an object that copy.deepcopy copies, since the check works on a copy, got "
            f"{type(target).__name__}, where it says {type(error).__name__}: {error}; a function that makes another "
            "one helps: gradcheck(gradcheck.wrap(target, copy=lambda old: ...), ...)"
        ) from error


class Twin:
    """A copy of an object that is given complex parameters: what real runs use never sees them.

    An array is replaced wherever the object holds it: in an attribute, a dict or a list.
    """

    def __init__(self, target: Any, arrays: Mapping[str, np.ndarray]) -> None:
        memo: dict[int, Any] = {}
        self.target = copy.deepcopy(target, memo)
        self._held = {name: [*holders(self.target, memo.get(id(array)))] for name, array in arrays.items()}

    def put(self, values: Mapping[str, np.ndarray]) -> None:
        """Give it these parameters, by name."""
        for name, held in self._held.items():
            new = values[name].copy()
            for owner, key in held:
                if isinstance(owner, dict | list):
                    owner[key] = new
                else:
                    setattr(owner, key, new)


def holders(target: Any, array: Any) -> Iterator[tuple[Any, Any]]:
    """Where an object holds this very array: an object, dict or list, and the name, key or place there."""
    seen: dict[int, Any] = {}
    waiting = [target]
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, np.ndarray):
            continue
        seen[id(value)] = value
        inside: Mapping[Any, Any] = {}
        if isinstance(value, dict):
            inside = value
        elif isinstance(value, list | tuple):
            inside = dict(enumerate(value))
        elif is_object(value):
            inside = attributes(value)
        for key, one in inside.items():
            if one is array and not isinstance(value, tuple):
                yield value, key
        waiting += list(inside.values())


def generators(target: Any) -> list[Any]:
    """The random generators that an object keeps."""
    return [one for one in reachable(target) if isinstance(one, GENERATORS)]


def attributes(target: Any) -> dict[str, Any]:
    """What an object keeps, by name: its `__dict__`, and its slots."""
    found = dict(getattr(target, "__dict__", {}))
    for kind in type(target).__mro__:
        names = kind.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if hasattr(target, name):
                found.setdefault(name, getattr(target, name))
    return found


def is_object(value: Any) -> bool:
    """Whether it is somebody's object that keeps things: no array, number, function, class or module."""
    if isinstance(value, np.ndarray | np.generic | type | ModuleType | FunctionType | Mapping | list | tuple | set):
        return False
    return bool(attributes(value))


def reachable(target: Any) -> Iterator[Any]:
    """Float arrays and generators that an object keeps, in attributes, dicts, lists and other objects: each once."""
    seen: dict[int, Any] = {}  # held, so that no id is used again
    waiting = [target]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if (isinstance(value, np.ndarray) and value.dtype.kind == "f") or isinstance(value, GENERATORS):
            yield value
        elif isinstance(value, Mapping):
            waiting += list(value.values())
        elif isinstance(value, list | tuple | set):
            waiting += list(value)
        elif is_object(value):
            waiting += list(attributes(value).values())


def in_float64(arrays: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each array with its copy. Those that are views of the same numbers become views of the same copy."""
    families: dict[int, tuple[np.ndarray, list[np.ndarray]]] = {}
    for array in arrays:
        owner = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        families.setdefault(id(owner), (owner, []))[1].append(array)
    for owner, members in families.values():
        whole = owner.flags.c_contiguous and all(member.dtype == owner.dtype for member in members)
        new = owner.astype(np.float64) if whole and len(members) > 1 else None
        for member in members:
            yield member, np.array(member, np.float64, order="K") if new is None else same_view(member, owner, new)


def same_view(member: np.ndarray, owner: np.ndarray, new: np.ndarray) -> np.ndarray:
    """What `member` is of `owner`, of `new`."""
    if member is owner:
        return new
    start = (member.ctypes.data - owner.ctypes.data) // owner.itemsize
    strides = [step // owner.itemsize * new.itemsize for step in member.strides]
    return np.lib.stride_tricks.as_strided(new.reshape(-1)[start:], member.shape, strides)
