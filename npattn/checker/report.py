"""What the gradient checker found, as a table and as an error."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from npattn.columns import table
from npattn.notebook import html_lines, html_table, html_text
from npattn.streams import width

LONG = 5.0  # seconds: nobody asks how long less took


HEAD = ("name", "shape", "method", "checked", "worst error", "verdict")


class GradcheckError(AssertionError):
    """A gradient is wrong, or nothing could be said of any. The text says which, where, by how much and why.

    Parameters
    ----------
    report
        What was found.

    Attributes
    ----------
    report
        The same.
    """

    def __init__(self, report: GradcheckReport) -> None:
        super().__init__(report.message())
        self.report = report


class UntestedWarning(UserWarning):
    """Nothing is wrong as far as was seen, and not everything was seen."""


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
        The worst |analytic − numeric|, relative to the largest entry of the gradient (None if nothing was compared).
    kinks
        How many entries lie on a kink and within its one-sided derivatives.
    meeting
        How many lie where several kinks meet, and are bounded only by the derivatives beside them.
    wrong
        What is wrong, in words; empty if nothing is.
    cause
        The likely cause; empty if there is no guess.
    untested
        Which of its entries were never different from 0, on neither side, in words; empty if all were.
    at
        Where it is wrong only at a point that the check drew: that point, name to array. Else None.
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
    untested: str = ""
    at: dict[str, np.ndarray] | None = field(default=None, repr=False, compare=False)

    @property
    def verdict(self) -> str:
        """ "ok", "untested", "WRONG", or "-" where the backward gives no gradient and so there is nothing to check."""
        if self.wrong:
            return "WRONG"
        if self.untested:
            return "untested"
        return "-" if self.error is None else "ok"


@dataclass(frozen=True, repr=False)
class GradcheckReport:
    """What `npattn.gradcheck` found: true if nothing is wrong, and a table when printed.

    Attributes
    ----------
    target
        What was checked.
    rows
        A `Row` for every input and parameter.
    problems
        What is wrong beside the numbers: not linear in dy, another gradient the second time, …
    notes
        How it was checked, where that needs saying: kinks, directions and how sure they make it.
    remarks
        What the house would not do, and what does not make it wrong: an input mutated, shared memory, another dtype,
        a parameter without any influence. With `strict=True` the house's rules are problems instead.
    hint
        Where to look, from which gradients are right and which are wrong; empty if that says nothing.
    no_verdict
        Why nothing could be judged, in words; empty if it could.
    points
        At how many points the check was made, the given one among them.
    seconds
        How long it took.
    """

    target: str
    rows: tuple[Row, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    hint: str = ""
    no_verdict: str = ""
    points: int = 1
    seconds: float = 0.0

    @property
    def wrong(self) -> bool:
        """Whether a row is wrong or there is a problem."""
        return bool(self.problems) or any(row.wrong for row in self.rows)

    @property
    def untested(self) -> tuple[str, ...]:
        """What the check has not seen, a line for each tensor: entries that were never different from 0."""
        if self.no_verdict:
            return (self.no_verdict,)
        return tuple(f"{row.name}: untested: {row.untested}" for row in self.rows if row.verdict == "untested")

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong and there is a verdict at all. See `untested` for what the check has not seen."""
        return not self.wrong and not self.no_verdict

    @property
    def status(self) -> int:
        """The exit status of a command: 0 right, remarks included; 1 wrong; 3 if something was left untested."""
        return 1 if self.wrong else 3 if self.untested else 0

    def __bool__(self) -> bool:
        return self.passed

    @property
    def summary(self) -> str:
        """The outcome in a line: passed, passed but …, untested in part, or FAILED."""
        if self.wrong:
            return "FAILED"
        if self.no_verdict:
            return f"no verdict: {self.no_verdict}"
        names = [row.name for row in self.rows if row.verdict == "untested"]
        told = [f"untested in {', '.join(names)}"] if names else []
        if self.remarks:
            told.append(f"{len(self.remarks)} remark" + "s" * (len(self.remarks) > 1))
        return ", ".join([("nothing wrong, but " + told.pop(0)) if names else "passed", *told])

    def message(self) -> str:
        """What is wrong, in words, and the remarks: the text of `GradcheckError`. Empty if it passed."""
        if self.passed:
            return ""
        if self.no_verdict and not self.wrong:
            return "\n".join([f"{self.target}: {self.summary}", *self._told_remarks])
        return "\n".join([f"{self.target}: the gradient check failed", *self._wrong, *self._told_remarks])

    @property
    def _wrong(self) -> list[str]:
        """What is wrong, in lines."""
        found = [f"{row.name}: {row.wrong}" + (f"\n  likely cause: {row.cause}" if row.cause else "")
                 for row in self.rows if row.wrong]  # fmt: skip
        lines = [*([self.hint] if self.hint else []), *found, *self.problems] if self.wrong else []
        return "\n".join(lines).split("\n") if lines else []

    @property
    def _told_remarks(self) -> list[str]:
        return [f"remark: {remark}" for remark in self.remarks]

    def __repr__(self) -> str:
        return str(self)

    def cells(self) -> list[tuple[str, ...]]:
        """The rows in words."""
        return [
            (row.name, str(row.shape), row.method, row.checked,
             "" if row.error is None else f"{row.error:.1e}", row.verdict)
            for row in self.rows
        ]  # fmt: skip

    def _repr_html_(self) -> str:
        if self.no_verdict and not self.wrong:
            return html_lines([str(self)])
        told = [*self.notes, *self._told_remarks, *self.untested]
        wrong = "\n".join(self._wrong)
        head = html_lines([f"{self.target}: {self.summary}"]) + html_table(HEAD, self.cells())
        return head + html_lines(told) + (html_text(wrong) if wrong else "")

    def __str__(self) -> str:
        lines = [f"{self.target}: {self.summary}"]
        if self.no_verdict and not self.wrong:
            return lines[0]
        lines.append(table(HEAD, self.cells(), width()))
        if self.seconds >= LONG:
            lines.append(f"checked at {self.points} point{'s' * (self.points > 1)} in {self.seconds:.1f} s")
        return "\n".join([*lines, *self.notes, *self._told_remarks, *self.untested, *self._wrong])
