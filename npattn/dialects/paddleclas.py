"""PaddlePaddle/PaddleClas, ppcls/arch/backbone/legendary_models/pp_lcnet.py and mobilenet_v3.py.

Two files there have a class SEModule with the same keys and shapes. Their hard sigmoids have different slopes: Paddle's
own, 0.1666667, and 0.2. Here `slope` says which; there it is an argument of the gate, and of no SEModule.
"""

from __future__ import annotations

from typing import Any

from npattn import variants
from npattn.dialects.table import Seen, module, no_more, reduction
from npattn.layer import Layer

SLOPES = {0.1666667: "paddle_hard_sigmoid", 0.2: "hard_sigmoid_5"}


def arguments(seen: Seen) -> dict[str, Any]:
    no_more(seen)
    return {"channel": seen.sizes["C"]} | reduction(seen, usual=4)


@module(
    "paddleclas",
    """
    conv1.weight          R C 1 1    fc.0.weight
    conv1.bias            R          fc.0.bias
    conv2.weight          C R 1 1    fc.2.weight
    conv2.bias            C          fc.2.bias
    """,
    arguments,
    returns="x · gate, gate = hard_sigmoid(mlp(mean))",
    unseen=("slope",),
    used="in PP-LCNet with slope=0.1666667, in MobileNetV3 with slope=0.2",
)
def SEModule(channel: int, reduction: int = 4, slope: float = 0.1666667, **options: Any) -> Layer:
    if slope not in SLOPES:
        raise ValueError(f"slope: expected one of {', '.join(map(str, SLOPES))}, got {slope!r}")
    return variants.SELayer(channel, reduction, bias=True, gate=SLOPES[slope], **options)
