"""What the gradient checker found, as a table and as an error."""

from __future__ import annotations

from dataclasses import dataclass


class GradcheckError(AssertionError):
    """A gradient is wrong. The text says which, where, by how much and, where it can tell, why."""

    def __init__(self, report: GradcheckReport) -> None:
        super().__init__(report.message())
        self.report = report


@dataclass(frozen=True)
class Row:
    """One input or parameter.

    Attributes
    ----------
    name, shape
        Which it is.
    method
        "complex step" or "differences".
    checked
        Which entries or directions, in words.
    error
        The worst |analytic − numeric|, relative to the largest numeric entry (None if nothing was compared).
    kinks
        How many entries lie on a kink and within its one-sided derivatives.
    meeting
        How many lie where several kinks meet, and are bounded only by the derivatives beside them.
    wrong
        What is wrong, in words; empty if nothing is.
    cause
        The likely cause; empty if there is no guess.
    """

    name: str
    shape: tuple[int, ...]
    method: str
    checked: str
    error: float | None
    kinks: int = 0
    meeting: int = 0
    wrong: str = ""
    cause: str = ""

    @property
    def verdict(self) -> str:
        """ "ok", "WRONG", or "-" where the backward gives no gradient and so there is nothing to check."""
        if self.wrong:
            return "WRONG"
        return "-" if self.error is None else "ok"


@dataclass(frozen=True)
class GradcheckReport:
    """What `npattn.gradcheck` found: true if everything is right, and a table when printed.

    Attributes
    ----------
    target
        What was checked.
    rows
        A `Row` for every input and parameter.
    problems
        What is wrong beside the numbers: something mutated, shared memory, NaN, …
    notes
        How it was checked, where that needs saying: kinks, directions and how sure they make it.
    """

    target: str
    rows: tuple[Row, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no row is wrong and there is no problem."""
        return not self.problems and not any(row.wrong for row in self.rows)

    def __bool__(self) -> bool:
        return self.passed

    def message(self) -> str:
        """What is wrong, in words: the text of `GradcheckError`. Empty if nothing is."""
        found = [f"{row.name}: {row.wrong}" + (f"\n  likely cause: {row.cause}" if row.cause else "")
                 for row in self.rows if row.wrong]  # fmt: skip
        return "" if self.passed else "\n".join([f"{self.target}: the gradient check failed", *found, *self.problems])

    def __str__(self) -> str:
        head = ("name", "shape", "method", "checked", "worst error", "verdict")
        body = [
            (row.name, str(row.shape), row.method, row.checked,
             "" if row.error is None else f"{row.error:.1e}", row.verdict)
            for row in self.rows
        ]  # fmt: skip
        widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                 for line in [head, *body]]  # fmt: skip
        verdict = "passed" if self.passed else "FAILED"
        return "\n".join([f"{self.target}: {verdict}", *table, *self.notes, *self.message().split("\n")[1:]])
