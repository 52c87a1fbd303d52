"""Whether a forward keeps what its backward will need: `no_grad`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_keep_cache: ContextVar[bool] = ContextVar("keep_cache", default=True)


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Within `with npattn.no_grad():` a forward keeps no cache, which saves memory; `backward` then says so."""
    token = _keep_cache.set(False)
    try:
        yield
    finally:
        _keep_cache.reset(token)


def keeps_cache() -> bool:
    """Whether a forward is to keep what its backward needs: not within `no_grad`."""
    return _keep_cache.get()


@contextlib.contextmanager
def keep_caches() -> Iterator[None]:
    """Within the block a forward keeps its cache, even inside of `no_grad`: for what needs a backward of its own."""
    token = _keep_cache.set(True)
    try:
        yield
    finally:
        _keep_cache.reset(token)
