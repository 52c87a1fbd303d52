"""`npattn count`: the parameters that attention adds to a network."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from npattn.blocks import blocks
from npattn.explain.counts import NETWORKS, Network, added


def add_parser(commands: Any) -> None:
    """Add the sub-command to the parser of `npattn`."""
    sub = commands.add_parser(
        "count",
        help="count the parameters that attention adds to a ResNet",
        description="Count the parameters that each block adds to a network, from the widths of its stages.",
    )
    sub.add_argument("--network", choices=list(NETWORKS), default="resnet50", help="(resnet50)")
    sub.add_argument("--stages", nargs="+", metavar="CxB", help="another network: channels x blocks, as in 64x2 128x2")
    sub.add_argument("--ratio", type=int, default=16, metavar="R", help="reduction ratio of a channel gate (16)")
    sub.add_argument("--kernel-size", type=int, default=7, metavar="K", help="of a spatial gate, odd (7)")
    sub.set_defaults(run=run)


def parsed(stages: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """ "64x2" as (64, 2). Raises ValueError for anything else."""
    try:
        return tuple((int(channels), int(blocks)) for channels, blocks in (stage.split("x") for stage in stages))
    except ValueError:
        raise ValueError(f"--stages: expected channels x blocks, as in 64x2 128x2, got {' '.join(stages)}") from None


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    network = NETWORKS[arguments.network] if arguments.stages is None else Network(parsed(arguments.stages))
    stages = ", ".join(f"{count} × {channels}" for channels, count in network.stages)
    whole = "" if network.parameters is None else f", {network.parameters:,} parameters"
    name = "" if arguments.stages else f"{arguments.network}: "
    lines = [f"{name}blocks × channels {stages}{whole}; r = {arguments.ratio}, k = {arguments.kernel_size}"]
    for block in blocks():
        more = added(block, network.stages, arguments.ratio, arguments.kernel_size)
        share = "" if network.parameters is None else f"  {more / network.parameters:8.2%}"
        lines.append(f"{block:<24}{more:>16,}{share}")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
