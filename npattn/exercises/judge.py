"""What an answer is worth: its backward is checked against its own forward, which has to be the given one.

The command, the pages and the tests all ask here, and show the same texts.
"""

from __future__ import annotations

import linecache
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from npattn.checker import GradcheckReport, gradcheck
from npattn.checker.report import HEAD
from npattn.columns import table
from npattn.exercises.exercise import SIZE, Exercise, Trial
from npattn.samples import Random

SOLVED, WRONG, UNABLE, UNTESTED = range(4)
"""As the status of `npattn gradcheck`."""

SEEDS = 20  # from which the inputs with the fewest dead paths are taken
NONE = "-"  # the verdict on what has no gradient

FILE = "answer.py"
MARK = re.compile(r"^# exercise: ([\w.-]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Checked:
    """One input or parameter, in words, as a row of the table."""

    trial: str
    cells: tuple[str, ...]  # under `npattn.checker.report.HEAD`
    wrong: str  # what is wrong, with the worst entry; empty if nothing is
    cause: str  # the likely cause; empty if there is no guess
    passed: bool


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
                lines += [f"{row.cells[0]}: {row.wrong}"] if row.wrong else []
                lines += [f"  likely cause: {row.cause}"] if row.cause else []
        return "\n".join([*lines, *([""] if self.problems and self.rows else []), *self.problems])


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
    status = SOLVED
    given = exercise.trials(exercise.module)
    for trial, right in zip(exercise.trials(written), given, strict=True):
        for name, inputs, count in points_of(right, points):
            mine = tuple(retyped(one, written, exercise.module) for one in inputs)
            other = changed(trial, right, mine, inputs, file)
            if other:
                return unable(exercise, other)
            report, failed = checked(trial, mine, count, file)
            if report is None:
                return unable(exercise, failed)
            rows += (new := with_missing(rows_of(report, name), right, inputs))
            problems += [*report.problems, *report.remarks, *([report.hint] if report.hint else [])]
            if count > 1 and report.untested:  # at a single point, that of the ties, something may well be 0
                problems += report.untested
                status = UNTESTED
            if any(row.wrong for row in new) or report.status == WRONG:
                return Verdict(exercise.name, WRONG, not_yet(rows), tuple(rows), tuple(dict.fromkeys(problems)))
    summary = "solved: every gradient is right" if status == SOLVED else "nothing is wrong, and not all was seen"
    return Verdict(exercise.name, status, summary, tuple(rows), tuple(dict.fromkeys(problems)))


def run(source: str, file: str) -> ModuleType:
    """The text as a module, whose lines a traceback can show."""
    module = ModuleType("npattn_answer")
    module.__file__ = file
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    sys.modules[module.__name__] = module  # where NamedTuple looks for the names of its annotations
    exec(compile(source, file, "exec"), vars(module))
    return module


def points_of(trial: Trial, points: int) -> list[tuple[str, tuple[Any, ...], int]]:
    """Inputs without a tie, at several points; then an x of small whole numbers, in which maxima are tied."""
    inputs = alive(trial)
    found = [(trial.name, inputs, points)]
    x = inputs[0]
    if x.ndim > 1 and np.issubdtype(x.dtype, np.floating) and "train" not in trial.name:
        tied = np.random.default_rng(4).integers(0, 3, x.shape).astype(float)
        found.append((f"{trial.name}, with ties in {trial_input(trial)}", (tied, *inputs[1:]), 1))
    return found


def alive(trial: Trial) -> tuple[Any, ...]:
    """Inputs with as little as can be that has no gradient: a ReLU's units that are shut, say, hide what is wrong."""
    draws = [trial.draw(Random(np.random.default_rng(seed), SIZE)) for seed in range(SEEDS)]
    return min(draws, key=lambda inputs: dead(trial, inputs))


def dead(trial: Trial, inputs: tuple[Any, ...]) -> int:
    """How many slices of the gradients are 0."""
    y, cache = trial.forward(*inputs)
    gradients = trial.backward(np.random.default_rng(0).standard_normal(np.shape(y)), cache)
    return sum(
        int(np.sum(~np.any(array, axis=tuple(i for i in range(array.ndim) if i != axis))))
        for array in arrays_in(gradients)
        for axis in range(array.ndim)
    )


def arrays_in(tree: Any) -> Iterator[np.ndarray]:
    """The arrays of nested tuples."""
    if isinstance(tree, tuple):
        for one in tree:
            yield from arrays_in(one)
    elif tree is not None:
        yield np.asarray(tree)


def trial_input(trial: Trial) -> str:
    """What the first input is called."""
    code = getattr(trial.forward, "__code__", None)
    return str(code.co_varnames[0]) if code is not None else "x"


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


def checked(trial: Trial, inputs: tuple[Any, ...], points: int, file: str) -> tuple[GradcheckReport | None, str]:
    """The checker's report; or none, and why there is none."""
    caught: list[BaseException] = []

    def watching(*arguments: Any) -> Any:
        try:
            return trial.backward(*arguments)
        except (Exception, SystemExit) as error:
            caught.append(error)
            raise

    watching.__name__ = "backward"
    pair: tuple[Callable[..., Any], Callable[..., Any]] = (trial.forward, watching)
    try:
        report = gradcheck(pair, *inputs, points=points, raise_exception=False)
    except (Exception, SystemExit) as error:
        return None, told(caught[0] if caught else error, file)
    crashed = any(problem.startswith("backward: raised") for problem in report.problems)
    return (None, told(caught[0], file)) if crashed and caught else (report, "")


def with_missing(rows: list[Checked], right: Trial, inputs: tuple[Any, ...]) -> list[Checked]:
    """The rows, with what is wrong where the answer gives no gradient and the given pair has one."""
    if all(row.cells[-1] != NONE for row in rows):
        return rows
    wanted = gradcheck((right.forward, right.backward), *inputs, points=1, raise_exception=False).rows
    there = [row.verdict != NONE for row in wanted]
    missing = "no gradient given; expected one of its shape"
    return [
        replace(row, cells=(*row.cells[:-1], "WRONG"), wrong=missing) if row.cells[-1] == NONE and needed else row
        for row, needed in zip(rows, there, strict=True)
    ]


def rows_of(report: GradcheckReport, trial: str) -> list[Checked]:
    return [
        Checked(trial, cells, row.wrong, row.cause, row.verdict == "ok")
        for row, cells in zip(report.rows, report.cells(), strict=True)
    ]


def not_yet(rows: list[Checked]) -> str:
    """Which gradients are right and which are wrong."""
    wrong = list(dict.fromkeys(row.cells[0] for row in rows if row.wrong))
    right = [name for name in dict.fromkeys(row.cells[0] for row in rows if row.passed) if name not in wrong]
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
