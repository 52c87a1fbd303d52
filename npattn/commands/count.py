"""`npattn count`: the parameters that attention adds to a network."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from npattn.blocks import blocks
from npattn.columns import table, wrapped
from npattn.commands.names import heeds, listing, name_of, what_blocks_are
from npattn.commands.shapes import lengths
from npattn.commands.usage import refuse
from npattn.explain.counts import NETWORKS, Network, added
from npattn.streams import width

USUAL: dict[str, Any] = {"network": "resnet50", "ratio": 16, "kernel_size": 7}


def add_parser(commands: Any) -> None:
    """Add the sub-command to the parser of `npattn`."""
    sub = commands.add_parser(
        "count",
        help="count the parameters that attention adds to a ResNet",
        description="Count the parameters that each block adds to a network, from the widths of its stages.",
    )
    sub.add_argument("names", nargs="*", type=name_of(blocks), metavar="NAME", help="blocks of --list (all)")
    sub.add_argument("--list", action="store_true", help="say which blocks there are, and count nothing")
    which = sub.add_mutually_exclusive_group()
    which.add_argument(
        "--network", choices=list(NETWORKS), metavar="NET", help=f"{', '.join(NETWORKS)} ({USUAL['network']})"
    )
    which.add_argument(
        "--stages", nargs="+", type=lengths(2), metavar="CxB", help="another network: channels x blocks, 64x2 128x2"
    )
    sub.add_argument("--ratio", type=int, metavar="R", help=f"reduction ratio of a channel gate ({USUAL['ratio']})")
    sub.add_argument("--kernel-size", type=int, metavar="K", help=f"of a spatial gate, odd ({USUAL['kernel_size']})")
    sub.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table. Returns 0."""
    if arguments.list:
        refuse(arguments, ("names", "network", "stages", "ratio", "kernel_size"), "with --list")
        sys.stdout.write(listing(what_blocks_are()))
        return 0
    names = list(dict.fromkeys(arguments.names)) or list(blocks())
    for option, letter in (("ratio", "r"), ("kernel_size", "k")):
        if not any(heeds(name, letter) for name in names):
            refuse(arguments, (option,), f"on {' and '.join(names)}")
    settings = {name: getattr(arguments, name) for name in USUAL}
    chosen = {name: USUAL[name] if value is None else value for name, value in settings.items()}
    network = NETWORKS[chosen["network"]] if arguments.stages is None else Network(tuple(arguments.stages))
    stages = ", ".join(f"{count} × {channels}" for channels, count in network.stages)
    whole = "" if network.parameters is None else f", {network.parameters:,} parameters"
    name = "" if arguments.stages else f"{chosen['network']}: "
    about = f"{name}blocks × channels {stages}{whole}; r = {chosen['ratio']}, k = {chosen['kernel_size']}"
    head = ["block", "parameters added", *([] if network.parameters is None else ["of the network's"])]
    rows = []
    for block in names:
        more = added(block, network.stages, chosen["ratio"], chosen["kernel_size"])
        share = [] if network.parameters is None else [f"{more / network.parameters:.2%}"]
        rows.append([block, f"{more:,}", *share])
    sys.stdout.write(
        "\n".join([*wrapped(about, width(), further="  "), table(head, rows, width(), right=(1, 2))]) + "\n"
    )
    return 0
