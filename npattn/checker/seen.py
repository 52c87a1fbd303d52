"""Which entries of each gradient the check has seen different from 0, and how to say which it has not.

Single entries are often 0: all that win no maximum. What must not stay so is a whole slice: a tensor, an image, a row
or a column of a matrix, an entry of a vector. That is where a path is dead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FARTHEST = 10_000
"""By how many times its own size a tensor is changed, at most, to see whether y hangs on it."""


class Seen:
    """For each tensor, masks of what was different from 0 at some point, on one side at least; and of what cannot be.

    Attributes
    ----------
    masks
        What was different from 0.
    idle
        What has no influence on y, so that 0 is right.
    at_points
        At how many points each tensor was looked at.
    hidden
        Below which number a gradient that was no plain 0 could not be told from it; 0 where none was.
    """

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self.masks = {name: np.zeros(shape, dtype=bool) for name, shape in shapes.items()}
        self.idle = {name: np.zeros(shape, dtype=bool) for name, shape in shapes.items()}
        self.at_points = dict.fromkeys(shapes, 0)
        self.hidden = dict.fromkeys(shapes, 0.0)

    def add(self, name: str, mask: np.ndarray) -> None:
        self.masks[name] |= mask.reshape(self.masks[name].shape)
        self.at_points[name] += 1

    @property
    def count(self) -> int:
        """How many entries were different from 0 somewhere."""
        return sum(int(np.sum(mask)) for mask in self.masks.values())

    @property
    def left(self) -> list[str]:
        """The tensors with a slice that was always 0, and might not be."""
        return [name for name in self.masks if slices(self.never(name))]

    def never(self, name: str) -> np.ndarray:
        """What was always 0, and might not be."""
        return np.asarray(~self.masks[name] & ~self.idle[name])

    def untested(self, name: str) -> str:
        """Which slices of a tensor were always 0, in words."""
        mask = self.never(name)
        points = self.at_points[name]
        if self.hidden[name]:
            return f"no number of it is beyond what the rounding of y hides, {self.hidden[name]:.0e}"
        where = "at the one point looked at" if points == 1 else f"at all {points} points"
        return f"{words(mask)} 0 on both sides {where}"

    def without_influence(self, name: str) -> str:
        """Which have no influence, in words; empty if there are none."""
        mask = self.idle[name]
        if not np.any(mask):
            return ""
        return (
            f"{name}: no influence on y was seen, by changes of up to {FARTHEST:,} times its size: {words(mask)} 0 on "
            "both sides, which is right then"
        )


def slices(mask: np.ndarray) -> list[np.ndarray]:
    """Masks of the single slices, along any axis, in which a mask is true throughout."""
    found = []
    for axis, full in enumerate(along_axes(mask)):
        for i in full:
            one = np.zeros_like(mask)
            one[(slice(None),) * axis + (i,)] = True
            found.append(one)
    return [mask] if mask.size and (np.all(mask) or (mask.ndim == 0 and bool(mask))) else found


def along_axes(mask: np.ndarray) -> list[list[int]]:
    """For each axis, at which of its places a mask is true throughout."""
    others = [tuple(i for i in range(mask.ndim) if i != axis) for axis in range(mask.ndim)]
    return [[int(i) for i in np.flatnonzero(np.all(mask, axis=rest))] if mask.size else [] for rest in others]


def words(mask: np.ndarray) -> str:
    """The slices in which a mask is true throughout, in words, with their verb."""
    if np.all(mask):
        return "the number is" if mask.size == 1 else f"all {mask.size} entries are"
    told = []
    for axis, full in enumerate(along_axes(mask)):
        if full:
            what = "entr" if mask.ndim == 1 else "slice"
            what += ("y", "ies")[len(full) > 1] if mask.ndim == 1 else "s" * (len(full) > 1)
            told.append(f"{what} {listed(full, 6)}" + (f" of axis {axis}" if mask.ndim > 1 else ""))
    many = len(told) > 1 or any(" " in one and "," in one for one in told)
    return " and ".join(told) + (" are" if many else " is")


def listed(items: Sequence[object], most: int) -> str:
    return ", ".join(map(str, items[:most])) + (", …" if len(items) > most else "")
