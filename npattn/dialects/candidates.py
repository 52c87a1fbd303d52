"""Which classes of the table a state_dict's keys and shapes fit."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from npattn.backend import Array
from npattn.checks import true_or_false
from npattn.columns import counted
from npattn.dialects.keys import shown, unwrapped
from npattn.dialects.table import COUNTER, TABLE, Misfit, Module, fit


class Candidate(NamedTuple):
    """A class that a state_dict fits.

    `args` are the constructor's arguments that its shapes give; `row` is the class in the table.
    """

    row: Module
    args: dict[str, Any]

    def __repr__(self) -> str:
        used = f"; {self.row.used}" if self.row.used else ""
        return f"{self.row.title}({self.row.arguments_text(self.args)}): {self.row.returns}{used}"

    def placed(self, prefix: str) -> Candidate:
        """The same with the arguments that the class has at this place of its codebase's networks, if it is one."""
        place = self.row.place(prefix)
        return self if place is None else self._replace(args=self.args | place.args)


def rows() -> Iterator[Module]:
    """All classes of the table."""
    for modules in TABLE.values():
        yield from modules.values()


def shapes_in(state: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    """The shape of every entry."""
    return {key: tuple(getattr(value, "shape", ())) for key, value in state.items()}


def candidates(state: Mapping[str, Array], *, wrapped: bool = True) -> list[Candidate]:
    """Every class that the keys and shapes of `state` fit, those that compute the same included.

    Parameters
    ----------
    state
        Key to array, of any library; only the shapes are looked at.
    wrapped
        Whether a prefix such as `module.` on all keys is passed over.

    Returns
    -------
    list of Candidate
        The class and its arguments, in the order of `npattn.dialects.DIALECTS`.

    Raises
    ------
    TypeError
        If wrapped is no bool, or state no dict with keys of text.
    """
    shapes = shapes_in(unwrapped(state) if true_or_false("wrapped", wrapped) else state)
    fitting = []
    for row in possible(shapes):
        try:
            fitting.append(Candidate(row, row.arguments(fit(row, shapes))))
        except Misfit:
            continue
    return fitting


@functools.cache
def needs() -> list[tuple[Module, frozenset[str]]]:
    """Every class that has keys, and those that it never is without: also a key that it has in two forms."""
    found = []
    for row in rows():
        often = Counter(key.theirs for key in row.keys)
        needed = {k.theirs for k in row.keys if k.ours != COUNTER and (not k.only_with or often[k.theirs] > 1)}
        if row.keys:
            found.append((row, frozenset(needed)))
    return found


@functools.cache
def by_key() -> dict[str, list[Module]]:
    """The classes that have a key, by the key."""
    found: dict[str, list[Module]] = {}
    for row in rows():
        for key in row.keys:
            found.setdefault(key.theirs, []).append(row)
    return found


def sharing(state: Mapping[str, Any], least: int) -> list[Module]:
    """The classes that have at least so many keys in common with a state."""
    index, counts = by_key(), dict[str, int]()
    for key in state:
        for row in index.get(key, ()):
            counts[row.title] = counts.get(row.title, 0) + 1
    return [row for row in rows() if counts.get(row.title, 0) >= least] if counts else []


def possible(state: Mapping[str, Any]) -> list[Module]:
    """The classes whose keys are all there. A network has many prefixes, and nearly none is of any class."""
    if by_key().keys().isdisjoint(state):
        return []
    return [row for row, needed in needs() if needed <= state.keys()]


def different(fitting: list[Candidate]) -> list[Candidate]:
    """The candidates without those that compute the same as another of them."""
    titles = {candidate.row.title for candidate in fitting}
    return [candidate for candidate in fitting if candidate.row.same_as not in titles]


def misfits_text(state: Mapping[str, Array]) -> str:
    """What does not fit, a line for each class, those first that have most keys in common."""
    shapes = shapes_in(unwrapped(state))
    if not shapes:
        without = ", ".join(row.title for row in rows() if not row.keys)
        return f"it is empty, which tells nothing: nothing is kept by {without}"
    near, far = [], []
    for row in rows():
        try:
            row.arguments(fit(row, shapes))
        except Misfit as error:
            common = sum(key.theirs in shapes for key in row.keys)
            if common:
                near.append((-common / len(row.keys), f"  {row.title}: {error}"))
            else:
                far.append(row.title)
    lines = [line for _, line in sorted(near, key=lambda line: line[0])]
    if far:
        lines.append(f"  {', '.join(far)}: none of the keys is there")
    if len(shapes) == 1:
        lines.insert(0, f"  its only key is {shown(next(iter(shapes)))}")
    return "\n".join(
        [f"its {counted(len(shapes), 'key')} and shapes are those of no class that is spoken here:", *lines]
    )
