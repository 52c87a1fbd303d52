"""timm's strip attention: StripAttn of coord_attn.py."""

from __future__ import annotations

from typing import Any

from npattn.attention.strip import StripAttention
from npattn.dialects.table import module
from npattn.dialects.timm.rules import only
from npattn.layer import Layer


@module(
    "timm",
    """
    conv_h.weight                           C 1 k 1    conv_h.weight
    conv_h.bias                             C          conv_h.bias         bias
    conv_w.weight                           C 1 1 k    conv_w.weight
    conv_w.bias                             C          conv_w.bias         bias
    """,
    lambda seen: (
        {"channels": seen.sizes["C"]}
        | ({} if seen.sizes["k"] == 3 else {"kernel_size": seen.sizes["k"]})
        | ({"bias": True} if "bias" in seen.present else {})
    ),
    returns="x · sigmoid(conv(means of the rows) + conv(means of the columns)), each channel by itself",
    unseen=("gate_layer", "has_skip"),
)
def StripAttn(
    channels: int, use_conv: bool = True, kernel_size: int = 3, bias: bool = False, gate_layer: str = "sigmoid",
    has_skip: bool = False, **options: Any,
) -> Layer:  # fmt: skip
    for name, given, spoken in (
        ("use_conv", use_conv, True), ("gate_layer", gate_layer, "sigmoid"), ("has_skip", has_skip, False),
    ):  # fmt: skip
        only(name, given, spoken)
    return StripAttention(channels, kernel_size, bias=bias, **options)
