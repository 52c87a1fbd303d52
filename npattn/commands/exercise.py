"""`npattn exercise`: a backward to write, in a file; judged as the pages judge it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from npattn.arguments import did_you_mean
from npattn.columns import flowed, table
from npattn.commands.names import find
from npattn.commands.usage import UsageError, refuse
from npattn.exercises import Exercise, exercises
from npattn.exercises.apart import judge_apart
from npattn.exercises.judge import exercise_of
from npattn.files import atomic, read_text
from npattn.streams import width

LARGEST = 2**20  # bytes of an answer
LIMIT, LONGEST = 120.0, 86400.0  # seconds for one to run


def add_parser(commands: Any) -> None:
    """Add the sub-command to the parser of `npattn`."""
    sub = commands.add_parser(
        "exercise",
        help="write a backward yourself, and have it judged",
        description="Exercises: write the backward of a block, an op or a rule; or find the mistake in one, and mend "
        "it (bug-1, …). Without a name, list them. With one, write the file to work in.",
        epilog="With --check the exit status is 0 if it is solved; 1 if a gradient is wrong; 2 if the file could not "
        "be run to its end; 3 if nothing is wrong and something was left untested.",
    )
    sub.add_argument("name", nargs="?", metavar="NAME", help="an exercise of the list")
    what = sub.add_mutually_exclusive_group()
    what.add_argument("--check", metavar="FILE", help="judge an answer; the file says which exercise it is of")
    sub.add_argument(
        "--limit", type=float, metavar="SECONDS", help=f"with --check: how long the answer may run ({LIMIT:g})"
    )
    what.add_argument("--hint", type=int, metavar="N", help="print the Nth hint of NAME")
    what.add_argument("--answer", action="store_true", help="print a file that passes")
    what.add_argument("--out", metavar="FILE", help="the file to write (NAME.py); one that is there is left alone")
    sub.set_defaults(run=run, leaves_files=writes)


def writes(arguments: argparse.Namespace) -> bool:
    """Whether a file is written."""
    asked = arguments.check is not None or arguments.hint is not None or arguments.answer
    return arguments.name is not None and not asked


def run(arguments: argparse.Namespace) -> int:
    """List, write, help or judge. Returns the exit status."""
    chosen = None if arguments.name is None else named(arguments.name)
    if arguments.check is not None:
        return check(Path(arguments.check), chosen, seconds(arguments.limit))
    refuse(arguments, ("limit",), "without --check")
    if chosen is None:
        refuse(arguments, ("hint", "answer", "out"), "without the name of an exercise")
        sys.stdout.write(listing())
        return 0
    if arguments.hint is not None:
        print(flowed(hint(chosen, arguments.hint), width()))
    elif arguments.answer:
        sys.stdout.write(chosen.file(chosen.answer))
    else:
        write(chosen, Path(f"{chosen.name}.py" if arguments.out is None else arguments.out))
    return 0


def seconds(limit: float | None) -> float:
    """The time that an answer has."""
    if limit is not None and not 0 < limit <= LONGEST:  # NaN too
        raise UsageError(f"--limit: expected seconds above 0, at most {LONGEST:g}, got {limit:g}")
    return LIMIT if limit is None else limit


def named(word: str) -> Exercise:
    """The exercise that is meant, in any spelling."""
    found = find(word, exercises())
    if found is None:
        raise UsageError(f"NAME: expected an exercise of the list, got {word!r:.80}{did_you_mean(word, exercises())}")
    return exercises()[found]


def listing() -> str:
    """The table of all exercises."""
    rows = [(one.name, one.kind, one.title) for one in exercises().values()]
    return table(("name", "kind", "what it is"), rows, width()) + "\n"


def hint(chosen: Exercise, number: int) -> str:
    count = len(chosen.hints)
    if not 1 <= number <= count:
        raise UsageError(f"--hint: expected a number from 1 to {count}, got {number}; --answer prints the answer")
    return f"Hint {number} of {count}: {chosen.hints[number - 1]}"


def write(chosen: Exercise, path: Path) -> None:
    """Write the file to work in. What is there is somebody's work and stays."""
    if not path.parent.is_dir():
        raise UsageError(f"--out: expected a file in a folder that is there, got {path}: no folder {path.parent}")
    try:
        with atomic(path, replace=False) as file:
            file.write(chosen.file().encode())
    except FileExistsError:
        raise FileExistsError(f"{path}: is there already and is left as it is; --out names another file") from None
    task = "find the mistake in its backward and mend it" if chosen.kind == "bug" else "fill in its backward"
    print(f"{path}: {task}, then: npattn exercise --check {path}")


def check(path: Path, chosen: Exercise | None, limit: float) -> int:
    """Judge a file."""
    try:
        source = read_text(path, LARGEST)
    except FileNotFoundError:
        raise UsageError(f"--check: no such file: {path}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"--check: {error if isinstance(error, OSError) else f'{path}: is no text'}") from None
    name = exercise_of(source)
    if name is None and chosen is None:
        raise UsageError(f'--check: {path} has no line "# exercise: NAME"; name the exercise')
    if name is not None:
        said = named(name)
        if chosen is not None and chosen.name != said.name:
            raise UsageError(f"NAME: {path} says that it is of {said.name}, got {chosen.name}; leave NAME away")
        chosen = said
    assert chosen is not None
    try:
        verdict = judge_apart(chosen, source, str(path), limit)
    except KeyboardInterrupt as interrupt:
        print(f"npattn: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 130
    print(flowed(str(verdict), width()))
    return verdict.status
