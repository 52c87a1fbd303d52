"""Where in a file's content the weights are: people save them beside an epoch, an optimiser, and averages of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from npattn.dialects.keys import shown

DEEPEST = 8  # dicts within dicts
MOST = 10_000  # dicts that are looked into
AVERAGES = ("ema", "averaged", "swa")  # what the names of averages over the training hold


class Place(NamedTuple):
    """A dict that holds arrays: the names on the way to it, joined by dots, and how many numbers it has."""

    name: str
    entries: Mapping[Any, Any]
    numbers: int

    @property
    def averaged(self) -> bool:
        """Whether its name says that these are averages over the training."""
        return any(part in AVERAGES for part in self.name.lower().replace(".", "_").split("_"))


def is_array(value: Any) -> bool:
    """Whether it is an array of NumPy's or a tensor."""
    return isinstance(value, np.ndarray) or (hasattr(value, "shape") and hasattr(value, "layout"))


def numbers_in(entries: Mapping[Any, Any]) -> int:
    """How many numbers the arrays of a dict have together."""
    return sum(int(np.prod(value.shape, dtype=object)) for value in entries.values() if is_array(value))


def places(content: Any) -> Iterator[Place]:
    """Every dict in the content that holds arrays, and is reached by names alone.

    So an optimiser's arrays are none: it keeps them by number.
    """
    waiting: list[tuple[str, Any, int]] = [("", content, 0)]
    for name, entries, depth in waiting:  # grows as it is gone through: what is higher up comes first
        if not isinstance(entries, Mapping):
            continue
        if any(isinstance(key, str) and is_array(value) for key, value in entries.items()):
            yield Place(name, entries, numbers_in(entries))
        for key, value in entries.items():
            if isinstance(key, str) and isinstance(value, Mapping) and depth < DEEPEST and len(waiting) < MOST:
                waiting.append((f"{name}.{key}" if name else key, value, depth + 1))


def chosen(content: Any, under: str | None) -> tuple[Place, list[str]]:
    """The weights in the content, and the names of the other places that could have been taken.

    Of several those with most numbers are taken, an average over the training only if there is nothing else.

    Raises
    ------
    ValueError
        If there are none, or none under that name. The message lists what there is.
    """
    found = list(places(content))
    names = [place.name for place in found]
    if under is not None:
        for place in found:
            if place.name == under:
                return place, [name for name in names if name != under]
        raise ValueError(f"under: expected a name of what holds weights, {text_of(names)}, got {under!r}")
    if not found:
        raise ValueError(f"no weights were found in it: {overview(content)}")
    best = max(found, key=lambda place: (not place.averaged, place.numbers))
    others = [place.name for place in found if place is not best and comparable(place, best)]
    return best, others


def comparable(place: Place, best: Place) -> bool:
    """Whether it might have been meant as well: not a counter beside the weights."""
    return place.numbers * 100 >= best.numbers


def text_of(names: list[str]) -> str:
    """The names, for a message."""
    return " or ".join(repr(shown(name)) for name in names[:8]) or "of which there is none"


def overview(content: Any) -> str:
    """What a file holds at the top, for a message."""
    if not isinstance(content, Mapping):
        return f"expected a dict of tensors, got {type(content).__name__}"
    parts = [f"{shown(str(key), 60)} ({type(value).__name__})" for key, value in list(content.items())[:12]]
    more = f" and {len(content) - 12} more" if len(content) > 12 else ""
    return f"its top-level keys are {', '.join(parts)}{more}" if parts else "it is an empty dict"
