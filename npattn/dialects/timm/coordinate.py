"""timm's coordinate attention: coord_attn.py."""

from __future__ import annotations

from typing import Any

from npattn.attention.coordinate import CoordinateAttention
from npattn.attention.simple_coordinate import SimpleCoordinateAttention
from npattn.checks import real_number, whole_number
from npattn.dialects.table import Seen, module, no_more
from npattn.dialects.timm.rules import divisible, only
from npattn.layer import Layer

SE_FACTOR = 2 / 3  # three matrices have as many weights as the two of an SE then


def hidden_of(channels: int, rd_ratio: float, rd_channels: int | None, rd_divisor: int, se_factor: float) -> int:
    """The hidden width: rd_channels if it is given (and not 0), else channels · rd_ratio · se_factor, rounded."""
    if rd_channels:
        return whole_number("rd_channels", rd_channels)
    channels, rd_divisor = whole_number("channels", channels), whole_number("rd_divisor", rd_divisor)
    rd_ratio, se_factor = (
        real_number(name, value, least=0) for name, value in (("rd_ratio", rd_ratio), ("se_factor", se_factor))
    )
    return divisible(channels * rd_ratio * se_factor, rd_divisor)


def coordinate_arguments(seen: Seen, rd_ratio: float) -> dict[str, Any]:
    """channels, and rd_channels where the default rule gives another width."""
    C, R = seen.sizes["C"], seen.sizes["R"]
    if hidden_of(C, rd_ratio, None, 8, SE_FACTOR) == R:
        return {"channels": C}
    no_more(seen)
    return {"channels": C, "rd_channels": R}


@module(
    "timm",
    """
    conv1.weight                            R C 1 1    conv1.weight
    bn1.weight                              R          bn1.weight
    bn1.bias                                R          bn1.bias
    bn1.running_mean                        R          bn1.running_mean
    bn1.running_var                         R          bn1.running_var
    bn1.num_batches_tracked                 -          batches
    conv_h.weight                           C R 1 1    conv_h.weight
    conv_w.weight                           C R 1 1    conv_w.weight
    """,
    lambda seen: coordinate_arguments(seen, 1 / 16),
    returns="x · g_h · g_w, the gates = sigmoid(w hard_swish(norm(w1 [means of the rows, of the columns])))",
    unseen=("act_layer", "gate_layer", "has_skip"),
)
def CoordAttn(
    channels: int, rd_ratio: float = 1 / 16, rd_channels: int | None = None, rd_divisor: int = 8,
    se_factor: float = SE_FACTOR, bias: bool = False, act_layer: str = "hard_swish", norm_layer: str = "batchnorm2d",
    gate_layer: str = "sigmoid", has_skip: bool = False, **options: Any,
) -> Layer:  # fmt: skip
    for name, given, spoken in (
        ("bias", bias, False), ("act_layer", act_layer, "hard_swish"), ("norm_layer", norm_layer, "batchnorm2d"),
        ("gate_layer", gate_layer, "sigmoid"), ("has_skip", has_skip, False),
    ):  # fmt: skip
        only(name, given, spoken)
    R = hidden_of(channels, rd_ratio, rd_channels, rd_divisor, se_factor)
    return CoordinateAttention(channels, hidden=R, **options)


@module(
    "timm",
    """
    fc1.weight                              R C        fc1.weight
    fc1.bias                                R          fc1.bias            bias
    fc_h.weight                             C R        fc_h.weight
    fc_h.bias                               C          fc_h.bias           bias
    fc_w.weight                             C R        fc_w.weight
    fc_w.bias                               C          fc_w.bias           bias
    """,
    lambda seen: coordinate_arguments(seen, 1 / 4) | ({} if "bias" in seen.present else {"bias": False}),
    returns="x · sigmoid(w_h silu(w1 means of the rows) + w_w silu(w1 means of the columns))",
    unseen=("act_layer", "gate_layer", "has_skip"),
)
def SimpleCoordAttn(
    channels: int, rd_ratio: float = 0.25, rd_channels: int | None = None, rd_divisor: int = 8,
    se_factor: float = SE_FACTOR, bias: bool = True, act_layer: str = "silu", gate_layer: str = "sigmoid",
    has_skip: bool = False, **options: Any,
) -> Layer:  # fmt: skip
    for name, given, spoken in (
        ("act_layer", act_layer, "silu"), ("gate_layer", gate_layer, "sigmoid"), ("has_skip", has_skip, False),
    ):  # fmt: skip
        only(name, given, spoken)
    R = hidden_of(channels, rd_ratio, rd_channels, rd_divisor, se_factor)
    return SimpleCoordinateAttention(channels, hidden=R, bias=bias, **options)
