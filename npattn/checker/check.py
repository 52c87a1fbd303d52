"""The check itself. The rule is told in the package's docstring; the numbers in brackets are its points."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from npattn.checker.arguments import Settings
from npattn.checker.begin import Found, begin
from npattn.checker.compare import Comparison, Refused
from npattn.checker.explain import explained, where_to_look
from npattn.checker.influence import idle
from npattn.checker.points import FREE, NEAR, WIDE, WITHIN, at, drawn
from npattn.checker.precision import in_steps
from npattn.checker.report import GradcheckReport, Row
from npattn.checker.reuse import used_twice
from npattn.checker.seen import Seen
from npattn.checker.shown import Shown
from npattn.checker.single import Single
from npattn.checker.state import Arrays, Start
from npattn.checker.target import Target
from npattn.checker.ties import together
from npattn.checker.verdict import Verdict
from npattn.columns import counted

MORE = 8  # times as many points as asked for, at most, while they show something new


def report_on(form: Target, how: Settings) -> GradcheckReport:
    """What `npattn.gradcheck` does with a target, without the raising; its docstring tells of the arguments."""
    began = time.perf_counter()
    rng = np.random.default_rng(how.seed)
    form = Single(form) if how.single else form
    found = begin(form, rng, how)
    if found.start is not None and not how.single:
        found.no_verdict = in_steps(found.start)
    shown = Shown(sum(min(value.size, how.entries) + how.points - 1 for value in form.values.values()), how.progress)
    check = Check(found, form.values, how, rng, shown)
    try:
        if found.start is not None and not found.no_verdict:
            check.here(Comparison(found.start, rng, how, shown))
            if not check.wrong:
                check.elsewhere()
    except Refused as refused:
        found.no_verdict = str(refused)
    finally:
        shown.close()
    rows = check.told()
    wrong = any(row.wrong for row in rows) or bool(found.problems)
    twice = used_twice(form) if wrong and how.causes else ""
    if twice:
        rows = [replace(row, cause=twice) if row.wrong else row for row in rows]
        if not any(row.wrong for row in rows):
            found.problems.append(f"  likely cause: {twice}")
    notes = (*form.notes, *check.notes)
    remarks = (*found.remarks, *check.remarks)
    return GradcheckReport(
        form.name, tuple(rows), tuple(found.problems), notes, remarks, where_to_look(rows), found.no_verdict,
        check.points, time.perf_counter() - began,
    )  # fmt: skip


class Check:
    """A check under way: the rows so far, and what has been seen different from 0."""

    def __init__(
        self, found: Found, values: Arrays, how: Settings, rng: np.random.Generator, shown: Shown
    ) -> None:  # fmt: skip
        self.found, self.values, self.how, self.rng, self.shown = found, values, how, rng, shown
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self.remarks: list[str] = []
        self.points = 1
        start = found.start
        self.seen = Seen({name: start.values[name].shape for name in start.gradients} if start else {})

    @property
    def wrong(self) -> bool:
        """Whether a gradient is; what is only against the house's rules ends no check."""
        return bool(set(self.found.problems) - self.found.rules) or any(row.wrong for row in self.rows)

    def here(self, on: Comparison) -> None:
        """At the given point."""
        self.on = on
        self.notes += on.choose_method()
        values = on.start.values
        for name in values if self.how.causes else sorted(values, key=self.soonest):
            if self.wrong and not self.how.causes:
                break
            self.shown.now(name)
            row, notes, seen = checked(on, name, self.how)
            self.rows.append(row)
            self.notes += notes
            if seen is not None:
                self.seen.add(name, seen)
                if not np.any(seen):
                    self.seen.hidden[name] = on.hidden(name)

    def soonest(self, name: str) -> tuple[bool, int]:
        """Orders the tensors by how soon one of them will be found wrong: by a direction first, then by size."""
        g = self.on.start.gradients.get(name)
        seems = g is not None and g.size > 0 and bool(self.on.judge(name, self.on.gaussian(g.shape, 1)).wrong.any())
        return not seems, self.on.start.values[name].size

    def elsewhere(self) -> None:
        """At points drawn anew: as many as were asked for; more while something was always 0, and they show more."""
        assert self.found.start is not None
        given, left_out = self.found.start, []
        ways = self.ways()
        freed: dict[str, np.ndarray] = {}
        asked = self.how.points
        gained = 0  # the last point that has shown something new
        for k in range(1, MORE * asked if asked > 1 else 1):
            if k == asked:
                self.find_idle(given)
            if k >= asked:
                if not self.seen.left or k > max(gained, asked) + asked:
                    break
                freed = {name: self.seen.never(name) for name in self.seen.left}
            way, before = next(ways), self.seen.count
            moving = {name: given.values[name] for name in given.gradients}  # what has no gradient is a constant
            start = at(given, {**given.values, **drawn(moving, way, self.rng, freed)}, self.rng)
            if isinstance(start, str):
                left_out.append(start)
                ways = self.ways(careful=len(left_out) > 1)
                continue
            self.points += 1
            self.found.against_the_rules(start.broken, self.how.strict)
            self.shown.now(f"point {self.points}")
            on = Comparison(start, self.rng, self.how, self.shown)
            on.complex = self.on.complex
            for i, row in enumerate(self.rows):
                with contextlib.suppress(Refused):  # at the edge of what it takes
                    if row.name in start.gradients:
                        self.rows[i] = self.there(on, row)
                    elif row.name in start.faults:
                        self.rows[i] = self.faulty_there(on, row)
            if self.seen.count > before:
                gained = k
            if self.wrong:
                break
        if left_out:
            self.notes.append(
                f"{len(left_out)} of {len(left_out) + self.points - 1} points drawn anew left out: {left_out[0]}"
            )

    @staticmethod
    def ways(careful: bool = False) -> Iterator[str]:
        """How to draw the next points; carefully where the forward has refused some."""
        while True:
            yield from (NEAR, WITHIN) if careful else (FREE, WITHIN, *WIDE)

    def there(self, on: Comparison, row: Row) -> Row:
        """The row after a look at a point drawn anew: along one random direction, by entries where that is wrong."""
        name = row.name
        g = on.start.gradients[name]
        if not g.size:
            return row
        along = on.judge(name, on.gaussian(g.shape, 1))
        if along.wrong.any() and not along.kink.any():
            along = on.compare(name, on.gaussian(g.shape, 2))
        if along.kink.any() or not np.all(np.isfinite(along.error)):
            return row  # on a kink a direction bounds little; the given point is where kinks are judged
        seen = on.lit(name, along)
        if not along.wrong.any():
            self.seen.add(name, seen)
            worst = along.worst if np.any(seen) else 0.0
            return replace(row, error=max(row.error or 0.0, worst))
        there, _, _ = entries_after(on, name, along, self.how)
        if not there.wrong:
            return row
        return replace(
            there, checked=row.checked, wrong=f"at a point drawn anew ({self.points - 1}): {there.wrong}",
            at=on.start.values,
        )  # fmt: skip

    def faulty_there(self, on: Comparison, row: Row) -> Row:
        """The row where the gradient at a point drawn anew cannot be compared: wrong, if there is a derivative."""
        (along,) = on.gaussian(on.start.values[row.name].shape, 1)
        numeric = on.slope(row.name, along)
        if numeric.kink or not numeric.error <= 1e-3 * (abs(numeric.low) + abs(numeric.high)):
            self.notes.append(f"{row.name}: not compared at a point drawn anew: {on.start.faults[row.name]}")
            return row
        fault = f"at a point drawn anew ({self.points - 1}), where y has a derivative: {on.start.faults[row.name]}"
        return replace(row, wrong=fault, at=on.start.values)

    def told(self) -> list[Row]:
        """The rows, with what stayed untested; what has no influence becomes a remark."""
        if self.found.no_verdict:
            return [Row(name, value.shape, "", "", None, untested="no verdict") for name, value in self.values.items()]
        if not self.seen.count:  # y hangs on nothing at all, which nobody means
            self.seen.idle = {name: np.zeros_like(mask) for name, mask in self.seen.idle.items()}
        self.remarks += filter(None, map(self.seen.without_influence, self.seen.masks))
        left = self.seen.left
        return [
            replace(row, untested=row.untested or self.seen.untested(row.name))
            if row.name in left and not row.wrong
            else row
            for row in self.rows
        ]

    def find_idle(self, given: Start) -> None:
        """Of what was always 0, what has no influence at all."""
        for name in self.seen.left:
            self.seen.idle[name] = idle(given, name, self.seen, self.rng)


def checked(on: Comparison, name: str, how: Settings) -> tuple[Row, list[str], np.ndarray | None]:
    """The row of one tensor, notes, and what was seen of it [2]."""
    value = on.start.values[name]
    if name in on.start.faults:
        return Row(name, value.shape, "", "", None, wrong=on.start.faults[name]), [], None
    if name not in on.start.gradients:
        return Row(name, value.shape, "", "no gradient given", None), [], None
    if value.size <= (how.entries if on.complex else max(1, how.entries // 10)):
        found, notes = by_entries(on, name, np.arange(value.size))
        return (
            found.row(
                name, value.shape, on.method, "its one entry" if value.size == 1 else f"all {value.size} entries"
            ),
            notes,
            found.seen,
        )

    along = on.compare(name, on.gaussian(value.shape, how.directions))
    note = f"{name}: {sureness(along)}"
    if not along.wrong.any() and not along.kink.any():
        seen = on.lit(name, along)
        error = along.worst if np.any(seen) else 0.0
        words = f"{how.directions} directions"
        return Row(name, value.shape, on.method, words, error, untested=along.too_coarse), [note], seen
    row, notes, seen = entries_after(on, name, along, how)
    return row, [note, *notes], seen


def entries_after(on: Comparison, name: str, along: Verdict, how: Settings) -> tuple[Row, list[str], np.ndarray]:
    """Entries of a tensor for which directions were not enough: all of a small one, some of a large one."""
    size, shape = on.start.values[name].size, on.start.values[name].shape
    count = len(along.analytic)
    some = min(size, 400)
    chosen = np.arange(size) if size <= how.entries else on.rng.choice(size, some, replace=False)
    if size > how.entries:  # entries of one value may be tied, which a few entries drawn at random would miss
        values, where, times = np.unique(on.start.values[name], return_inverse=True, return_counts=True)
        alike = np.flatnonzero((times[where.reshape(-1)] > 1) & (values[where.reshape(-1)] != 0))
        chosen = np.union1d(chosen, on.rng.permutation(alike)[:some])
    if along.wrong.any():
        chosen = np.union1d(chosen, halving(on, name))
    chosen = np.sort(chosen)
    found, notes = by_entries(on, name, chosen)
    error, wrong = found.error, found.wrong
    if along.wrong.any() and not wrong:
        worst = int(np.argmax(along.excess))
        error = max(error, along.worst)
        wrong = (
            f"wrong along {int(along.wrong.sum())} of {count} random directions (analytic "
            f"{along.analytic[worst]:.9g}, numeric {along.numeric[worst]:.9g}), at none of the {len(chosen)} entries "
            "looked at"
        )
    words = f"{counted(count, 'direction')}, {len(chosen)} of {size} entries"
    seen = on.lit(name, along).reshape(-1)
    seen[chosen] |= found.seen
    return found._replace(error=error, wrong=wrong).row(name, shape, on.method, words), notes, seen


class ByEntries(NamedTuple):
    """What looking at entries has shown."""

    error: float
    kinks: int
    meeting: int
    wrong: str
    cause: str
    too_coarse: str
    seen: np.ndarray

    def row(self, name: str, shape: tuple[int, ...], method: str, words: str) -> Row:
        return Row(
            name, shape, method, words, self.error, self.kinks, self.meeting, self.wrong, self.cause,
            "" if self.wrong else self.too_coarse,
        )  # fmt: skip


def by_entries(on: Comparison, name: str, chosen: np.ndarray) -> tuple[ByEntries, list[str]]:
    """Check these entries one by one, and those at kinks together."""
    verdict = on.compare(name, [int(i) for i in chosen])
    kinks = int(np.sum(verdict.kink & ~verdict.wrong & ~verdict.meeting))
    meeting = int(np.sum(verdict.meeting))
    wrong, cause, notes = "", "", []
    if verdict.wrong.any():
        wrong, cause = explained(on, name, chosen, verdict, on.how.causes)
    elif kinks + meeting > 1:
        complete = len(chosen) == on.start.values[name].size
        wrong, cause = together(on, name, chosen[verdict.kink] if complete else None)
    if kinks:
        some = counted(kinks, "entry", "entries")
        notes.append(f"{name}: {some} at a kink, skipped but for the one-sided derivatives, which hold")
    if meeting:
        some = counted(meeting, "entry", "entries")
        notes.append(f"{name}: {some} where several kinks meet, skipped but for a bound from points beside")
    return ByEntries(verdict.worst, kinks, meeting, wrong, cause, verdict.too_coarse, verdict.seen), notes


def halving(on: Comparison, name: str) -> np.ndarray:
    """One wrong entry, found by looking into the half that is further off."""
    shape, g = on.start.values[name].shape, on.start.gradients[name]
    inside = np.arange(g.size)
    while len(inside) > 1:
        halves = []
        for half in np.array_split(inside, 2):
            v = np.zeros(shape)
            v.reshape(-1)[half] = on.rng.standard_normal(len(half))
            halves.append((abs(float(np.sum(g * v)) - on.slope(name, v).middle), half))
        inside = max(halves, key=lambda pair: pair[0])[1]
    return inside


def sureness(along: Verdict) -> str:
    """How improbable it is that a wrong gradient has passed: ⟨error, v⟩ is Gaussian, and was small each time [2]."""
    odds = 0.8 * float(np.max(along.tolerance)) / (1e-5 * along.scale) if along.scale else 1.0
    count = len(along.analytic)
    if odds >= 1 or along.kink.any():
        return f"{count} random directions say little here (kinks, or a gradient near 0)"
    return (
        f"{count} random directions; a gradient that is off by 1e-5 of its norm would pass them with probability "
        f"{odds**count:.0e}"
    )
