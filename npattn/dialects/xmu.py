"""xmu-xiaoma666/External-Attention-pytorch, model/attention/CBAM.py, SEAttention.py, SGE.py and A2Atttention.py.

The maximum is the first map, the mean the second; the convolution has a bias; the block adds x; a kernel of 49 unless
told otherwise. ChannelAttention and SpatialAttention return their gate. SGE's gates start at ½, those of its authors at
sigmoid(1): its bias is 0 at first, theirs 1. Both softmaxes of DoubleAttention run over the descriptors, and it
does not add x.
"""

from __future__ import annotations

from typing import Any

from npattn import variants
from npattn.attention.channel import ChannelAttention as OurChannelAttention
from npattn.attention.double_attention import DoubleAttention as OurDoubleAttention
from npattn.attention.se import SELayer as OurSELayer
from npattn.attention.sge import SpatialGroupEnhance as OurSpatialGroupEnhance
from npattn.checks import true_or_false, whole_number
from npattn.dialects.table import module, one_stream, reduction
from npattn.layer import Layer

MAX_FIRST: dict[str, Any] = {"maps": ("max", "mean"), "bias": True}


@module(
    "xmu",
    """
    fc.0.weight           R C        fc.0.weight
    fc.2.weight           C R        fc.2.weight
    """,
    lambda seen: {"channel": seen.sizes["C"]} | reduction(seen),
    returns="x · gate, gate = sigmoid(mlp(mean))",
    same_as="article.SELayer",
)
def SEAttention(channel: int = 512, reduction: int = 16, **options: Any) -> Layer:
    return OurSELayer(channel, reduction, **options)


@module(
    "xmu",
    """
    se.0.weight           R C 1 1    fc1.weight
    se.2.weight           C R 1 1    fc2.weight
    """,
    lambda seen: {"channel": seen.sizes["C"]} | reduction(seen),
    returns="gate = sigmoid(mlp(max) + mlp(mean))",
)
def ChannelAttention(channel: int, reduction: int = 16, **options: Any) -> Layer:
    return OurChannelAttention(channel, reduction, **options)


@module(
    "xmu",
    """
    conv.weight           1 2 k k    conv1.weight
    conv.bias             1          conv1.bias
    """,
    lambda seen: {"kernel_size": seen.sizes["k"]},
    returns="gate = sigmoid(conv([max, mean]) + bias)",
)
def SpatialAttention(kernel_size: int = 7, **options: Any) -> Layer:
    return variants.SpatialAttention(kernel_size, **MAX_FIRST, **options)


@module(
    "xmu",
    """
    ca.se.0.weight        R C 1 1    ca.fc1.weight
    ca.se.2.weight        C R 1 1    ca.fc2.weight
    sa.conv.weight        1 2 k k    sa.conv1.weight
    sa.conv.bias          1          sa.conv1.bias
    """,
    lambda seen: {"channel": seen.sizes["C"]} | reduction(seen) | {"kernel_size": seen.sizes["k"]},
    returns="u · sigmoid(conv([max, mean] of u) + bias) + x, u = x · sigmoid(mlp(max) + mlp(mean))",
)
def CBAMBlock(channel: int = 512, reduction: int = 16, kernel_size: int = 49, **options: Any) -> Layer:
    options = one_stream(options)
    ca = OurChannelAttention(channel, reduction, **options)
    sa = variants.SpatialAttention(kernel_size, **MAX_FIRST, **options)
    return variants.CBAM(ca, sa, residual=True)


@module(
    "xmu",
    """
    weight                1 G 1 1    weight
    bias                  1 G 1 1    bias
    """,
    lambda seen: {"groups": seen.sizes["G"]},
    returns="x · gate, gate = sigmoid(weight · norm(Σ x · mean) + bias), in each group of channels",
)
def SpatialGroupEnhance(groups: int = 8, **options: Any) -> Layer:
    layer = OurSpatialGroupEnhance(groups, **options)
    layer.params["bias"] = 0 * layer.params["bias"]
    return layer


@module(
    "xmu",
    """
    convA.weight               M C 1 1    features.weight
    convA.bias                 M          features.bias
    convB.weight               K C 1 1    gather.weight
    convB.bias                 K          gather.bias
    convV.weight               K C 1 1    distribute.weight
    convV.bias                 K          distribute.bias
    conv_reconstruct.weight    C M 1 1    out.weight
    conv_reconstruct.bias      C          out.bias
    """,
    lambda seen: {"in_channels": seen.sizes["C"], "c_m": seen.sizes["M"], "c_n": seen.sizes["K"]},
    returns="conv of the sum over descriptors of softmax(conv(x)) · (sum over pixels of softmax(conv(x)) · conv(x)), "
    "both softmaxes over the descriptors",
)
def DoubleAttention(in_channels: int, c_m: int, c_n: int, reconstruct: bool = True, **options: Any) -> Layer:
    if not true_or_false("reconstruct", reconstruct):
        raise ValueError("reconstruct: expected True, since without it y has c_m channels, got False")
    c_m, c_n = whole_number("c_m", c_m), whole_number("c_n", c_n)
    return OurDoubleAttention(
        in_channels, features=c_m, descriptors=c_n, over="descriptors", residual=False, bias=True, **options
    )
