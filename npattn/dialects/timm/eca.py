"""timm's efficient channel attention: eca.py."""

from __future__ import annotations

import math
from typing import Any

from npattn.attention.eca import ECA
from npattn.checks import real_number, whole_number
from npattn.dialects.table import Misfit, Seen, module
from npattn.dialects.timm.rules import divisible, gate_of, only
from npattn.layer import Layer


def eca_kernel(channels: int, gamma: float, beta: float) -> int:
    """The kernel that grows with log2 C: |log2 C + β| / γ, cut to a whole number, made odd upwards, at least 3."""
    C, gamma, beta = whole_number("channels", channels), real_number("gamma", gamma, 1e-6), real_number("beta", beta)
    t = int(abs(math.log(C, 2) + beta) / gamma)
    return max(t + 1 - t % 2, 3)


def eca_arguments(seen: Seen) -> dict[str, Any]:
    """channels decides k, and R unless rd_channels does: some that give both, of the many that do."""
    if "mlp" not in seen.present:
        return {"kernel_size": seen.sizes["k"]}
    R, k = seen.sizes["R"], seen.sizes["k"]
    for C in (8 * R, *(2**i for i in range(20))):
        if eca_kernel(C, 2, 1) == k:
            given = {} if divisible(C / 8, 8, 0.9) == R else {"rd_channels": R}
            return {"channels": C, "use_mlp": True} | given
    raise Misfit(f"no number of channels up to 524,288 makes a kernel of {k}")


@module(
    "timm",
    """
    conv.weight                             1 1 k      conv.weight         plain
    conv.weight                             R 1 1      fc.weight           mlp
    conv.bias                               R          fc.bias             mlp
    conv2.weight                            1 R k      conv.weight         mlp
    conv2.bias                              1          conv.bias           mlp
    """,
    eca_arguments,
    returns="x · gate, gate = sigmoid(conv along the channels of mean)",
    unseen=("gate_layer", "act_layer"),
)
def EcaModule(
    channels: int | None = None, kernel_size: int = 3, gamma: float = 2, beta: float = 1,
    act_layer: str | None = None, gate_layer: str = "sigmoid", rd_ratio: float = 1 / 8,
    rd_channels: int | None = None, rd_divisor: int = 8, use_mlp: bool = False, **options: Any,
) -> Layer:  # fmt: skip
    k = kernel_size if channels is None else eca_kernel(channels, gamma, beta)
    if not use_mlp:
        only("act_layer", act_layer, None)
        return ECA(None, k, gate=gate_of(gate_layer), **options)  # channels decides k and nothing else there
    if channels is None:
        raise ValueError("channels: expected a number, which is asserted there with use_mlp, got None")
    only("act_layer", act_layer or "relu", "relu")
    ratio = real_number("rd_ratio", rd_ratio, least=0)
    R = rd_channels or divisible(channels * ratio, whole_number("rd_divisor", rd_divisor), 0.9)
    return ECA(None, k, hidden=whole_number("rd_channels", R), gate=gate_of(gate_layer), **options)


@module(
    "timm",
    """
    conv.weight                             1 1 k      conv.weight
    """,
    lambda seen: {"kernel_size": seen.sizes["k"]},
    returns="x · gate, gate = sigmoid(conv along the channels of mean, in a circle)",
    unseen=("gate_layer",),
)
def CecaModule(
    channels: int | None = None, kernel_size: int = 3, gamma: float = 2, beta: float = 1, act_layer: None = None,
    gate_layer: str = "sigmoid", **options: Any,
) -> Layer:  # fmt: skip
    only("act_layer", act_layer, None)
    k = kernel_size if channels is None else eca_kernel(channels, gamma, beta)
    return ECA(None, k, ends="ring", gate=gate_of(gate_layer), **options)
