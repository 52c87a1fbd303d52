"""Attention modules in a whole network's state_dict: where they are, and where there nearly is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from npattn.arguments import explained
from npattn.backend import Array
from npattn.dialects.candidates import Candidate, candidates, different, rows, shapes_in, sharing
from npattn.dialects.keys import unwrapped
from npattn.dialects.table import COUNTER, Misfit, Module, fit

DEEPEST = 32  # dots in a prefix: a key of thousands of dots must not cost the square of them
FEW = 4  # entries too much, up to which something is still nearly a class


class Tree:
    """The entries below each prefix. A prefix is a key up to a dot, "layer1.0.cbam" say; "" is the whole."""

    def __init__(self, state: Mapping[str, Array]) -> None:
        self.most = max(len(row.keys) for row in rows()) + FEW
        self.below: dict[str, dict[str, Array]] = {"": {}}
        for key, value in unwrapped(state).items():
            parts = key.split(".")
            for i in range(min(len(parts), DEEPEST)):
                prefix = ".".join(parts[:i])
                if i and not prefix:
                    continue  # of a key that begins with a dot: "" is the whole
                entries = self.below.setdefault(prefix, {})
                if len(entries) <= self.most:  # one more than is looked at says as much as all
                    entries[".".join(parts[i:])] = value

    def of(self, prefix: str, row: Module) -> dict[str, Array]:
        """The entries at a prefix; of a class that stands among others those under its own names."""
        if not row.among:
            return self.below[prefix]
        found: dict[str, Array] = {}
        for top in sorted(row.tops):
            found |= {f"{top}.{key}": value for key, value in self.below.get(joined(prefix, top), {}).items()}
        return found

    def units(self, row: Module) -> Iterator[str]:
        """The prefixes below which all names of a class are that stands among others."""
        one = min(row.tops)
        for prefix in self.below:
            parent, _, last = prefix.rpartition(".")
            if last == one and all(joined(parent, top) in self.below for top in row.tops):
                yield parent


def joined(prefix: str, name: str) -> str:
    """The prefix of what has this name below a prefix."""
    return f"{prefix}.{name}" if prefix else name


def upwards(prefix: str) -> Iterator[str]:
    """The prefix itself and those above it, the whole included."""
    while prefix:
        yield prefix
        prefix = prefix.rpartition(".")[0]
    yield ""


@explained
def inside(state: Mapping[str, Array]) -> dict[str, list[Candidate]]:
    """The attention modules in a whole network's state_dict: the prefix of each, and what it can be.

    A prefix is a key up to a dot, "layer1.0.cbam" say; "" is the whole. Below one that fits, none is looked for. A
    class whose entries stand among those of a larger unit has the unit's prefix.

    Parameters
    ----------
    state
        Key to array, of any library; only the shapes are looked at.

    Returns
    -------
    dict of str to list of Candidate
        In the order of the keys.
    """
    return found_in(Tree(state))[0]


def found_in(tree: Tree) -> tuple[dict[str, list[Candidate]], set[str]]:
    """The modules, and the prefixes that they leave nothing of."""
    units: dict[str, list[Candidate]] = {}
    for row in rows():
        for prefix in tree.units(row) if row.among else ():
            mine = tree.of(prefix, row)
            units.setdefault(prefix, []).extend(c for c in candidates(mine, wrapped=False) if c.row is row)
    modules: dict[str, list[Candidate]] = {}
    closed: set[str] = set()
    for prefix, entries in tree.below.items():  # a prefix comes after those above it
        if not closed.isdisjoint(upwards(prefix)):
            continue
        whole = [candidate for candidate in candidates(entries, wrapped=False) if not candidate.row.among]
        fitting = different(whole + units.get(prefix, []))
        if fitting:
            modules[prefix] = fitting
            tops = frozenset[str]().union(*(candidate.row.tops for candidate in fitting))
            closed |= {prefix} if whole else {joined(prefix, top) for top in tops}
    return modules, closed


class Near(NamedTuple):
    """A prefix that nearly is of a class, and what is too much, missing or of another shape there."""

    prefix: str
    row: Module
    why: str
    share: float  # of the class's keys that are there


def nearest(state: Mapping[str, Array]) -> list[Near]:
    """Where in a network there nearly is a module, and which: at most one answer a prefix, the nearest first.

    At least two keys of the class are there, no more are missing, and few are too much. At a module and below it
    nothing is looked for, nor beside and above one that is a half.
    """
    tree = Tree(state)
    modules, closed = found_in(tree)
    settled = closed | {prefix.rpartition(".")[0] for prefix in halves_in(tree, modules)}
    found: dict[str, Near] = {}
    for prefix, entries in tree.below.items():
        if len(entries) > tree.most or not settled.isdisjoint(upwards(prefix)):
            continue
        nears = [nearly(prefix, row, entries) for row in sharing(entries, least=2)]
        best = max((near for near in nears if near), key=lambda near: near.share, default=None)
        if best and not any(higher in found for higher in upwards(prefix)):
            found[prefix] = best
    return sorted(found.values(), key=lambda near: -near.share)


def nearly(prefix: str, row: Module, entries: Mapping[str, Array]) -> Near | None:
    """What keeps these entries from being of the class, if they nearly are."""
    common = sum(key.theirs in entries for key in row.keys)
    missing = sum(key.theirs not in entries for key in row.keys if not key.only_with and key.ours != COUNTER)
    more = len(entries) - common
    if common < max(2, missing) or more > FEW:
        return None
    strict = row._replace(among=False)  # here what is beside its own entries is too much
    try:
        row.arguments(fit(strict, shapes_in(entries)))
    except Misfit as error:
        return Near(prefix, row, str(error), common / (common + missing + more))
    return None


def halves(state: Mapping[str, Array]) -> dict[str, str]:
    """Of modules that are one half of a known class only, what is the matter with the other half: by their prefix."""
    tree = Tree(state)
    return halves_in(tree, found_in(tree)[0])


def halves_in(tree: Tree, modules: Mapping[str, list[Candidate]]) -> dict[str, str]:
    """The same of the modules of a tree."""
    told = {}
    for prefix, fitting in modules.items():
        parent, _, name = prefix.rpartition(".")
        mine = {f"{name}.{key}" for key in tree.below[prefix]}
        dialects = {candidate.row.dialect for candidate in fitting}
        whole = [row for row in rows() if row.dialect in dialects and name in row.tops and len(row.tops) > 1]
        whole = [row for row in whole if mine <= {key.theirs for key in row.keys}]
        why = other_half(tree, parent, name, whole) if prefix else None
        if why:
            told[prefix] = why
    return told


def other_half(tree: Tree, parent: str, name: str, whole: list[Module]) -> str | None:
    """What is the matter with the other half of the classes that these entries are one half of."""
    nears = []
    for row in whole:
        there = [top for top in row.tops if joined(parent, top) in tree.below]
        entries = {f"{top}.{key}": v for top in there for key, v in tree.below[joined(parent, top)].items()}
        near = nearly(parent, row, entries)
        if near is not None and len(there) > 1:
            nears.append(near)
        elif len(there) > 1:
            return None  # it is there, and it fits
    if nears:
        best = max(nears, key=lambda near: near.share)
        other = min(best.row.tops - {name})
        return f"half of {best.row.title}, whose other half at {joined(parent, other)} does not fit: {best.why}"
    if whole:
        names = " or ".join(row.title for row in whole)
        return f"half of {names}: nothing is there under {joined(parent, min(whole[0].tops - {name}))}"
    return None
