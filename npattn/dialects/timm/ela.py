"""timm's efficient local attention: coord_attn.py."""

from __future__ import annotations

from typing import Any

from npattn.attention.ela import EfficientLocalAttention
from npattn.dialects.table import module
from npattn.dialects.timm.rules import only
from npattn.layer import Layer


@module(
    "timm",
    """
    conv_h.weight                           C 1 k 1    conv_h.weight
    conv_w.weight                           C 1 1 k    conv_w.weight
    norm_h.weight                           C          norm_h.weight
    norm_h.bias                             C          norm_h.bias
    norm_w.weight                           C          norm_w.weight
    norm_w.bias                             C          norm_w.bias
    """,
    lambda seen: {"channels": seen.sizes["C"]} | ({} if seen.sizes["k"] == 7 else {"kernel_size": seen.sizes["k"]}),
    returns="x · g_h · g_w, the gates = sigmoid(silu(norm(conv(means of the rows, or of the columns))))",
    unseen=("act_layer", "gate_layer", "has_skip"),
)
def EfficientLocalAttn(
    channels: int, kernel_size: int = 7, bias: bool = False, act_layer: str = "silu", gate_layer: str = "sigmoid",
    norm_layer: str = "groupnorm1", has_skip: bool = False, **options: Any,
) -> Layer:  # fmt: skip
    for name, given, spoken in (
        ("bias", bias, False), ("act_layer", act_layer, "silu"), ("gate_layer", gate_layer, "sigmoid"),
        ("norm_layer", norm_layer, "groupnorm1"), ("has_skip", has_skip, False),
    ):  # fmt: skip
        only(name, given, spoken)
    return EfficientLocalAttention(channels, kernel_size, groups=1, act="silu", **options)
