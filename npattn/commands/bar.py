"""How a command that takes long shows that it is at work: a bar on standard error, where that is a terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

from npattn.streams import is_terminal, plain, say


class Bar:
    """A bar of so many pieces of work, with what is being done beside it. Without a terminal, or without tqdm, nothing.

    Lines that are printed with `say` meanwhile stand above it.

    Parameters
    ----------
    total
        How many there are. None is for work of which nobody knows the end: only what it is stands there.
    unit
        What they are called, one of them.
    """

    def __init__(self, total: int | None, unit: str) -> None:
        self.bar: Any = None
        if not is_terminal(sys.stderr):
            return
        try:
            from tqdm import tqdm
        except ImportError:  # it comes with npattn[demo]
            return
        how = {"bar_format": "{desc} …"} if total is None else {}
        self.file = plain(sys.stderr, "standard error")
        self.bar = tqdm(total=total, unit=f" {unit}", leave=False, dynamic_ncols=True, file=self.file, **how)

    def now(self, what: str) -> None:
        """Say what is being done from now on."""
        if self.bar is not None:
            self.bar.set_description_str(what)

    def done(self, count: int = 1) -> None:
        """So many more are done."""
        if self.bar is not None:
            self.bar.update(count)

    def say(self, text: str) -> None:
        """Print a line on standard output, above the bar."""
        if self.bar is None:
            say(text)
            return
        with self.bar.external_write_mode(file=self.file):
            say(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.close()
