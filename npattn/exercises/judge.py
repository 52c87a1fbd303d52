"""What an answer is worth: its backward is checked against its own forward, which has to be the given one.

The command, the pages and the tests all ask here, and show the same texts.
"""

from __future__ import annotations

import linecache
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np

from npattn.checker import GradcheckReport, gradcheck
from npattn.exercises.exercise import Exercise
from npattn.exercises.forms import as_given
from npattn.exercises.gradients import expected, given_as, needless
from npattn.exercises.points import names_of, points_of
from npattn.exercises.trials import Trial
from npattn.exercises.verdict import NONE, SOLVED, UNABLE, UNTESTED, WRONG, Checked, Verdict

SOLVED_WORDS = "solved: every gradient is right"

ENTRIES, DIRECTIONS = 20, 4
"""A tensor with more numbers is compared along so many random directions first: what is right is told soon."""

FILE = "answer.py"
MARK = re.compile(r"^# exercise: ([\w.-]+)$", re.MULTILINE)


def judge(exercise: Exercise, source: str, file: str = FILE, points: int = 8) -> Verdict:
    """Run the text of an answer and check it.

    Parameters
    ----------
    exercise
        Which one it answers.
    source
        The whole text of the file, forward and backward.
    file
        Its name, for messages.
    points
        At how many points each check is made.

    Returns
    -------
    Verdict
        Whatever the text raises is told there.
    """
    try:
        written = run(source, file)
    except (Exception, SystemExit) as error:
        return unable(exercise, told(error, file))
    for name in ("forward", "backward"):
        if not callable(getattr(written, name, None)):
            return unable(exercise, f"expected a function {name}, got {vars(written).get(name, 'none')!r:.80}")
    rows: list[Checked] = []
    problems: list[str] = []
    left: list[str] = []
    given = exercise.trials(exercise.module)
    for trial, right in zip(exercise.trials(written), given, strict=True):
        same = as_given(trial, right, further(right, written, exercise, points)) if right.is_form else None
        if same:
            rows += same
            continue
        for name, inputs, count in points_of(right, points):
            mine = tuple(retyped(one, written, exercise.module) for one in inputs)
            other = changed(trial, right, mine, inputs, file)
            if other:
                return unable(exercise, other)
            report, remarks, failed = checked(trial, mine, count, file)
            if report is None:
                return unable(exercise, failed)
            rows += (new := with_missing(rows_of(report, name), right, inputs))
            problems += [*report.problems, *report.remarks, *remarks, *([report.hint] if report.hint else [])]
            if any(row.wrong for row in new) or report.status == WRONG:
                return Verdict(exercise.name, WRONG, not_yet(rows), tuple(rows), tuple(dict.fromkeys(problems)))
            if count > 1:
                left += [row.name for row in new if row.untested]
                problems += report.untested
            else:
                problems += elsewhere(new, name, trial.name, set(left))
    summary = f"nothing is wrong, but untested in {', '.join(dict.fromkeys(left))}" if left else SOLVED_WORDS
    status = UNTESTED if left else SOLVED
    return Verdict(exercise.name, status, summary, tuple(rows), tuple(dict.fromkeys(problems)))


def further(
    right: Trial, written: ModuleType, exercise: Exercise, points: int
) -> list[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """The inputs of so many points, in the answer's types and in the given ones."""
    drawn = [right.draw(np.random.default_rng(seed)) for seed in range(points)]
    return [(tuple(retyped(one, written, exercise.module) for one in inputs), inputs) for inputs in drawn]


def elsewhere(rows: list[Checked], name: str, main: str, left: set[str]) -> list[str]:
    """What the one point with ties does not show, and the check without them has: a line, or none."""
    names = [row.name for row in rows if row.untested and row.name not in left]
    return [f"{name}: untested in {', '.join(names)}, and right without ties: see {main}"] if names else []


def run(source: str, file: str) -> ModuleType:
    """The text as a module, whose lines a traceback can show."""
    module = ModuleType("npattn_answer")
    module.__file__ = file
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    sys.modules[module.__name__] = module  # where NamedTuple looks for the names of its annotations
    exec(compile(source, file, "exec"), vars(module))
    return module


def retyped(value: Any, written: ModuleType, given: ModuleType) -> Any:
    """A NamedTuple of the given file's as the one of that name which the answer has."""
    kind = getattr(written, type(value).__name__, None)
    if type(value).__module__ != given.__name__ or kind is None or not hasattr(kind, "_fields"):
        return value
    return kind(*value)


def changed(trial: Trial, right: Trial, mine: tuple[Any, ...], inputs: tuple[Any, ...], file: str) -> str:
    """What is wrong with the answer's forward: it has to give what the given one gives. "" if it does."""
    try:
        y, _ = trial.forward(*mine)
    except (Exception, SystemExit) as error:
        return told(error, file)
    wanted, _ = right.forward(*inputs)
    same = np.shape(y) == np.shape(wanted) and np.allclose(y, wanted, rtol=1e-9, atol=1e-12)
    return "" if same else "forward gives another y than the given one: only the backward is to be written"


def checked(
    trial: Trial, inputs: tuple[Any, ...], points: int, file: str
) -> tuple[GradcheckReport | None, list[str], str]:
    """The checker's report, and remarks on what backward returned; or no report, and why there is none."""
    caught: list[BaseException] = []
    remarks: list[str] = []
    names = names_of(trial, inputs)

    def watching(dy: Any, cache: Any) -> Any:
        try:
            gradients = trial.backward(dy, cache)
        except (Exception, SystemExit) as error:
            caught.append(error)
            raise
        gradients = given_as(gradients, inputs, names, remarks)
        remarks.extend(needless(gradients, inputs, names))
        return gradients

    watching.__name__ = "backward"
    pair: tuple[Callable[..., Any], Callable[..., Any]] = (trial.forward, watching)
    try:
        report = gradcheck(pair, *inputs, points=points, entries=ENTRIES, directions=DIRECTIONS, raise_exception=False)
    except (Exception, SystemExit) as error:
        return None, [], told(caught[0] if caught else error, file)
    crashed = any(problem.startswith("backward: raised") for problem in report.problems)
    return (None, [], told(caught[0], file)) if crashed and caught else (report, list(dict.fromkeys(remarks)), "")


def with_missing(rows: list[Checked], right: Trial, inputs: tuple[Any, ...]) -> list[Checked]:
    """The rows, with what is wrong where the answer gives no gradient and the given pair has one."""
    if all(row.cells[-1] != NONE for row in rows):
        return rows
    y, cache = right.forward(*inputs)
    needed = expected(right.backward(np.ones_like(y), cache), inputs, names_of(right, inputs))
    missing = "no gradient given; expected one of its shape"
    return [
        replace(row, cells=(*row.cells[:-1], "WRONG"), wrong=missing)
        if row.cells[-1] == NONE and row.name in needed
        else row
        for row in rows
    ]


def rows_of(report: GradcheckReport, trial: str) -> list[Checked]:
    return [
        Checked(trial, cells, row.wrong, row.cause, row.verdict == "ok", row.verdict == "untested")
        for row, cells in zip(report.rows, report.cells(), strict=True)
    ]


def not_yet(rows: list[Checked]) -> str:
    """Which gradients are right and which are wrong."""
    wrong = list(dict.fromkeys(row.name for row in rows if row.wrong))
    right = [name for name in dict.fromkeys(row.name for row in rows if row.passed) if name not in wrong]
    told = f"not yet: wrong in {', '.join(wrong)}" if wrong else "not yet"
    return f"{told}; right in {', '.join(right)}" if right else told


def unable(exercise: Exercise, why: str) -> Verdict:
    return Verdict(exercise.name, UNABLE, f"could not be run: {why}")


def told(error: BaseException, file: str) -> str:
    """An error in a line, with the line of the answer that it comes from."""
    said = f"{type(error).__name__}: {error}".split("\n")[0]
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"line {error.lineno}: {error.msg}: {(error.text or '').strip()}"
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"line {lines[-1].lineno}, {lines[-1].line}: {said}" if lines else said


def exercise_of(source: str) -> str | None:
    """Which exercise a file says that it answers: its line "# exercise: NAME"."""
    found = MARK.search(source)
    return found[1] if found else None
