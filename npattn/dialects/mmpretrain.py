"""open-mmlab/mmpretrain (1.0), mmpretrain/models/utils/se_layer.py, on mmcv's ConvModule.

Its activations are written as there, a dict of a type for each: `act_cfg=(dict(type="ReLU"), dict(type="HSigmoid"))`.
mmcv's HSigmoid is (x + 3) / 6, cut at 0 and 1, unless it is told other numbers, which are not spoken here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npattn import variants
from npattn.checks import shown, whole_number
from npattn.dialects.table import Seen, module, no_more
from npattn.layer import Layer

USUAL = ({"type": "ReLU"}, {"type": "Sigmoid"})
ACTIVATIONS = {"ReLU": "relu", "SiLU": "silu", "Swish": "silu"}
GATES = {"Sigmoid": "sigmoid", "HSigmoid": "hard_sigmoid"}


def divisible(width: float, divisor: int) -> int:
    """The multiple of the divisor that is nearest to `width`, the next one if that takes more than a tenth away."""
    near = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * width else near


def arguments(seen: Seen) -> dict[str, Any]:
    C, R = no_more(seen) if seen.sizes["R"] != divisible(seen.sizes["C"] // 16, 8) else (seen.sizes["C"], None)
    return {"channels": C} | ({} if R is None else {"squeeze_channels": R}) | bias_of(seen)


def bias_of(seen: Seen) -> dict[str, Any]:
    return {} if "bias" in seen.present else {"bias": False}


@module(
    "mmpretrain",
    """
    conv1.conv.weight     R C 1 1    fc.0.weight
    conv1.conv.bias       R          fc.0.bias      bias
    conv2.conv.weight     C R 1 1    fc.2.weight
    conv2.conv.bias       C          fc.2.bias      bias
    """,
    arguments,
    returns="x · gate, gate = sigmoid(mlp(mean))",
    unseen=("act_cfg",),
    used='in MobileNetV3 with act_cfg=(dict(type="ReLU"), dict(type="HSigmoid")), in EfficientNet with '
    'act_cfg=(dict(type="Swish"), dict(type="Sigmoid"))',
)
def SELayer(
    channels: int, squeeze_channels: int | None = None, ratio: int = 16, divisor: int = 8, bias: bool | str = "auto",
    act_cfg: Any = USUAL, **options: Any,
) -> Layer:  # fmt: skip
    channels, ratio, divisor = (
        whole_number(name, value) for name, value in (("channels", channels), ("ratio", ratio), ("divisor", divisor))
    )
    if not (isinstance(bias, bool | np.bool_) or (isinstance(bias, str) and bias == "auto")):
        raise ValueError(f"bias: expected True, False or 'auto', got {shown(bias)}")
    hidden = divisible(channels // ratio, divisor) if squeeze_channels is None else squeeze_channels
    act, gate = functions(act_cfg)
    return variants.SELayer(
        channels, hidden=whole_number("squeeze_channels", hidden), bias=bool(bias), act=act, gate=gate, **options
    )


def functions(act_cfg: Any) -> tuple[str, str]:
    """Ours for the activation and the gate. Raises ValueError for what is not spoken."""
    wanted = f"expected two dicts, the type of one out of {', '.join(ACTIVATIONS)}, of the other out of "
    try:
        (first, second) = ({**config} for config in act_cfg)
        act, gate = ACTIVATIONS[first.pop("type")], GATES[second.pop("type")]
        second = {name: value for name, value in second.items() if (name, value) not in HSIGMOID}
        if {**first, **second}.keys() - {"inplace"}:
            raise ValueError
    except (TypeError, ValueError, KeyError):
        raise ValueError(f"act_cfg: {wanted}{', '.join(GATES)}, got {act_cfg!r}") from None
    return act, gate


HSIGMOID = (("bias", 3.0), ("divisor", 6.0), ("min_value", 0.0), ("max_value", 1.0))
