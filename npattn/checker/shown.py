"""How a check that takes long shows that it is at work: a bar on a terminal or in a notebook, after some seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from npattn.notebook import is_notebook
from npattn.streams import is_terminal, plain

T = TypeVar("T")
PATIENCE = 3.0  # seconds: what is over by then needs no bar


class Shown:
    """A bar of the entries and directions of all tensors. Without a terminal or a notebook, or without tqdm, nothing.

    Parameters
    ----------
    total
        How many entries and directions there are at least.
    wanted
        Whether it may be shown at all.
    """

    def __init__(self, total: int, wanted: bool) -> None:
        self.bar: Any = None
        if not wanted or not (is_terminal(sys.stderr) or is_notebook()):
            return
        try:
            from tqdm.auto import tqdm
        except ImportError:  # it comes with npattn[demo]
            return
        how: dict[str, Any] = {} if is_notebook() else {"file": plain(sys.stderr, "standard error")}
        self.bar = tqdm(total=total, unit=" entries", leave=False, dynamic_ncols=True, delay=PATIENCE, **how)

    def now(self, what: str) -> None:
        """Say what is being checked from now on."""
        if self.bar is not None:
            self.bar.set_description_str(what, refresh=False)

    def over(self, items: Sequence[T]) -> Iterator[T]:
        """The items, each counted when it is done."""
        for item in items:
            yield item
            if self.bar is not None:
                if self.bar.n >= self.bar.total:
                    self.bar.total += 1  # a second look
                self.bar.update()

    def close(self) -> None:
        """Take it away."""
        if self.bar is not None:
            self.bar.close()
