"""What an ablation trains, and with which settings."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from npattn.arguments import did_you_mean, explained
from npattn.blocks import blocks, canonical, folded
from npattn.checks import shown, whole_number


class AblationError(Exception):
    """An ablation cannot start or go on. The message says why."""


class Row(NamedTuple):
    """One network to train: what it is called, what it is compared for, and what is in it."""

    name: str
    group: str
    what: str
    attention: str
    model: str = "digits"


BASELINES = {"digits": "none", "se-resnet": "resnet"}  # what a row is compared with, by its network


@functools.cache
def rows() -> tuple[Row, ...]:
    """All that is trained, in the order of the table: no attention, every block that is in a group, residual units."""
    found = [
        Row("none", "blocks", "no attention", "none"),
        Row("conv", "wrong structures", "a 3×3 convolution", "conv"),
    ]
    found += [Row(entry.name, entry.group, entry.what, entry.name) for entry in blocks().values() if entry.group]
    found += [
        Row("resnet", "residual units", "the residual network, no attention", "none", "se-resnet"),
        Row("se-resnet", "residual units", "SE at the end of each branch", "se", "se-resnet"),
    ]
    groups = list(dict.fromkeys(row.group for row in found))
    return tuple(sorted(found, key=lambda row: groups.index(row.group)))


@explained
@dataclass(frozen=True)
class Settings:
    """What every training of an ablation has in common.

    Attributes
    ----------
    digits
        How many of the training digits are used, the first ones; 2 to 60,000.
    epochs
        Passes over them, 1 to 1,000,000.
    batch_size
        Digits a step, 2 to 60,000.
    test_digits
        How many of the test digits are classified at the end, the first ones; 1 to 10,000.

    Raises
    ------
    TypeError, ValueError
        If a value is outside its range.
    """

    digits: int = 2000
    epochs: int = 5
    batch_size: int = 64
    test_digits: int = 10_000

    def __post_init__(self) -> None:
        for name, least, most in (
            ("digits", 2, 60_000), ("epochs", 1, 10**6), ("batch_size", 2, 60_000), ("test_digits", 1, 10_000),
        ):  # fmt: skip
            number = whole_number(name, getattr(self, name), least, most)
            object.__setattr__(self, name, number)  # a plain one, which a file can hold


def chosen(names: Sequence[str] | None) -> tuple[Row, ...]:
    """The rows of these names or groups, in the table's order; None takes all. Raises AblationError, TypeError."""
    if names is None:
        return rows()
    if isinstance(names, str | bytes) or not isinstance(names, Sequence):
        raise TypeError(f"only: expected a list of names, or None, got {shown(names)}")
    for i, name in enumerate(names):
        if not isinstance(name, str):
            raise TypeError(f"only[{i}]: expected a name, got {shown(name)}")
    if not names:
        raise AblationError("only: expected at least one name, or None for all, got none")
    unknown = [name for name in names if meant(name) is None]
    if unknown:
        listed = "; ".join(known().values())
        near = did_you_mean(unknown[0], known().values())
        raise AblationError(f"only: expected rows or groups of them ({listed}), got {', '.join(unknown)}{near}")
    wanted = {meant(name) for name in names}
    return tuple(row for row in rows() if row.name in wanted or row.group in wanted)


@functools.cache
def known() -> dict[str, str]:
    """The groups and the rows, by their folded names; a group has it before a row."""
    names = [row.group for row in rows()] + [row.name for row in rows()]
    return {folded(name): name for name in dict.fromkeys(names)}


def meant(name: str) -> str | None:
    """The row or the group that a name in any spelling stands for, or None."""
    return known().get(folded(name)) or known().get(folded(canonical(name)))
