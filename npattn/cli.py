"""The npattn command. Each sub-command is a file of npattn.commands."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from typing import Any

from npattn.ablation import AblationError
from npattn.backend import DeviceError
from npattn.bench import BenchError
from npattn.capacity import check_limit, shortage
from npattn.checkpoint import CheckpointError
from npattn.commands import ablate, bench, cam, count, dialect, docs, exercise, gradcheck, trace, train
from npattn.commands.launch import as_rank
from npattn.commands.usage import Parser, UsageError
from npattn.data import DataError
from npattn.dialects import AmbiguousError, FileError, UnknownError
from npattn.explain.images import ImageError
from npattn.streams import LostOutput, Plain, keep_numbers
from npattn.training import TrainingError
from npattn.training.ranks import started
from npattn.version import __version__

COMMANDS = (train, gradcheck, exercise, trace, cam, bench, count, ablate, dialect, docs)
"""In the order of `npattn --help`."""

FAILED = (
    AblationError, BenchError, CheckpointError, DataError, DeviceError, TrainingError, MemoryError, OSError,
    ImageError, AmbiguousError, FileError, UnknownError,
)  # fmt: skip
"""The errors of a command that was right and could not be done: status 1, told in one line."""

STATUS = """\
exit status:
  0    it is done
  1    it failed: a file that is none, a full disk, no GPU, a wrong gradient
  2    the command line makes no sense; nothing was done
  3    gradcheck and exercise: nothing is wrong, and something was left untested
  130  interrupted; what a training has learnt is saved

A shape is typed 2,8,5,5 or 2x8x5x5 or 2 8 5 5. A block has one name in all
commands, in capitals or not; --list of each shows them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status, as `STATUS` explains them.

    argparse itself ends with status 2 for a command line that makes no sense. Without any word the help is printed,
    with status 0, as pip does. What is printed goes through
    npattn/streams.py. A command that leaves files behind does its work, whatever becomes of its text; of one that only
    prints, nothing would be left: the status is 1 then, and the reason is told where there is a place to tell it.
    """
    keep_numbers()
    if (started() or 1) > 1:  # by mpiexec
        return as_rank(lambda out, err: on_streams(argv, out, err))
    return on_streams(argv, sys.stdout, sys.stderr)


def on_streams(argv: Sequence[str] | None, stdout: Any, stderr: Any) -> int:
    """Run the command, and print on these streams. Returns the exit status."""
    out, err = Plain(stdout, "standard output", needed=True), Plain(stderr, "standard error")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = ended(argv, out)
        except SystemExit as end:  # argparse's, after --help or a command line that makes no sense
            out.finish()
            if end.code or out.lost is None:
                raise
            status = 0
        finally:
            out.finish()
            if out.reason() and (out.needed or out.stream is not None):  # one that was never there is not missed
                print(f"npattn: {out.reason()}", file=err)
            err.finish()
    return 1 if status == 0 and out.needed and out.lost is not None else status


def ended(argv: Sequence[str] | None, out: Plain) -> int:
    """Run the command to its end. `out` is needed unless the command leaves files behind. Returns the exit status."""
    top = parser()
    try:
        arguments = top.parse_args(argv)
    except LostOutput:  # of --help; the argparse of Python 3.11.7 keeps it, that of 3.11.2 does not
        return 1
    if not hasattr(arguments, "run"):
        top.print_help()
        return 0
    arguments.argv = list(sys.argv[1:] if argv is None else argv)
    leaves_files = getattr(arguments, "leaves_files", None)
    out.needed = leaves_files is None or not leaves_files(arguments)
    try:
        check_limit()
        return int(arguments.run(arguments))
    except LostOutput:
        return 1  # main says why
    except FAILED as error:
        print(f"npattn: {shortage(error) or str(error) or type(error).__name__}", file=sys.stderr)
        return 1
    except (UsageError, ValueError) as error:  # a value that a function of the library refuses, by its argument's name
        told = arguments.parser.told(str(error))
        print(f"npattn: {shortage(error) or told}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) or (told.startswith("--") and not shortage(error)) else 1
    except (ImportError, RuntimeError) as error:
        if not shortage(error):
            raise
        print(f"npattn: {shortage(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("npattn: interrupted", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The command's parser; each sub-command brings its own `run`."""
    top = Parser(
        prog="npattn",
        description="Attention in convolutional networks, every gradient by hand.",
        epilog=STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"npattn {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    for sub in commands.choices.values():
        sub.set_defaults(parser=sub)
    return top


if __name__ == "__main__":
    sys.exit(main())
