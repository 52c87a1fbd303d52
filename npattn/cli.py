"""The npattn command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from npattn import __version__, bench


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status: 0 done, 1 an error that is told in one line."""
    top = argparse.ArgumentParser(prog="npattn", description="Attention in convolutional networks, gradients by hand.")
    top.add_argument("--version", action="version", version=f"npattn {__version__}")
    bench.add_parser(top.add_subparsers(title="commands", required=True, metavar="COMMAND"))
    arguments = top.parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (bench.BenchError, OSError, ValueError) as error:
        print(f"npattn: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
