"""Arrays to work in, kept from call to call by each thread.

Fresh memory costs more than the arithmetic done in it: the system must find it and clear it. Scratch is never part of a
result or a cache.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from typing import Any

import numpy as np

VIEWS = 64
"""Shapes of one name that are remembered: a training has as many layers that use it."""


class Buffers:
    """A thread's scratch: name to array, and the arrays that were made of each, by shape and dtype."""

    def __init__(self) -> None:
        self.arrays: dict[str, Any] = {}
        self.views: dict[str, dict[Any, Any]] = {}


class Mine(threading.local):
    """A thread's own buffers, None before it needs any."""

    buffers: Buffers | None = None


mine, lock = Mine(), threading.Lock()
of_all_threads: weakref.WeakSet[Buffers] = weakref.WeakSet()  # for nbytes; each goes with its thread


def _after_fork() -> None:
    """A child has none of its parent's threads, and its lock may be held by a thread that is not there."""
    global mine, lock
    mine, lock = Mine(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def get(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
    """An array of this thread's own to work in, with anything in it; the next one of that name takes its place."""
    if mine.buffers is None:
        mine.buffers = Buffers()
        with lock:
            of_all_threads.add(mine.buffers)
    buffers, views = mine.buffers.arrays, mine.buffers.views.setdefault(name, {})
    view = views.get((shape, dtype))
    if view is None:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if name not in buffers or buffers[name].size < size:
            buffers[name] = np.empty(size, dtype=np.uint8)
            views.clear()
        elif len(views) >= VIEWS:
            views.clear()
        view = views[shape, dtype] = np.ndarray(shape, dtype, buffer=buffers[name])
    return view


def nbytes() -> int:
    """How much memory the scratch of all threads takes."""
    with lock:
        return sum(array.nbytes for buffers in of_all_threads for array in list(buffers.arrays.values()))


def drop() -> None:
    """Give the scratch of all threads back to the system; not while one of them works."""
    with lock:
        for buffers in of_all_threads:
            buffers.arrays.clear()
            buffers.views.clear()
