"""BLAS held to one thread while the fused pairs' threads work: it must not start threads of its own inside ours.

Its setting is one for the whole process, so it is lowered when the first task enters and put back, as it was found,
when the last one leaves.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any


class State:
    """What BLAS was set to, and how many hold it down."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.libraries: list[Any] | None = None  # looked up once: searching the loaded libraries takes milliseconds
        self.before: list[int] = []  # their threads, as they were found
        self.holders = 0

    def lower(self) -> None:
        """Set every library to one thread."""
        self.before = [library.num_threads for library in self.libraries or ()]
        for library, threads in zip(self.libraries or (), self.before, strict=True):
            if threads != 1:
                set_threads(library, 1)

    def put_back(self) -> None:
        """Set every library to what it was."""
        for library, threads in zip(self.libraries or (), self.before, strict=True):
            if threads != 1:
                set_threads(library, threads)


def set_threads(library: Any, threads: int) -> None:
    """Set a library's threads, from whatever thread: it may be another one that lowers them than puts them back.

    From 3.8 on threadpoolctl lets one thread alone set those of an OpenBLAS, the first that does, until it is asked to
    let go; it does nothing in the others, and says nothing. Here one sets at a time anyway (`State.lock`).
    """
    let_go = getattr(library, "clear_controlling_thread", None)
    if let_go is not None:
        let_go(force=True)
    library.set_num_threads(threads)
    if let_go is not None:
        let_go(force=True)


state = State()


def _after_fork() -> None:
    """A child holds nothing, and its parent's lock may be held by a thread that is not there."""
    global state
    parent, state = state, State()
    state.libraries = parent.libraries
    if parent.holders:
        parent.put_back()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class BlasHeld(contextlib.ContextDecorator):
    """`with blas_held:`, or `@blas_held` above a function: within, BLAS uses one thread.

    Its setting is put back on leaving, also when an exception passes. The setting belongs to the process: other
    threads that call BLAS meanwhile get one thread as well, and what they set in that time is undone.
    """

    def __enter__(self) -> None:
        with state.lock:
            if state.libraries is None:
                import threadpoolctl  # at first use: npattn imports as fast as NumPy

                state.libraries = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
            if state.holders == 0:
                state.lower()
            state.holders += 1

    def __exit__(self, *_: object) -> None:
        with state.lock:
            if state.holders == 0:  # a child, forked within: it holds nothing
                return
            state.holders -= 1
            if state.holders == 0:
                state.put_back()


blas_held = BlasHeld()
