"""timm's squeeze-and-excitation: squeeze_excite.py, and timm/models/_efficientnet_blocks.py for SqueezeExcite."""

from __future__ import annotations

from typing import Any

from npattn import variants
from npattn.checks import real_number, whole_number
from npattn.dialects.table import Seen, module, no_more
from npattn.dialects.timm.rules import act_of, channels_of, gate_of, only, width
from npattn.layer import Layer


@module(
    "timm",
    """
    fc1.weight                              R C 1 1    fc.0.weight
    fc1.bias                                R          fc.0.bias           bias
    fc2.weight                              C R 1 1    fc.2.weight
    fc2.bias                                C          fc.2.bias           bias
    """,
    lambda seen: channels_of(seen, 8, "bias", usual=True),
    returns="x · gate, gate = sigmoid(mlp(mean))",
    unseen=("add_maxpool", "gate_layer", "act_layer"),
    used="in SE-ResNets as layerN.M.se, in RegNets as sN.bM.se with the activation of the network",
)
def SEModule(
    channels: int, rd_ratio: float = 1 / 16, rd_channels: int | None = None, rd_divisor: int = 8,
    add_maxpool: bool = False, bias: bool = True, act_layer: str = "relu", norm_layer: None = None,
    gate_layer: str = "sigmoid", **options: Any,
) -> Layer:  # fmt: skip
    only("norm_layer", norm_layer, None)
    return variants.SELayer(
        channels, hidden=width(channels, rd_ratio, rd_channels, rd_divisor), bias=bias, act=act_of(act_layer),
        gate=gate_of(gate_layer), **squeezed(add_maxpool), **options,
    )  # fmt: skip


def squeeze_arguments(seen: Seen) -> dict[str, Any]:
    C, R = no_more(seen)
    return {"in_chs": C} | ({} if round(C * 0.25) == R else {"rd_channels": R})


@module(
    "timm",
    """
    conv_reduce.weight                      R C 1 1    fc.0.weight
    conv_reduce.bias                        R          fc.0.bias
    conv_expand.weight                      C R 1 1    fc.2.weight
    conv_expand.bias                        C          fc.2.bias
    """,
    squeeze_arguments,
    returns="x · gate, gate = sigmoid(mlp(mean))",
    unseen=("act_layer", "gate_layer"),
    used='as blocks.N.M.se, in EfficientNet with act_layer="silu", in MobileNetV3 with gate_layer="hard_sigmoid"',
)
def SqueezeExcite(
    in_chs: int, rd_ratio: float = 0.25, rd_channels: int | None = None, act_layer: str = "relu",
    gate_layer: str = "sigmoid", force_act_layer: str | None = None, rd_round_fn: None = None, **options: Any,
) -> Layer:  # fmt: skip
    only("rd_round_fn", rd_round_fn, None)
    if rd_channels is None:
        rd_channels = round(whole_number("in_chs", in_chs) * real_number("rd_ratio", rd_ratio, least=0))
    return variants.SELayer(
        in_chs, hidden=whole_number("rd_channels", rd_channels), bias=True, act=act_of(force_act_layer or act_layer),
        gate=gate_of(gate_layer), **options,
    )  # fmt: skip


def squeezed(add_maxpool: bool) -> dict[str, Any]:
    """What SE squeezes by: the means, or half the means and half the maxima."""
    return {"pools": ("avg", "max"), "mix": "before", "max_tie": "even"} if add_maxpool else {}


@module(
    "timm",
    """
    fc.weight                               C C 1 1    fc.0.weight
    fc.bias                                 C          fc.0.bias
    """,
    lambda seen: {"channels": seen.sizes["C"]},
    returns="x · gate, gate = hard_sigmoid(fc(mean))",
    unseen=("add_maxpool", "gate_layer"),
)
def EffectiveSEModule(
    channels: int, add_maxpool: bool = False, gate_layer: str = "hard_sigmoid", **options: Any
) -> Layer:
    return variants.SELayer(channels, layers=1, bias=True, gate=gate_of(gate_layer), **squeezed(add_maxpool), **options)
