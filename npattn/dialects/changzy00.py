"""changzy00/pytorch-attention, attention-mechanisms/cbam.py; attention_mechanisms/se_module.py, simam.py.

Its ChannelAttention and SpatialAttention multiply: they return x · gate. SimAM has no state_dict to tell it by: an
empty one is loaded.
"""

from __future__ import annotations

from typing import Any

from npattn.attention.cbam import CBAM as OurCBAM
from npattn.attention.channel import ChannelAttention as OurChannelAttention
from npattn.attention.gate import Gated
from npattn.attention.se import SELayer as OurSELayer
from npattn.attention.simam import SimAM
from npattn.attention.spatial import SpatialAttention as OurSpatialAttention
from npattn.dialects.table import module, reduction
from npattn.layer import Layer


@module(
    "changzy00",
    """
    fc.0.weight           R C        fc.0.weight
    fc.2.weight           C R        fc.2.weight
    """,
    lambda seen: {"channel": seen.sizes["C"]} | reduction(seen),
    returns="x · gate, gate = sigmoid(mlp(mean))",
    same_as="article.SELayer",
)
def SELayer(channel: int, reduction: int = 16, **options: Any) -> Layer:
    return OurSELayer(channel, reduction, **options)


@module(
    "changzy00",
    """
    fc.0.weight           R C 1 1    fc1.weight
    fc.2.weight           C R 1 1    fc2.weight
    """,
    lambda seen: {"channel": seen.sizes["C"]} | reduction(seen),
    returns="x · gate, gate = sigmoid(mlp(mean) + mlp(max))",
)
def ChannelAttention(channel: int, reduction: int = 16, **options: Any) -> Layer:
    return Gated(OurChannelAttention(channel, reduction, **options))


@module(
    "changzy00",
    """
    conv.weight           1 2 k k    conv1.weight
    """,
    lambda seen: {"kernel_size": seen.sizes["k"]},
    returns="x · gate, gate = sigmoid(conv([mean, max]))",
)
def SpatialAttention(kernel_size: int = 7, **options: Any) -> Layer:
    return Gated(OurSpatialAttention(kernel_size, **options))


@module(
    "changzy00",
    """
    ca.fc.0.weight        R C 1 1    ca.fc1.weight
    ca.fc.2.weight        C R 1 1    ca.fc2.weight
    sa.conv.weight        1 2 k k    sa.conv1.weight
    """,
    lambda seen: {"channel": seen.sizes["C"]} | reduction(seen) | {"kernel_size": seen.sizes["k"]},
    returns="u · sigmoid(conv([mean, max] of u)), u = x · sigmoid(mlp(mean) + mlp(max))",
)
def CBAM(channel: int, reduction: int = 16, kernel_size: int = 7, **options: Any) -> Layer:
    return OurCBAM(channel, reduction, kernel_size, **options)


@module(
    "changzy00",
    "",
    lambda seen: {},
    returns="x · gate, gate = sigmoid(d² / (4 (variance + λ)) + 1/2), d = x − mean",
    unseen=("channels", "e_lambda"),
)
def simam_module(channels: int | None = None, e_lambda: float = 1e-4, **options: Any) -> Layer:
    return SimAM(e_lambda, **options)  # channels is not read there
