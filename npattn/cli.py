"""The npattn command. Each sub-command is a file of npattn.commands."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence

from npattn.ablation import AblationError
from npattn.backend import DeviceError
from npattn.bench import BenchError
from npattn.capacity import shortage
from npattn.checkpoint import CheckpointError
from npattn.commands import ablate, bench, cam, count, dialect, gradcheck, trace, train
from npattn.data import DataError
from npattn.streams import LostOutput, Plain, keep_numbers
from npattn.training import TrainingError
from npattn.version import __version__

COMMANDS = (train, gradcheck, trace, cam, bench, count, ablate, dialect)
"""In the order of `npattn --help`."""

TOLD = (
    AblationError, BenchError, CheckpointError, DataError, DeviceError, TrainingError, MemoryError, OSError, ValueError,
)  # fmt: skip
"""The errors that are told in one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status: 0 done, 1 an error that is told in one line, 130 interrupted.

    argparse itself ends with status 2 for a command line that makes no sense. What is printed goes through
    npattn/streams.py. A command that leaves files behind does its work, whatever becomes of its text; of one that only
    prints, nothing would be left: the status is 1 then, and the reason is told where there is a place to tell it.
    """
    keep_numbers()
    out, err = Plain(sys.stdout, "standard output", needed=True), Plain(sys.stderr, "standard error")
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
    arguments = parser().parse_args(argv)
    leaves_files = getattr(arguments, "leaves_files", None)
    out.needed = leaves_files is None or not leaves_files(arguments)
    try:
        return int(arguments.run(arguments))
    except LostOutput:
        return 1  # main says why
    except TOLD as error:
        print(f"npattn: {shortage(error) or str(error) or type(error).__name__}", file=sys.stderr)
        return 1
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
    top = argparse.ArgumentParser(
        prog="npattn", description="Attention in convolutional networks, every gradient by hand."
    )
    top.add_argument("--version", action="version", version=f"npattn {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    return top


if __name__ == "__main__":
    sys.exit(main())
