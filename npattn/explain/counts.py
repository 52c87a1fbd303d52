"""How many parameters attention adds to a network, counted from the layers themselves: `npattn count`.

A network is its stages: how many blocks there are, and how many channels their output has. One attention is put behind
each block, as in Hu et al., table 1, and Woo et al., figure 3.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from npattn.attention.cbam import CBAM
from npattn.attention.channel import ChannelAttention
from npattn.attention.concat import ConcatAttention
from npattn.attention.gate import Gated
from npattn.attention.se import SELayer
from npattn.attention.spatial import SpatialAttention
from npattn.checks import whole_number
from npattn.layer import Layer


class Network(NamedTuple):
    """Stages, each (channels, blocks), and the network's own parameters for 1,000 classes."""

    stages: tuple[tuple[int, int], ...]
    parameters: int | None = None


NETWORKS = {
    "resnet18": Network(((64, 2), (128, 2), (256, 2), (512, 2)), 11_689_512),
    "resnet34": Network(((64, 3), (128, 4), (256, 6), (512, 3)), 21_797_672),
    "resnet50": Network(((256, 3), (512, 4), (1024, 6), (2048, 3)), 25_557_032),
    "resnet101": Network(((256, 3), (512, 4), (1024, 23), (2048, 3)), 44_549_160),
    "resnet152": Network(((256, 3), (512, 8), (1024, 36), (2048, 3)), 60_192_808),
}
"""He et al., CVPR 2016, table 1, with batch norm, a 1×1 convolution where the width changes, and one bias, the last."""

BLOCKS: dict[str, Callable[[int, int, int], Layer]] = {
    "SE": lambda C, r, k: SELayer(C, r),
    "SE, FC with bias": lambda C, r, k: SELayer(C, r, bias=True),
    "channel attention": lambda C, r, k: Gated(ChannelAttention(C, r)),
    "pool-and-concatenate": lambda C, r, k: Gated(ConcatAttention(C, r)),
    "spatial attention": lambda C, r, k: Gated(SpatialAttention(k)),
    "CBAM": lambda C, r, k: CBAM(C, r, k),
    "CBAM, FC with bias, batch norm": lambda C, r, k: CBAM(C, r, k, channel={"bias": True}, spatial={"norm": True}),
}
"""By name, from C, the ratio and the kernel size. The last one is as the authors of CBAM released it."""


def added(
    block: str, stages: Sequence[tuple[int, int]] | str = "resnet50", ratio: int = 16, kernel_size: int = 7
) -> int:
    """The parameters that attention adds to a network: one layer is made for each stage, and its `count()` asked.

    Parameters
    ----------
    block
        One of `BLOCKS`: "SE", "SE, FC with bias", "channel attention", "pool-and-concatenate", "spatial attention",
        "CBAM", "CBAM, FC with bias, batch norm".
    stages
        (channels, blocks) of each stage, or one of `NETWORKS`: "resnet18", "resnet34", "resnet50", "resnet101",
        "resnet152".
    ratio
        r of the channel gate, 1 to the fewest channels of a stage.
    kernel_size
        k of the spatial gate, odd.

    Raises
    ------
    TypeError, ValueError
        If a name is none of these, or a number outside its range.

    Examples
    --------
    >>> added("SE"), added("SE, FC with bias"), added("CBAM, FC with bias, batch norm")
    (2514944, 2530992, 2532592)
    """
    if block not in BLOCKS:
        raise ValueError(f"block: expected one of {'; '.join(BLOCKS)}, got {block!r}")
    if isinstance(stages, str):
        if stages not in NETWORKS:
            raise ValueError(f"stages: expected (channels, blocks) or one of {', '.join(NETWORKS)}, got {stages!r}")
        stages = NETWORKS[stages].stages
    total = 0
    for channels, blocks in stages:
        make = BLOCKS[block]
        count = make(whole_number("stages (channels)", channels), ratio, kernel_size).count()
        total += whole_number("stages (blocks)", blocks) * count
    return total


def add_parser(commands: Any) -> None:
    """`npattn count`."""
    sub = commands.add_parser(
        "count",
        help="count the parameters that attention adds to a ResNet",
        description="Count the parameters that each block adds to a network, from the widths of its stages.",
    )
    sub.add_argument("--network", choices=list(NETWORKS), default="resnet50", help="(resnet50)")
    sub.add_argument("--stages", nargs="+", metavar="CxB", help="another network: channels x blocks, as in 64x2 128x2")
    sub.add_argument("--ratio", type=int, default=16, metavar="R", help="reduction ratio of the channel gate (16)")
    sub.add_argument("--kernel-size", type=int, default=7, metavar="K", help="of the spatial gate, odd (7)")
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
    listed = ", ".join(f"{blocks} × {channels}" for channels, blocks in network.stages)
    whole = "" if network.parameters is None else f", {network.parameters:,} parameters"
    name = "" if arguments.stages else f"{arguments.network}: "
    lines = [f"{name}blocks × channels {listed}{whole}; r = {arguments.ratio}, k = {arguments.kernel_size}"]
    for block in BLOCKS:
        more = added(block, network.stages, arguments.ratio, arguments.kernel_size)
        share = "" if network.parameters is None else f"  {more / network.parameters:7.2%}"
        lines.append(f"{block:<32}{more:>12,}{share}")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
