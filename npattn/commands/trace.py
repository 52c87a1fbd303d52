"""`npattn trace`: a block or an op, step by step."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from npattn.blocks import blocks
from npattn.commands.names import heeds, listing, name_of, op_words, what_blocks_are
from npattn.commands.shapes import lengths
from npattn.commands.usage import given, refuse
from npattn.explain.trace import ops, trace, trace_op
from npattn.explain.trace_text import text
from npattn.streams import width

OF_A_BLOCK = ("shape", "ratio", "kernel_size")


def add_parser(commands: Any) -> None:
    """Add the sub-command to the parser of `npattn`."""
    sub = commands.add_parser(
        "trace",
        help="print a block or an op step by step, forward and backward",
        description="Print a block's or an op's forward and backward on a small example: each tagged line with its "
        "shape and numbers, then each gradient beside its finite difference.",
    )
    sub.add_argument(
        "name", nargs="?", type=name_of(blocks, ops), metavar="NAME", help="a block or an op of --list: cbam, conv2d"
    )
    sub.add_argument("--list", action="store_true", help="say which blocks and ops there are, and trace nothing")
    sub.add_argument("--shape", type=lengths(4), metavar="N,C,H,W", help="of a block's x (its page's)")
    sub.add_argument("--seed", type=int, metavar="S", help="of the numbers (that of the docs)")
    sub.add_argument("--ratio", type=int, metavar="R", help="the hidden width of a channel gate is C // R (1)")
    sub.add_argument("--kernel-size", type=int, metavar="K", help="of a spatial gate (3)")
    sub.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the trace that the arguments ask for. Returns 0."""
    name = arguments.name
    if arguments.list:
        refuse(arguments, ("name", *OF_A_BLOCK, "seed"), "with --list")
        sys.stdout.write(listing(what_blocks_are() | {op: op_words()[op] for op in ops()}))
        return 0
    if name is None:
        arguments.parser.error("NAME is missing, a block or an op of --list")
    if name in ops():
        refuse(arguments, OF_A_BLOCK, f"on {name}, an op, whose example is always the same")
        found = trace_op(name, arguments.seed)
    else:
        for option, letter in (("ratio", "r"), ("kernel_size", "k")):
            if not heeds(name, letter):
                refuse(arguments, (option,), f"on {name}")
        options = {option: getattr(arguments, option) for option in given(arguments, ("ratio", "kernel_size"))}
        found = trace(name, arguments.shape, arguments.seed, **options)
    sys.stdout.write(text(found, width()))
    return 0
