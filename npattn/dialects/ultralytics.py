"""ultralytics/ultralytics, ultralytics/nn/modules/conv.py.

Its channel attention is one FC with a bias, of the means alone: no maximum, no bottleneck, no ReLU. All three return
x · gate. A kernel of 3 or 7 only, by an assertion.
"""

from __future__ import annotations

from typing import Any

from npattn import variants
from npattn.attention.gate import Gated
from npattn.attention.spatial import SpatialAttention as OurSpatialAttention
from npattn.dialects.table import module, one_stream, three_or_seven
from npattn.layer import Layer

ONE_FC: dict[str, Any] = {"pools": ("avg",), "layers": 1, "bias": True}


@module(
    "ultralytics",
    """
    fc.weight                        C C 1 1    fc1.weight
    fc.bias                          C          fc1.bias
    """,
    lambda seen: {"channels": seen.sizes["C"]},
    returns="x · gate, gate = sigmoid(fc(mean))",
)
def ChannelAttention(channels: int, **options: Any) -> Layer:
    return Gated(variants.ChannelAttention(channels, **ONE_FC, **options))


@module(
    "ultralytics",
    """
    cv1.weight                       1 2 k k    conv1.weight
    """,
    lambda seen: {"kernel_size": three_or_seven(seen.sizes["k"])},
    returns="x · gate, gate = sigmoid(conv([mean, max]))",
)
def SpatialAttention(kernel_size: int = 7, **options: Any) -> Layer:
    return Gated(OurSpatialAttention(three_or_seven(kernel_size), **options))


@module(
    "ultralytics",
    """
    channel_attention.fc.weight      C C 1 1    ca.fc1.weight
    channel_attention.fc.bias        C          ca.fc1.bias
    spatial_attention.cv1.weight     1 2 k k    sa.conv1.weight
    """,
    lambda seen: {"c1": seen.sizes["C"], "kernel_size": three_or_seven(seen.sizes["k"])},
    returns="u · sigmoid(conv([mean, max] of u)), u = x · sigmoid(fc(mean))",
)
def CBAM(c1: int, kernel_size: int = 7, **options: Any) -> Layer:
    options = one_stream(options)
    ca = variants.ChannelAttention(c1, **ONE_FC, **options)
    sa = OurSpatialAttention(three_or_seven(kernel_size), **options)
    return variants.CBAM(ca, sa)
