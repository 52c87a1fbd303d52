"""What was found of an answer, as the command prints it and as a page is given it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from npattn.checker.report import HEAD
from npattn.columns import table

SOLVED, WRONG, UNABLE, UNTESTED = range(4)
"""As the status of `npattn gradcheck`."""

NONE = "-"
"""The verdict on what has no gradient."""


@dataclass(frozen=True)
class Checked:
    """One input or parameter, in words, as a row of the table."""

    trial: str
    cells: tuple[str, ...]  # under `npattn.checker.report.HEAD`
    wrong: str  # what is wrong, with the worst entry; empty if nothing is
    cause: str  # the likely cause; empty if there is no guess
    passed: bool
    untested: bool = False

    @property
    def name(self) -> str:
        """Which input or parameter it is."""
        return self.cells[0]


@dataclass(frozen=True)
class Verdict:
    """What was found of an answer.

    Attributes
    ----------
    exercise
        Its name.
    status
        0 solved, 1 wrong, 2 it could not be run, 3 nothing is wrong and something was left untested.
    summary
        The outcome in a line.
    rows
        Every input and parameter, those that passed among them: they tell which part of the backward is wrong.
    problems
        What is wrong beside the numbers, and where to look.
    """

    exercise: str
    status: int
    summary: str
    rows: tuple[Checked, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def solved(self) -> bool:
        return self.status == SOLVED

    def as_dict(self) -> dict[str, Any]:
        """For a page: everything, and the table's head."""
        return {**asdict(self), "solved": self.solved, "head": HEAD}

    def __str__(self) -> str:
        lines = [f"{self.exercise}: {self.summary}"]
        for trial in dict.fromkeys(row.trial for row in self.rows):
            rows = [row for row in self.rows if row.trial == trial]
            lines += ["", trial, table(HEAD, [row.cells for row in rows])]
            for row in rows:
                lines += [f"{row.name}: {row.wrong}"] if row.wrong else []
                lines += [f"  likely cause: {row.cause}"] if row.cause else []
        return "\n".join([*lines, *([""] if self.problems and self.rows else []), *self.problems])
