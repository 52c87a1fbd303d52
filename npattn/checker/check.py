"""The check itself. The rule is told in the package's docstring; the numbers in brackets are its points."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npattn.checker.causes import Facts, likely_cause
from npattn.checker.compare import Comparison, Verdict
from npattn.checker.report import GradcheckReport, Row
from npattn.checker.state import begin
from npattn.checker.target import Target


def report_on(
    form: Target, *, seed: int, rtol: float, atol: float, entries: int, directions: int,
    allow_sharing: bool,
) -> GradcheckReport:  # fmt: skip
    """What `npattn.gradcheck` does with a target, without the raising; its docstring tells of the arguments."""
    rng = np.random.default_rng(seed)
    start, problems = begin(form, rng, allow_sharing)
    rows: list[Row] = []
    notes: list[str] = []
    if start is not None:
        comparison = Comparison(start, rng, rtol, atol)
        notes = comparison.choose_method()
        for name in start.values:
            row, more = checked(comparison, name, entries, directions)
            rows.append(row)
            notes += more
    return GradcheckReport(form.name, tuple(rows), tuple(problems), (*form.notes, *notes))


def checked(on: Comparison, name: str, entries: int, directions: int) -> tuple[Row, list[str]]:
    """The row of one tensor, and notes [2]."""
    value = on.start.values[name]
    if name in on.start.faults:
        return Row(name, value.shape, "", "", None, wrong=on.start.faults[name]), []
    if name not in on.start.gradients:
        return Row(name, value.shape, "", "no gradient given", None), []
    if value.size <= entries:
        row, notes = by_entries(on, name, np.arange(value.size))
        return Row(name, value.shape, on.method, f"all {value.size} entries", *row), notes

    along = on.compare(name, on.gaussian(value.shape, directions))
    note = f"{name}: {sureness(along)}"
    words = f"{directions} directions"
    if not along.wrong.any() and not along.kink.any():
        return Row(name, value.shape, on.method, words, along.worst), [note]
    chosen = on.rng.choice(value.size, min(value.size, 400), replace=False)
    if along.wrong.any():
        chosen = np.union1d(chosen, halving(on, name))
    row, notes = by_entries(on, name, np.sort(chosen))
    if along.wrong.any() and not row.wrong:
        worst = int(np.argmax(along.excess))
        row = row._replace(
            error=max(row.error, along.worst),
            wrong=f"wrong along {int(along.wrong.sum())} of {directions} random directions (analytic "
            f"{along.analytic[worst]:.9g}, numeric {along.numeric[worst]:.9g}), at none of the {len(chosen)} entries "
            "looked at",
        )
    return Row(name, value.shape, on.method, f"{words}, {len(chosen)} of {value.size} entries", *row), [note, *notes]


class Found(NamedTuple):
    """The last fields of a `Row`."""

    error: float
    kinks: int
    meeting: int
    wrong: str
    cause: str


def by_entries(on: Comparison, name: str, chosen: np.ndarray) -> tuple[Found, list[str]]:
    """Check these entries one by one, and those at kinks together."""
    verdict = on.compare(name, [int(i) for i in chosen])
    kinks = int(np.sum(verdict.kink & ~verdict.wrong & ~verdict.meeting))
    meeting = int(np.sum(verdict.meeting))
    wrong, cause, notes = "", "", []
    if verdict.wrong.any():
        wrong, cause = explained(on, name, chosen, verdict)
    elif kinks + meeting > 1:
        complete = len(chosen) == on.start.values[name].size
        wrong, cause = together(on, name, chosen[verdict.kink] if complete else None)
    if kinks:
        notes.append(f"{name}: {kinks} entries at a kink, skipped but for their one-sided derivatives, which hold")
    if meeting:
        notes.append(f"{name}: {meeting} entries where several kinks meet, skipped but for a bound from points beside")
    return Found(verdict.worst, kinks, meeting, wrong, cause), notes


def together(on: Comparison, name: str, at_kink: np.ndarray | None) -> tuple[str, str]:
    """All entries at kinks moved by the same: a tied maximum is smooth along that, whoever wins [4].

    Where not all of them are known, None, the whole tensor is moved.
    """
    v = np.zeros(on.start.values[name].shape)
    v.reshape(-1)[slice(None) if at_kink is None else at_kink] = 1
    verdict = on.compare(name, [v])
    a, n = verdict.analytic[0], verdict.numeric[0]
    gross = 1e-4 * float(np.sum(np.abs(on.start.gradients[name] * v)))  # a mistake of this kind is no small one
    if not verdict.wrong.any() or abs(a - n) <= gross:
        return "", ""
    which = "all entries" if at_kink is None else f"the {len(at_kink)} entries at kinks"
    return (
        f"with {which} moved together, analytic {a:.9g}, numeric {n:.9g}, error {abs(a - n):.3g}",
        "a gradient on all ties, where one of them should get it",
    )


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


def explained(on: Comparison, name: str, chosen: np.ndarray, verdict: Verdict) -> tuple[str, str]:
    """What is wrong with these entries, and the likely cause."""
    shape = on.start.values[name].shape
    complete = len(chosen) == on.start.values[name].size
    worst = int(np.argmax(verdict.excess))
    index = [int(i) for i in np.unravel_index(int(chosen[worst]), shape)]
    a, n = verdict.analytic[worst], verdict.numeric[worst]
    if not np.isfinite(verdict.error[worst]):
        against = "no numeric derivative, since y is not finite nearby"
    elif verdict.kink[worst]:
        against = f"one-sided derivatives {verdict.low[worst]:.9g} to {verdict.high[worst]:.9g}"
    else:
        against = f"numeric {n:.9g}, error {abs(a - n):.3g}"
    count = f"{int(verdict.wrong.sum())} of {len(chosen)} entries " + ("are" if complete else "looked at are")
    wrong = f"{count} wrong, the worst at {index}: analytic {a:.9g}, {against}"
    if not np.all(np.isfinite(verdict.numeric)):
        return wrong, ""

    start = on.start
    form = shape if complete else (len(chosen),)

    def part(array: np.ndarray | None) -> np.ndarray | None:
        """The chosen entries of an array that has the tensor's shape."""
        return None if array is None or array.shape != shape else np.asarray(array.reshape(-1)[chosen]).reshape(form)

    def one_image(image: int) -> np.ndarray | None:
        dy = np.zeros_like(start.dy)
        dy[image] = start.dy[image]
        return np.array([on.slope(name, int(i), dy).middle for i in chosen]).reshape(form)

    value, y, earlier = part(start.values[name]), part(start.y), part(start.earlier.get(name))
    direct = None if value is None or y is None or not np.all(value) else part(start.dy) * y / value
    images = start.dy.shape[0] if start.dy.ndim > 1 else 0
    facts = Facts(direct, earlier, start.sizes, images, one_image)
    return wrong, likely_cause(verdict.analytic.reshape(form), verdict.numeric.reshape(form), facts)
