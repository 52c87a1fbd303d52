"""timm's non-local attention: non_local_attn.py.

Its scale is one over the root of in_channels, where the paper's authors have that of the hidden width.
"""

from __future__ import annotations

from typing import Any

from npattn.attention.non_local import NonLocal
from npattn.checks import real_number, whole_number
from npattn.dialects.table import Seen, module
from npattn.dialects.timm.rules import divisible
from npattn.layer import Layer


def non_local_arguments(seen: Seen) -> dict[str, Any]:
    C, R = seen.sizes["C"], seen.sizes["R"]
    return {"in_channels": C} | ({} if divisible(C / 8, 8, 0.9) == R else {"rd_channels": R})


@module(
    "timm",
    """
    t.weight                     R C 1 1    theta.weight
    t.bias                       R          theta.bias
    p.weight                     R C 1 1    phi.weight
    p.bias                       R          phi.bias
    g.weight                     R C 1 1    g.weight
    g.bias                       R          g.bias
    z.weight                     C R 1 1    out.weight
    z.bias                       C          out.bias
    norm.weight                  C          bn.weight
    norm.bias                    C          bn.bias
    norm.running_mean            C          bn.running_mean
    norm.running_var             C          bn.running_var
    norm.num_batches_tracked     -          batches
    """,
    non_local_arguments,
    returns="x + norm(z(softmax(scale · t(x)ᵀ p(x)) g(x)))",
    unseen=("use_scale",),
)
def NonLocalAttn(
    in_channels: int, use_scale: bool = True, rd_ratio: float = 1 / 8, rd_channels: int | None = None,
    rd_divisor: int = 8, **options: Any,
) -> Layer:  # fmt: skip
    C = whole_number("in_channels", in_channels)
    if rd_channels is None:
        rounded = whole_number("rd_divisor", rd_divisor)
        rd_channels = divisible(C * real_number("rd_ratio", rd_ratio, least=0), rounded, 0.9)
    R = whole_number("rd_channels", rd_channels)
    return NonLocal(C, hidden=R, scale=C**-0.5 if use_scale else 1.0, bias=True, **options)
