"""What a layer keeps of its last forward, and when a backward may be meant for another.

A layer keeps one forward; the next one takes its place. A backward is given dy, and nothing in dy tells which forward
it comes from. So a layer that went forward twice could answer for the wrong one, with numbers that look right:

    y1 = layer(a)                      one layer object at two places of a network, say
    y2 = layer(b)                      takes the place of the first
    dx2 = layer.backward(dy2)          the last forward's
    dx1 = layer.backward(dy1)          the first one's cache is gone: refused

A layer within another is asked to undo what it did in that one's forward. If it went forward again since, or went
forward twice there, it refuses. A layer by itself, where a forward was replaced before its backward,

 1. refuses the second backward;
 2. refuses the first, if somebody still holds the output of that forward: dy may well be for it;
 3. warns at the first, if nobody does: the forward that was replaced was a look, most likely.

The same forward again, of the very same array x, replaces nothing.

A backward in a thread whose own forward another thread's has replaced is refused. Threads take turns: a forward or
backward begins when the other's is done.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from threading import Thread
from types import ModuleType
from typing import Any, NamedTuple

from npattn.backend import Array

ADVICE = (
    "a layer keeps its last forward only. Call backward before the next forward, give each place in a network a layer "
    "of its own, and run what will have no backward under npattn.no_grad()"
)


class Kept(NamedTuple):
    """A forward that can be undone: its cache, what its y was, and where it ran."""

    cache: Any
    xp: ModuleType
    dtype: Any
    shape: tuple[int, ...]
    x: Any  # weak references
    y: Any
    thread: Thread
    within: tuple[object, ...]  # the outermost layer's forward, and earlier ones in which it did the same
    times: int  # which forward of this layer it was, in that of the outermost


class LastForward:
    """The last forward of one layer, and what is known of those before it."""

    def __init__(self, none_yet: str) -> None:
        self.turn = threading.RLock()
        self.kept: Kept | None = None
        self.why_none = none_yet  # what a backward says if there is nothing to undo
        self._before: Kept | None = None  # what was kept, while the next forward runs
        self._undone = False  # whether the kept forward has had its backward
        self._skipped = False  # whether one before it was replaced without
        self._held: dict[int, Kept] = {}  # those, without their caches, as long as somebody holds their y
        self._lost: weakref.WeakSet[Thread] = weakref.WeakSet()  # whose forward another thread's replaced
        self._grads_by: Thread | None = None
        self._grads_lost: weakref.WeakSet[Thread] = weakref.WeakSet()

    def forget(self, why: str) -> None:
        """A new forward begins, or the layer is changed: what was kept is gone."""
        if self.kept is not None:
            self._before = self.kept._replace(cache=None)
            if self.kept.thread is not threading.current_thread():
                self._lost.add(self.kept.thread)
        self.kept, self.why_none = None, why

    def keep(self, x: Array, y: Array, cache: Any, xp: ModuleType) -> None:
        """A forward is done."""
        me, outermost, before = threading.current_thread(), _running.get(), self._before
        again = before is not None and before.x() is x  # unchanged, since its backward needs it so
        within = (outermost, *before.within[:7]) if before is not None and again else (outermost,)
        times = before.times + 1 if before is not None and before.within[0] is outermost else 1
        self._settle(replaced=not again)
        self._lost.discard(me)
        self._undone = False
        self.kept = Kept(cache, xp, y.dtype, tuple(y.shape), weak(x), weak(y), me, within, times)

    def without_cache(self, why: str) -> None:
        """A forward is done that keeps nothing: whoever ran it so has said that earlier ones are over."""
        self._settle(replaced=True)
        self.why_none, self._skipped = why, False

    def _settle(self, replaced: bool) -> None:
        """Note what became of the forward before."""
        before, self._before = self._before, None
        if before is None:
            return
        if self._undone or before.thread is not threading.current_thread():
            self._skipped = False
            self._held.clear()
        elif replaced:
            self._skipped = True
            if (y := before.y()) is not None:
                key = id(y)
                self._held[key] = before._replace(y=weak(y, lambda _: self._held.pop(key, None)))

    def to_undo(self) -> Kept:
        """The forward that a backward is for. Raises RuntimeError if there is none, or it may be for another."""
        kept, asked = self.kept, _undoing.get()
        if kept is None:
            raise RuntimeError(self.why_none)
        if asked is not None:
            if not any(one is asked for one in kept.within):
                raise RuntimeError(
                    "backward after a later forward of its own, which took the place of the one within the layer that "
                    f"it is part of: {ADVICE}"
                )
            if kept.times > 1:
                raise RuntimeError(f"used {kept.times} times within one layer: {ADVICE}")
            return kept
        if kept.thread is not threading.current_thread() and threading.current_thread() in self._lost:
            raise RuntimeError(
                "backward after a forward of another thread, which took the place of this one's: a layer keeps its "
                "last forward only. Give each thread a layer of its own, or let one finish before the next begins"
            )
        if self._skipped and self._undone:
            raise RuntimeError(f"a second backward after two forwards: {ADVICE}")
        if any(could_be_meant(old, kept) for old in list(self._held.values())):
            raise RuntimeError(f"backward after two forwards, the outputs of both still in use: {ADVICE}")
        return kept

    def warn_if_skipped(self, layer: str) -> None:
        """Say that a forward was replaced before its backward, where dy is most likely, but not surely, the last's."""
        if self._skipped and not self._undone and _undoing.get() is None:
            text = f"{layer}: backward after two forwards is that of the last one: {ADVICE}"
            warnings.warn(text, RuntimeWarning, stacklevel=4)

    def undone(self) -> None:
        """The backward is done, and has set the layer's gradients."""
        me = threading.current_thread()
        self._undone = True
        if self._grads_by is not me:
            if self._grads_by is not None:
                self._grads_lost.add(self._grads_by)
            self._grads_lost.discard(me)
            self._grads_by = me

    def check_grads(self) -> None:
        """Raise RuntimeError where this thread's gradients have been replaced by those of another thread."""
        if self._grads_lost and threading.current_thread() in self._grads_lost:
            raise RuntimeError(
                "grads after a backward of another thread, which took the place of this one's: give each thread a "
                "layer of its own, or read its gradients before the next begins"
            )


def could_be_meant(old: Kept, last: Kept) -> bool:
    """Whether dy may be for the earlier of two forwards: its output is in use, and of the same shape."""
    return old.y() is not None and old.shape == last.shape and old.dtype == last.dtype


_running: ContextVar[object | None] = ContextVar("running", default=None)
_undoing: ContextVar[object | None] = ContextVar("undoing", default=None)


@contextlib.contextmanager
def running() -> Iterator[None]:
    """A forward; those within it are part of it."""
    token = _running.set(_running.get() or object())
    try:
        yield
    finally:
        _running.reset(token)


@contextlib.contextmanager
def undoing(kept: Kept) -> Iterator[None]:
    """A backward; those within it are to undo what ran in the same forward."""
    token = _undoing.set(kept.within[0])
    try:
        yield
    finally:
        _undoing.reset(token)


def weak(array: Array, when_gone: Any = None) -> Any:
    """A reference that does not keep the array alive; to nothing, for a library whose arrays take none."""
    try:
        return weakref.ref(array, when_gone)
    except TypeError:
        return lambda: None
