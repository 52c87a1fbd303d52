"""A backward that may work only once after each forward, as one does that frees what it has used."""

from __future__ import annotations

from typing import Any

from npattn.backend import Array
from npattn.checker.trees import Values


class OneTime:
    """What targets have in common whose cache is a list, with the values of the forward in its fourth place.

    A backward is tried several times with one cache. If the second one raises, each gets a forward of its own.
    """

    only_once = False
    notes: list[str]

    def forward(self, values: Values) -> tuple[Array, Any]:
        raise NotImplementedError

    def gradients(self, dy: Array, cache: list[Any]) -> dict[str, Array]:
        """What one backward gives."""
        raise NotImplementedError

    def undone(self, dy: Array, cache: list[Any], fresh: bool) -> dict[str, Array]:
        """The gradients; after a forward of its own if that is asked for or needed."""
        if fresh or (self.only_once and cache[4:]):
            cache[:] = self.forward(cache[3])[1]
        try:
            found = self.gradients(dy, cache)
        except Exception:
            if self.only_once or not cache[4:]:
                raise
            cache[:] = self.forward(cache[3])[1]
            found = self.gradients(dy, cache)
            self.only_once = True
            self.notes.append("backward works once after a forward, so each is given a forward of its own")
        cache[4:] = ["served"]
        return found
