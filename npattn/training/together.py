"""Ranks that fail, read files and start as one. See ranks.py for what they are."""

from __future__ import annotations

import contextlib
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from npattn.backend import Array, DeviceError
from npattn.checkpoint import CheckpointError
from npattn.data import DataError
from npattn.streams import Plain
from npattn.training.ranks import Ranks, Several
from npattn.training.settings import TrainingError

Value = TypeVar("Value")

EXPECTED = (TrainingError, DataError, CheckpointError, DeviceError, OSError, MemoryError)
LONGEST = 1000  # bytes of what a rank says is odd about it


@contextlib.contextmanager
def together(ranks: Ranks) -> Iterator[None]:
    """An error that all ranks meet in the block is raised in each; one that some meet ends all ranks at once.

    The others could not learn of it: they would wait for ever in a collective that this one never calls.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(ranks, Several) and not ranks.all_failed():
            interrupted = isinstance(error, KeyboardInterrupt)
            if not interrupted:
                if not isinstance(error, EXPECTED):
                    traceback.print_exception(error, file=sys.__stderr__)
                said = str(error) or type(error).__name__
                out = Plain(sys.__stderr__, "standard error")
                out.write(f"npattn: rank {ranks.rank} of {ranks.size}: {said}\n")
                out.flush()
            ranks.abort(130 if interrupted else 1)
        raise


def at_first(ranks: Ranks, act: Callable[[], Value]) -> Value:
    """What `act()` returns or raises at rank 0, at every rank: for files, which only rank 0 reads and writes."""
    if ranks.size == 1:
        return act()
    outcome: tuple[Any, Exception | None] = None, None
    if ranks.rank == 0:
        try:
            outcome = act(), None
        except Exception as error:
            outcome = None, error
    value, failed = ranks.broadcast(outcome)
    if failed is not None:
        raise failed
    found: Value = value
    return found


def check_alike(ranks: Ranks, facts: dict[str, Any]) -> None:
    """Raise TrainingError, at every rank, unless all were started with the same facts; it says who has which."""
    if same(ranks, repr(facts).encode()):
        return
    first, odd = ranks.broadcast(facts), ""
    for name in {**first, **facts}:
        expected, got = repr(first.get(name)), repr(facts.get(name))
        if got != expected:
            odd = f"{name}: expected {expected:.100}, as rank 0 has, got {got:.100}"
            break
    rows = ranks.allgather(np.frombuffer(odd.encode()[:LONGEST].ljust(LONGEST, b"\0"), np.uint8)[None])
    said = [bytes(row).rstrip(b"\0").decode(errors="replace") for row in rows]
    rank = next(i for i, text in enumerate(said) if text)
    raise TrainingError(f"rank {rank} of {ranks.size}: {said[rank]}; all ranks are to be started alike")


def same(ranks: Ranks, data: bytes | Array) -> bool:
    """Whether all ranks have the same bytes."""
    codes = ranks.allgather(np.array([[zlib.crc32(data)]]))
    return bool((codes == codes[0]).all())
