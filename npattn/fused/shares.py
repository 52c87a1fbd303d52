"""A batch in shares: what the processes that work on one batch together tell each other.

Each has some of the images, and goes through the network with them as if they were all. One layer cannot: batch
normalisation, in training, sums over the images of the batch. What it sums it makes as rows, one for each group of
images, and asks for the rows of all processes. Who carries them is said by `gathering` (npattn/training/team.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from npattn.backend import Array

Gather = Callable[[Array], Array]

_gather: ContextVar[Gather | None] = ContextVar("gather", default=None)


@contextlib.contextmanager
def gathering(gather: Gather) -> Iterator[None]:
    """Within the block the images are one share of a batch, and `gather` fetches the rows of all shares."""
    token = _gather.set(gather)
    try:
        yield
    finally:
        _gather.reset(token)


def of_all(rows: Array) -> Array:
    """The rows (g, n) of this share's groups with those of the other shares, in the shares' order.

    Every process has to ask the same, and gets the same.
    """
    gather = _gather.get()
    return rows if gather is None else gather(rows)
