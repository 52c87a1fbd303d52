"""Whether a forward keeps what its backward will need: `no_grad`."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar

_kept: ContextVar[tuple[bool, ...]] = ContextVar("kept", default=(True,))  # one more for each block that is open


class Mode(contextlib.ContextDecorator):
    """A `with` block in which forwards keep their caches, or do not. It can be entered again, and by other threads."""

    def __init__(self, keep: bool) -> None:
        self.keep = keep

    def __enter__(self) -> None:
        _kept.set((*_kept.get(), self.keep))

    def __exit__(self, *error: object) -> None:
        _kept.set(_kept.get()[:-1])


def no_grad() -> Mode:
    """Within `with npattn.no_grad():` a forward keeps no cache, which saves memory; `backward` then says so.

    Also as a decorator: `@npattn.no_grad()`.

    Returns
    -------
    Mode
        The context manager that is a decorator too.
    """
    return Mode(False)


def keeps_cache() -> bool:
    """Whether a forward is to keep what its backward needs: not within `no_grad`."""
    return _kept.get()[-1]


def keep_caches() -> Mode:
    """Within the block a forward keeps its cache, even inside of `no_grad`: for what needs a backward of its own."""
    return Mode(True)
