"""The article's classes: ours, under the names that they have there.

A kernel of 3 or 7 only, by an assertion; `SpatialAttention` and `ChannelAttention` return their gate.
"""

from __future__ import annotations

from typing import Any

from npattn.attention.cbam import CBAM as OurCBAM
from npattn.attention.channel import ChannelAttention as OurChannelAttention
from npattn.attention.se import SELayer as OurSELayer
from npattn.attention.spatial import SpatialAttention as OurSpatialAttention
from npattn.dialects.table import Seen, module, reduction, three_or_seven
from npattn.layer import Layer


@module(
    "article",
    """
    fc.0.weight           R C        fc.0.weight
    fc.2.weight           C R        fc.2.weight
    """,
    lambda seen: {"channel": seen.sizes["C"]} | reduction(seen),
    returns="x · gate, gate = sigmoid(mlp(mean))",
)
def SELayer(channel: int, reduction: int = 16, **options: Any) -> Layer:
    return OurSELayer(channel, reduction, **options)


@module(
    "article",
    """
    fc1.weight            R C 1 1    fc1.weight
    fc2.weight            C R 1 1    fc2.weight
    """,
    lambda seen: {"in_planes": seen.sizes["C"]} | reduction(seen, "ratio"),
    returns="gate = sigmoid(mlp(mean) + mlp(max))",
)
def ChannelAttention(in_planes: int, ratio: int = 16, **options: Any) -> Layer:
    return OurChannelAttention(in_planes, ratio, **options)


@module(
    "article",
    """
    conv1.weight          1 2 k k    conv1.weight
    """,
    lambda seen: {"kernel_size": three_or_seven(seen.sizes["k"])},
    returns="gate = sigmoid(conv([mean, max]))",
)
def SpatialAttention(kernel_size: int = 7, **options: Any) -> Layer:
    return OurSpatialAttention(three_or_seven(kernel_size), **options)


def cbam_arguments(seen: Seen) -> dict[str, Any]:
    C, k = seen.sizes["C"], seen.sizes["k"]
    return {"in_planes": C} | reduction(seen, "ratio") | {"kernel_size": three_or_seven(k)}


@module(
    "article",
    """
    ca.fc1.weight         R C 1 1    ca.fc1.weight
    ca.fc2.weight         C R 1 1    ca.fc2.weight
    sa.conv1.weight       1 2 k k    sa.conv1.weight
    """,
    cbam_arguments,
    returns="u · sigmoid(conv([mean, max] of u)), u = x · sigmoid(mlp(mean) + mlp(max))",
    among=True,
)
def CBAM(in_planes: int, ratio: int = 16, kernel_size: int = 7, **options: Any) -> Layer:
    return OurCBAM(in_planes, ratio, three_or_seven(kernel_size), **options)
