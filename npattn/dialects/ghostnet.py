"""huawei-noah's GhostNet in PyTorch, ghostnet_pytorch/ghostnet.py, and the many that took its SqueezeExcite over.

The keys are those of timm's SqueezeExcite, which is the older one; the gate is not: relu6(x + 3) / 6.
"""

from __future__ import annotations

from typing import Any

from npattn import variants
from npattn.checks import real_number, whole_number
from npattn.dialects.mmpretrain import divisible
from npattn.dialects.table import Seen, module, no_more
from npattn.layer import Layer


def width(in_chs: int, se_ratio: float, reduced_base_chs: int | None, divisor: int) -> int:
    """The hidden width there: a share of the channels, to a multiple of the divisor."""
    base = whole_number("in_chs", in_chs) if reduced_base_chs is None else reduced_base_chs
    share = whole_number("reduced_base_chs", base) * real_number("se_ratio", se_ratio, least=0)
    return divisible(share, whole_number("divisor", divisor))


def arguments(seen: Seen) -> dict[str, Any]:
    C, R = seen.sizes["C"], seen.sizes["R"]
    if width(C, 0.25, None, 4) == R:
        return {"in_chs": C}
    no_more(seen)
    return {"in_chs": C, "se_ratio": R / C, "divisor": 1}


@module(
    "ghostnet",
    """
    conv_reduce.weight    R C 1 1    fc.0.weight
    conv_reduce.bias      R          fc.0.bias
    conv_expand.weight    C R 1 1    fc.2.weight
    conv_expand.bias      C          fc.2.bias
    """,
    arguments,
    returns="x · gate, gate = hard_sigmoid(mlp(mean))",
    used="in GhostNet, as blocks.N.M.se",
)
def SqueezeExcite(
    in_chs: int, se_ratio: float = 0.25, reduced_base_chs: int | None = None, divisor: int = 4, **options: Any
) -> Layer:
    hidden = width(in_chs, se_ratio, reduced_base_chs, divisor)
    return variants.SELayer(in_chs, hidden=hidden, bias=True, gate="hard_sigmoid", **options)
