"""changzy00/pytorch-attention, attention-mechanisms/cbam.py, gct.py, lct.py and triplet_attention.py;
attention_mechanisms/se_module.py, simam.py, srm.py, gate_channel_module.py, dual_attention.py
and double_attention.py.

Its ChannelAttention and SpatialAttention multiply: they return x · gate. SimAM and GCT have no state_dict to tell them
by: an empty one is loaded. It has two classes that it calls GCT: that of gct.py, the Gaussian one, has the name here,
that of gate_channel_module.py is GateChannel. Its SRM has no ε beside the variance of a channel. Its
TripletAttention has biases, and a ReLU before each gate, so that none is below ½. Its CAM is as DANet's paper has it,
not as DANet's authors' code: channels that look alike count. Its DoubleAttention does not add x.
"""

from __future__ import annotations

from typing import Any

from npattn.attention.cbam import CBAM as OurCBAM
from npattn.attention.channel import ChannelAttention as OurChannelAttention
from npattn.attention.danet_channel import DANetChannel
from npattn.attention.danet_position import DANetPosition
from npattn.attention.double_attention import DoubleAttention as OurDoubleAttention
from npattn.attention.gate import Gated
from npattn.attention.gated_channel import GatedChannel
from npattn.attention.gaussian_context import GaussianContext
from npattn.attention.linear_context import LinearContext
from npattn.attention.se import SELayer as OurSELayer
from npattn.attention.simam import SimAM
from npattn.attention.spatial import SpatialAttention as OurSpatialAttention
from npattn.attention.srm import StyleRecalibration
from npattn.attention.triplet import TripletAttention as OurTripletAttention
from npattn.checks import one_of, real_number, whole_number
from npattn.dialects.table import module, reduction
from npattn.layer import Layer


@module(
    "changzy00",
    """
    fc.0.weight           R C        fc.0.weight
    fc.2.weight           C R        fc.2.weight
    """,
    lambda seen: {"channel": seen.sizes["C"]} | reduction(seen),
    returns="x · gate, gate = sigmoid(mlp(mean))",
    same_as="article.SELayer",
)
def SELayer(channel: int, reduction: int = 16, **options: Any) -> Layer:
    return OurSELayer(channel, reduction, **options)


@module(
    "changzy00",
    """
    fc.0.weight           R C 1 1    fc1.weight
    fc.2.weight           C R 1 1    fc2.weight
    """,
    lambda seen: {"channel": seen.sizes["C"]} | reduction(seen),
    returns="x · gate, gate = sigmoid(mlp(mean) + mlp(max))",
)
def ChannelAttention(channel: int, reduction: int = 16, **options: Any) -> Layer:
    return Gated(OurChannelAttention(channel, reduction, **options))


@module(
    "changzy00",
    """
    conv.weight           1 2 k k    conv1.weight
    """,
    lambda seen: {"kernel_size": seen.sizes["k"]},
    returns="x · gate, gate = sigmoid(conv([mean, max]))",
)
def SpatialAttention(kernel_size: int = 7, **options: Any) -> Layer:
    return Gated(OurSpatialAttention(kernel_size, **options))


@module(
    "changzy00",
    """
    ca.fc.0.weight        R C 1 1    ca.fc1.weight
    ca.fc.2.weight        C R 1 1    ca.fc2.weight
    sa.conv.weight        1 2 k k    sa.conv1.weight
    """,
    lambda seen: {"channel": seen.sizes["C"]} | reduction(seen) | {"kernel_size": seen.sizes["k"]},
    returns="u · sigmoid(conv([mean, max] of u)), u = x · sigmoid(mlp(mean) + mlp(max))",
)
def CBAM(channel: int, reduction: int = 16, kernel_size: int = 7, **options: Any) -> Layer:
    return OurCBAM(channel, reduction, kernel_size, **options)


@module(
    "changzy00",
    "",
    lambda seen: {},
    returns="x · gate, gate = sigmoid(d² / (4 (variance + λ)) + 1/2), d = x − mean",
    unseen=("channels", "e_lambda"),
)
def simam_module(channels: int | None = None, e_lambda: float = 1e-4, **options: Any) -> Layer:
    return SimAM(e_lambda, **options)  # channels is not read there


@module(
    "changzy00",
    """
    cfc.weight                C 1 2      cfc.weight
    bn.weight                 C          bn.weight
    bn.bias                   C          bn.bias
    bn.running_mean           C          bn.running_mean
    bn.running_var            C          bn.running_var
    bn.num_batches_tracked    -          batches
    """,
    lambda seen: {"channel": seen.sizes["C"]},
    returns="x · gate, gate = sigmoid(norm(w0 mean + w1 std))",
)
def SRM(channel: int, **options: Any) -> Layer:
    return StyleRecalibration(channel, eps=0, **options)


@module(
    "changzy00",
    "",
    lambda seen: {"channels": 1},
    returns="x · gate, gate = exp(−c/2 · norm(mean)²), normalised over the channels",
    unseen=("channels", "c", "eps"),
)
def GCT(channels: int, c: float = 2, eps: float = 1e-5, **options: Any) -> Layer:
    # channels is not read there; c is one over the square of the paper's
    return GaussianContext(real_number("c", c, least=1e-30) ** -0.5, eps=eps, **options)


@module(
    "changzy00",
    """
    alpha                     1 C 1 1    alpha
    gamma                     1 C 1 1    gamma
    beta                      1 C 1 1    beta
    """,
    lambda seen: {"num_channels": seen.sizes["C"]},
    returns="x · gate, gate = 1 + tanh(gamma · norm(alpha · length) + beta)",
    unseen=("epsilon",),
)
def GateChannel(
    num_channels: int, epsilon: float = 1e-5, mode: str = "l2", after_relu: bool = False, **options: Any
) -> Layer:
    one_of("mode", mode, ("l2",))  # "l1" is not spoken here, and after_relu is read with it alone
    return GatedChannel(num_channels, epsilon=epsilon, **options)


@module(
    "changzy00",
    """
    w                         C          w
    b                         C          b
    """,
    lambda seen: {"channels": seen.sizes["C"], "groups": 1},
    returns="x · gate, gate = sigmoid(w · norm(mean) + b), normalised in each group of channels",
    unseen=("groups", "eps"),
)
def LCT(channels: int, groups: int, eps: float = 1e-5, **options: Any) -> Layer:
    return LinearContext(channels, groups, eps=eps, **options)


@module(
    "changzy00",
    """
    ch.conv.conv.weight                1 2 k k    ch.conv.weight
    ch.conv.conv.bias                  1          ch.conv.bias
    ch.conv.bn.weight                  1          ch.bn.weight
    ch.conv.bn.bias                    1          ch.bn.bias
    ch.conv.bn.running_mean            1          ch.bn.running_mean
    ch.conv.bn.running_var             1          ch.bn.running_var
    ch.conv.bn.num_batches_tracked     -          batches
    cw.conv.conv.weight                1 2 k k    cw.conv.weight
    cw.conv.conv.bias                  1          cw.conv.bias
    cw.conv.bn.weight                  1          cw.bn.weight
    cw.conv.bn.bias                    1          cw.bn.bias
    cw.conv.bn.running_mean            1          cw.bn.running_mean
    cw.conv.bn.running_var             1          cw.bn.running_var
    cw.conv.bn.num_batches_tracked     -          batches
    hw.conv.conv.weight                1 2 k k    hw.conv.weight
    hw.conv.conv.bias                  1          hw.conv.bias
    hw.conv.bn.weight                  1          hw.bn.weight
    hw.conv.bn.bias                    1          hw.bn.bias
    hw.conv.bn.running_mean            1          hw.bn.running_mean
    hw.conv.bn.running_var             1          hw.bn.running_var
    hw.conv.bn.num_batches_tracked     -          batches
    """,
    lambda seen: {"kernel_size": seen.sizes["k"]},
    returns="the mean of x · gate, three times: gate = sigmoid(relu(norm(conv([mean, max] over W, H or C))))",
)
def TripletAttention(kernel_size: int = 7, **options: Any) -> Layer:
    return OurTripletAttention(kernel_size, bias=True, rectify=True, **options)


@module(
    "changzy00",
    """
    alpha           1            gamma
    b.weight        C C 1 1      query_conv.weight
    b.bias          C            query_conv.bias
    c.weight        C C 1 1      key_conv.weight
    c.bias          C            key_conv.bias
    d.weight        C C 1 1      value_conv.weight
    d.bias          C            value_conv.bias
    """,
    lambda seen: {"dim": seen.sizes["C"]},
    returns="x + alpha · softmax(b(x)ᵀ c(x)) d(x), over the pixels",
)
def PAM(dim: int, **options: Any) -> Layer:
    return DANetPosition(dim, ratio=1, bias=True, **options)


@module(
    "changzy00",
    """
    beta            1            gamma
    """,
    lambda seen: {},
    returns="x + beta · softmax(x xᵀ) x, over the channels",
)
def CAM(**options: Any) -> Layer:
    return DANetChannel(**options)


@module(
    "changzy00",
    """
    convA.weight          M C 1 1    features.weight
    convA.bias            M          features.bias
    convB.weight          K C 1 1    gather.weight
    convB.bias            K          gather.bias
    convV.weight          K C 1 1    distribute.weight
    convV.bias            K          distribute.bias
    proj.weight           C M 1 1    out.weight
    proj.bias             C          out.bias
    """,
    lambda seen: {"in_channels": seen.sizes["C"], "c_m": seen.sizes["M"], "c_n": seen.sizes["K"]},
    returns="conv of the sum over descriptors of softmax(conv(x)) · (sum over pixels of softmax(conv(x)) · conv(x))",
)
def DoubleAttention(in_channels: int, c_m: int, c_n: int, **options: Any) -> Layer:
    c_m, c_n = whole_number("c_m", c_m), whole_number("c_n", c_n)
    return OurDoubleAttention(in_channels, features=c_m, descriptors=c_n, residual=False, bias=True, **options)
