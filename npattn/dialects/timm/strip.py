"""timm's strip attention: StripAttn of coord_attn.py."""

from __future__ import annotations

from typing import Any

from npattn.attention.strip import StripAttention
from npattn.dialects.table import Misfit, Seen, module
from npattn.dialects.timm.rules import only
from npattn.layer import Layer


def strip_arguments(seen: Seen) -> dict[str, Any]:
    """channels, and what is not as usual. Raises Misfit where there are no weights to see anything by."""
    if "conv" not in seen.present:
        raise Misfit("expected weights: a form without any cannot be told from others")
    k = {} if seen.sizes["k"] == 3 else {"kernel_size": seen.sizes["k"]}
    return {"channels": seen.sizes["C"]} | k | ({"bias": True} if "bias" in seen.present else {})


@module(
    "timm",
    """
    conv_h.weight                           C 1 k 1    conv_h.weight       conv
    conv_h.bias                             C          conv_h.bias         bias
    conv_w.weight                           C 1 1 k    conv_w.weight       conv
    conv_w.bias                             C          conv_w.bias         bias
    """,
    strip_arguments,
    returns="x · sigmoid(conv(means of the rows) + conv(means of the columns)), each channel by itself",
    unseen=("gate_layer", "has_skip"),
)
def StripAttn(
    channels: int, use_conv: bool = True, kernel_size: int = 3, bias: bool = False, gate_layer: str = "sigmoid",
    has_skip: bool = False, **options: Any,
) -> Layer:  # fmt: skip
    for name, given, spoken in (("gate_layer", gate_layer, "sigmoid"), ("has_skip", has_skip, False)):
        only(name, given, spoken)
    return StripAttention(channels, kernel_size, bias=bias, convolve=use_conv, **options)
