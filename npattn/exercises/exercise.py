"""An exercise, and all of them. A block's or op's comes from its own file; no list names it."""

from __future__ import annotations

import functools
import textwrap
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from npattn.arguments import did_you_mean
from npattn.blocks import blocks, modules
from npattn.exercises.bugs import BUGS, Bug
from npattn.exercises.drawn import Drawn
from npattn.exercises.drawn import drawn as text_of
from npattn.exercises.trials import Trial, has_trials, trials


@dataclass(frozen=True)
class Exercise:
    """Something to write, and all that is needed to show and to judge it.

    Attributes
    ----------
    name
        What the command and the pages call it: "cbam", "relu", "product", "bug-3".
    kind
        "block", "op", "tool" or "bug".
    title, statement
        What the pair is, and its formula.
    page
        Under docs/, without its ending.
    start, answer
        The whole text of a file: the start as it is given, and one that passes.
    hints
        To be shown one at a time.
    module
        That of the pair which the answer is.
    """

    name: str
    kind: str
    title: str
    statement: str
    page: str
    start: str
    answer: str
    hints: tuple[str, ...]
    module: ModuleType

    def trials(self, written: Any) -> list[Trial]:
        """The checks to make of a module with forward and backward: all options that the library's pair knows."""
        return trials(self.module, written)

    def file(self, what: str | None = None) -> str:
        """The text of a file to work in: what is asked, and the start; or another text in its place."""
        formula = textwrap.indent(self.statement, "    ")
        ask = "Find the mistake in its backward, and mend it." if self.kind == "bug" else "Write its backward."
        head = f'"""{self.title[0].upper()}{self.title[1:]}. {ask}\n\n{formula}\n"""'
        return f"# exercise: {self.name}\n{head}\n\n{self.start if what is None else what}"


KINDS = {"tool": "exercises.tools", "op": "ops", "block": "attention"}


@functools.cache
def exercises() -> dict[str, Exercise]:
    """Every exercise by name: the tools' rules, the ops, the blocks, and the bugs to find."""
    found: dict[str, Exercise] = {}
    for kind, package in KINDS.items():
        for module in modules(package):
            text = text_of(module) if hasattr(module, "forward") and hasattr(module, "backward") else None
            if text is None:
                continue
            made = Exercise(name_of(module), kind, *ordered(text), module)
            if has_trials(module):
                found[made.name] = made
    for number, bug in enumerate(BUGS, 1):
        made = with_bug(f"bug-{number}", found[bug.of], bug)
        found[made.name] = made
    return found


def ordered(text: Drawn) -> tuple[str, str, str, str, str, tuple[str, ...]]:
    return text.title, text.statement, text.page, text.start, text.answer, text.hints


def name_of(module: ModuleType) -> str:
    """A block's name, or an op's: that of its file."""
    for name, entry in blocks().items():
        if entry.kind.textbook == module.__name__ or entry.kind.__module__ == module.__name__:
            return name
    return module.__name__.rpartition(".")[2]


def with_bug(name: str, right: Exercise, bug: Bug) -> Exercise:
    """The exercise to find what is wrong in an answer."""
    if right.answer.count(bug.right) != 1:
        raise ValueError(f"{name}: expected {bug.right!r} once in the answer of {right.name}")
    return Exercise(
        name, "bug", f"find the bug: {right.title}", right.statement, "exercises",
        right.answer.replace(bug.right, bug.wrong), right.answer, bug.hints, right.module,
    )  # fmt: skip


def exercise(name: str) -> Exercise:
    """The exercise of that name. Raises ValueError if there is none."""
    if name not in exercises():
        raise ValueError(f"name: expected that of an exercise, got {name!r:.80}{did_you_mean(name, exercises())}")
    return exercises()[name]
