"""The npattn command. Each sub-command is a file of npattn.commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from npattn.ablation import AblationError
from npattn.backend import DeviceError
from npattn.bench import BenchError
from npattn.checkpoint import CheckpointError
from npattn.commands import ablate, bench, cam, count, dialect, gradcheck, trace, train
from npattn.data import DataError
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

    argparse itself ends with status 2 for a command line that makes no sense.
    """
    arguments = parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except TOLD as error:
        print(f"npattn: {str(error) or type(error).__name__}", file=sys.stderr)
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
