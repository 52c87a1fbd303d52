"""d-li14/mobilenetv3.pytorch, mobilenetv3.py, and d-li14/efficientnetv2.pytorch, effnetv2.py.

Both have a class SELayer of two nn.Linear with biases, with the same keys. In the one a ReLU and relu6(x + 3) / 6, in
the other a SiLU and a sigmoid. The second goes by the name SELayerV2 here.
"""

from __future__ import annotations

from typing import Any

from npattn import variants
from npattn.checks import whole_number
from npattn.dialects.mmpretrain import divisible
from npattn.dialects.table import Misfit, Seen, module, no_more, reduction
from npattn.layer import Layer


def of_mobilenet(seen: Seen) -> dict[str, Any]:
    no_more(seen)
    return {"channel": seen.sizes["C"]} | reduction(seen, usual=4)


@module(
    "dli14",
    """
    fc.0.weight           R C        fc.0.weight
    fc.0.bias             R          fc.0.bias
    fc.2.weight           C R        fc.2.weight
    fc.2.bias             C          fc.2.bias
    """,
    of_mobilenet,
    returns="x · gate, gate = hard_sigmoid(mlp(mean))",
    used="in mobilenetv3.pytorch, as features.N.conv.M",
)
def SELayer(channel: int, reduction: int = 4, **options: Any) -> Layer:
    return variants.SELayer(channel, reduction, bias=True, gate="hard_sigmoid", **options)


def of_efficientnet(seen: Seen) -> dict[str, Any]:
    C, R = no_more(seen)
    # the width follows from the unit's input, of which C is what it expands to, four or six times as much
    for inp in (C // 4, C // 6, 4 * R):
        if divisible(inp // 4, 8) == R:
            return {"inp": inp, "oup": C}
    raise Misfit(f"expected a multiple of 8 hidden units, got {R}")


@module(
    "dli14",
    """
    fc.0.weight           R C        fc.0.weight
    fc.0.bias             R          fc.0.bias
    fc.2.weight           C R        fc.2.weight
    fc.2.bias             C          fc.2.bias
    """,
    of_efficientnet,
    returns="x · gate, gate = sigmoid(mlp(mean)), the mlp with a SiLU",
    used="in efficientnetv2.pytorch, as features.N.conv.6",
)
def SELayerV2(inp: int, oup: int, reduction: int = 4, **options: Any) -> Layer:
    hidden = divisible(whole_number("inp", inp) // whole_number("reduction", reduction), 8)
    return variants.SELayer(oup, hidden=hidden, bias=True, act="silu", **options)
