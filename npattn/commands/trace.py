"""`npattn trace`: a block or an op, step by step."""

from __future__ import annotations

import argparse
import sys

from npattn.blocks import blocks
from npattn.explain.trace import ops, trace, trace_op
from npattn.explain.trace_text import text


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command to the parser of `npattn`."""
    sub = commands.add_parser(
        "trace",
        help="print a block or an op step by step, forward and backward",
        description="Print a block's or an op's forward and backward on a small example: each tagged line with its "
        "shape and numbers, then each gradient beside its finite difference.",
    )
    names = f"a block: {', '.join(blocks())}; or an op: {', '.join(ops())}"
    sub.add_argument("name", choices=[*blocks(), *ops()], metavar="NAME", help=names)
    sub.add_argument("--shape", type=int, nargs=4, metavar=("N", "C", "H", "W"), help="of a block's x (its page's)")
    sub.add_argument("--seed", type=int, metavar="S", help="of the numbers (that of the docs)")
    sub.add_argument("--ratio", type=int, default=1, metavar="R", help="the hidden width is C // R (%(default)s)")
    sub.add_argument("--kernel-size", type=int, default=3, metavar="K", help="of a spatial attention (%(default)s)")
    sub.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the trace that the arguments ask for. Returns 0."""
    name = arguments.name
    if name in ops():
        if arguments.shape is not None:
            raise ValueError(f"--shape: is for a block; the example of {name} has its own shape")
        found = trace_op(name, arguments.seed)
    else:
        options = {"ratio": arguments.ratio, "kernel_size": arguments.kernel_size}
        found = trace(name, arguments.shape, arguments.seed, **options)
    sys.stdout.write(text(found))
    return 0
