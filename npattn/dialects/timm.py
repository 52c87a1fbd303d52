"""huggingface/pytorch-image-models (timm 1.0), timm/layers/squeeze_excite.py, cbam.py and eca.py; for SqueezeExcite
timm/models/_efficientnet_blocks.py.

What is its own: amax instead of max, so that tied maxima share a gradient evenly; hidden widths rounded to a multiple
of rd_divisor; batch norm between the spatial convolution and its gate; a "light" class that averages mean and maximum
before anything else. Every class returns x · gate. Other activations than ReLU and SiLU, and a norm inside of SE, are
not spoken here and are refused. CbamModule's two halves are not offered by `create_attn`, nor here.
"""

from __future__ import annotations

import math
from typing import Any

from npattn import variants
from npattn.attention.eca import ECA
from npattn.checks import real_number, whole_number
from npattn.dialects.table import Misfit, Seen, module, no_more, one_stream
from npattn.layer import Layer


def divisible(width: float, divisor: int, limit: float = 0) -> int:
    """The multiple of the divisor that is nearest to `width`, halves upwards, and never 0: timm's rounding rule.

    If that is below `limit` times the width, the next one above it.
    """
    nearest = max(1, int(width + divisor / 2) // divisor) * divisor
    return nearest + divisor * (nearest < limit * width)


def width(channels: int, rd_ratio: float, rd_channels: int | None, rd_divisor: int) -> int:
    """The hidden width: rd_channels if it is given (and not 0), else channels · rd_ratio, rounded."""
    if rd_channels:
        return whole_number("rd_channels", rd_channels)
    channels, rd_divisor = whole_number("channels", channels), whole_number("rd_divisor", rd_divisor)
    return divisible(channels * real_number("rd_ratio", rd_ratio, least=0), rd_divisor)


def gate_of(gate_layer: str) -> str:
    """Ours for a gate of timm's: sigmoid, or the hard sigmoid with PyTorch's slope. Raises ValueError for others."""
    ours = {"sigmoid": "sigmoid", "hard_sigmoid": "torch_hard_sigmoid"}
    if gate_layer not in ours:
        raise ValueError(f"gate_layer: expected one of {', '.join(ours)}, which are spoken here, got {gate_layer!r}")
    return ours[gate_layer]


def act_of(act_layer: str) -> str:
    """Ours for an activation of timm's. Raises ValueError for others."""
    ours = {"relu": "relu", "silu": "silu", "swish": "silu"}
    if act_layer not in ours:
        raise ValueError(f"act_layer: expected one of {', '.join(ours)}, which are spoken here, got {act_layer!r}")
    return ours[act_layer]


def only(name: str, given: Any, spoken: Any) -> None:
    """Raise ValueError for an argument with another value than the one that is spoken here."""
    if given != spoken:
        raise ValueError(f"{name}: expected {spoken!r}, the only one spoken here, got {given!r}")


def channels_of(seen: Seen, divisor: int, bias: str, usual: bool) -> dict[str, Any]:
    """The arguments of a bottleneck: rd_channels where the default rule gives another width."""
    C, R = seen.sizes["C"], seen.sizes["R"]
    if width(C, 1 / 16, None, divisor) != R:
        no_more(seen)
    given = {} if width(C, 1 / 16, None, divisor) == R else {"rd_channels": R}
    return {"channels": C} | given | ({} if ("bias" in seen.present) is usual else {bias: not usual})


def cbam_arguments(seen: Seen) -> dict[str, Any]:
    return channels_of(seen, 1, "mlp_bias", usual=False) | {"spatial_kernel_size": seen.sizes["k"]}


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


@module(
    "timm",
    """
    channel.fc1.weight                      R C 1 1    ca.fc1.weight
    channel.fc1.bias                        R          ca.fc1.bias         bias
    channel.fc2.weight                      C R 1 1    ca.fc2.weight
    channel.fc2.bias                        C          ca.fc2.bias         bias
    spatial.conv.conv.weight                1 2 k k    sa.conv1.weight
    spatial.conv.bn.weight                  1          sa.bn.weight
    spatial.conv.bn.bias                    1          sa.bn.bias
    spatial.conv.bn.running_mean            1          sa.bn.running_mean
    spatial.conv.bn.running_var             1          sa.bn.running_var
    spatial.conv.bn.num_batches_tracked     -          batches
    """,
    cbam_arguments,
    returns="u · sigmoid(norm(conv([mean, max] of u))), u = x · sigmoid(mlp(mean) + mlp(max))",
    unseen=("gate_layer", "act_layer"),
)
def CbamModule(
    channels: int, rd_ratio: float = 1 / 16, rd_channels: int | None = None, rd_divisor: int = 1,
    spatial_kernel_size: int = 7, act_layer: str = "relu", gate_layer: str = "sigmoid", mlp_bias: bool = False,
    **options: Any,
) -> Layer:  # fmt: skip
    R, act = width(channels, rd_ratio, rd_channels, rd_divisor), act_of(act_layer)
    gate = gate_of(gate_layer)
    options = one_stream(options)
    ca = variants.ChannelAttention(channels, hidden=R, bias=mlp_bias, act=act, gate=gate, max_tie="even", **options)
    sa = variants.SpatialAttention(spatial_kernel_size, norm=True, gate=gate, max_tie="even", **options)
    return variants.CBAM(ca, sa)


@module(
    "timm",
    """
    channel.fc1.weight                      R C 1 1    ca.fc1.weight
    channel.fc1.bias                        R          ca.fc1.bias         bias
    channel.fc2.weight                      C R 1 1    ca.fc2.weight
    channel.fc2.bias                        C          ca.fc2.bias         bias
    spatial.conv.conv.weight                1 1 k k    sa.conv1.weight
    spatial.conv.bn.weight                  1          sa.bn.weight
    spatial.conv.bn.bias                    1          sa.bn.bias
    spatial.conv.bn.running_mean            1          sa.bn.running_mean
    spatial.conv.bn.running_var             1          sa.bn.running_var
    spatial.conv.bn.num_batches_tracked     -          batches
    """,
    cbam_arguments,
    returns="u · sigmoid(norm(conv((mean + max) / 2 of u))), u = x · sigmoid(mlp((mean + max) / 2))",
    unseen=("act_layer",),
)
def LightCbamModule(
    channels: int, rd_ratio: float = 1 / 16, rd_channels: int | None = None, rd_divisor: int = 1,
    spatial_kernel_size: int = 7, act_layer: str = "relu", gate_layer: str = "sigmoid", mlp_bias: bool = False,
    **options: Any,
) -> Layer:  # fmt: skip
    R, act = width(channels, rd_ratio, rd_channels, rd_divisor), act_of(act_layer)
    # gate_layer is not read there by either gate: sigmoids whatever it says
    options = one_stream(options)
    ca = variants.ChannelAttention(channels, hidden=R, bias=mlp_bias, act=act, mix="before", max_tie="even", **options)
    sa = variants.SpatialAttention(spatial_kernel_size, mix="mean", norm=True, max_tie="even", **options)
    return variants.CBAM(ca, sa)
