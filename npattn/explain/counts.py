"""How many parameters attention adds to a network, counted from the layers themselves.

A network is its stages: how many blocks there are, and how many channels their output has. One attention is put behind
each block, as in Hu et al., table 1, and Woo et al., figure 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from npattn.arguments import explained
from npattn.block import Place
from npattn.blocks import block as find
from npattn.capacity import shapes_only
from npattn.checks import one_of, shown, whole_number


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

MOST = 10**6  # channels, blocks, and pixels of a kernel's side: no network has so many, and any count is a number
IMAGE = 224  # pixels a side: the first stage's maps are a quarter of that, and each further stage's half as large


@explained
def added(
    block: str, stages: Sequence[tuple[int, int]] | str = "resnet50", ratio: int = 16, kernel_size: int = 7
) -> int:
    """The parameters that attention adds to a network: one layer is made for each stage, and its `count()` asked.

    The layers have no memory for their weights, so that those of any width can be counted.

    Parameters
    ----------
    block
        "se", "cbam" or any other of `npattn.blocks.blocks()`.
    stages
        (channels, blocks) of each stage, both up to 1,000,000, or one of `NETWORKS`: "resnet18", "resnet34",
        "resnet50", "resnet101", "resnet152".
    ratio
        r of a channel gate, 1 to the fewest channels of a stage.
    kernel_size
        k of a spatial gate, odd, up to 1,000,000.

    Raises
    ------
    TypeError, ValueError
        If a name is none of these, or a number outside its range.

    Examples
    --------
    >>> added("se"), added("se-bias"), added("cbam-official")
    (2514944, 2530992, 2532592)
    """
    entry = find(block)
    if isinstance(stages, str):
        stages = NETWORKS[one_of("stages", stages, tuple(NETWORKS))].stages
    if not isinstance(stages, Sequence):
        raise TypeError(f"stages: expected (channels, blocks) of each stage, or a name, got {shown(stages)}")
    stages = [checked(stage) for stage in stages]
    fewest = min((channels for channels, _ in stages), default=ratio)
    if whole_number("ratio", ratio) > fewest:
        raise ValueError(f"ratio: expected at most {fewest}, the fewest channels of a stage, got {ratio}")
    total = 0
    for i, (channels, blocks) in enumerate(stages):
        side = max(1, IMAGE // 4 >> i)
        place = Place(channels, side, side, r=ratio, k=whole_number("kernel_size", kernel_size, most=MOST))
        with shapes_only():
            total += blocks * entry.layer(place, rng=0).count()
    return total


def checked(stage: Any) -> tuple[int, int]:
    """Channels and blocks of a stage. Raises TypeError or ValueError."""
    if isinstance(stage, str) or not isinstance(stage, Sequence) or len(stage) != 2:
        raise ValueError(f"stages: expected (channels, blocks) of each stage, got {shown(stage)}")
    channels, blocks = stage
    return (
        whole_number("stages (channels)", channels, most=MOST),
        whole_number("stages (blocks)", blocks, most=MOST),
    )
