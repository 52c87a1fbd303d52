"""Jongchan/attention-module, MODELS/cbam.py and bam.py: the code of CBAM's and BAM's authors.

Biases in the MLP; any of four pools; the maximum is the first map, the mean the second; batch norm with a momentum of
0.01 between the spatial convolution and its gate; a 7×7 kernel always. Every class of CBAM's returns x · gate.

BAM has a sixteenth of the channels as hidden units and a dilation of 4, always, and multiplies what channel and pixel
say. Where the map is no square, the code there fails or, with more columns than rows, pools over the first ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from npattn import variants
from npattn.attention.bam import BAM as OurBAM
from npattn.attention.gate import Gated
from npattn.checks import names_of
from npattn.dialects.table import Misfit, Seen, module, one_stream, reduction
from npattn.layer import Layer

SPATIAL: dict[str, Any] = {"maps": ("max", "mean"), "norm": True, "momentum": 0.01}
POOLS = ("avg", "max", "lp", "lse")
DEFAULT_POOLS = ("avg", "max")


def channel_attention(gate_channels: int, reduction_ratio: int, pool_types: Sequence[str], options: Any) -> Layer:
    """The gate alone. Raises TypeError or ValueError for unknown pool types, by the name that they have there."""
    pools = names_of("pool_types", pool_types, POOLS)
    return variants.ChannelAttention(gate_channels, reduction_ratio, bias=True, pools=pools, **options)


def gate_arguments(seen: Seen) -> dict[str, Any]:
    return {"gate_channels": seen.sizes["C"]} | reduction(seen, "reduction_ratio")


@module(
    "official",
    """
    mlp.1.weight                                  R C        fc1.weight
    mlp.1.bias                                    R          fc1.bias
    mlp.3.weight                                  C R        fc2.weight
    mlp.3.bias                                    C          fc2.bias
    """,
    gate_arguments,
    returns="x · gate, gate = sigmoid(mlp(mean) + mlp(max))",
    unseen=("pool_types",),
)
def ChannelGate(
    gate_channels: int, reduction_ratio: int = 16, pool_types: Sequence[str] = DEFAULT_POOLS, **options: Any
) -> Layer:
    return Gated(channel_attention(gate_channels, reduction_ratio, pool_types, options))


@module(
    "official",
    """
    spatial.conv.weight                           1 2 7 7    conv1.weight
    spatial.bn.weight                             1          bn.weight
    spatial.bn.bias                               1          bn.bias
    spatial.bn.running_mean                       1          bn.running_mean
    spatial.bn.running_var                        1          bn.running_var
    spatial.bn.num_batches_tracked                -          batches
    """,
    lambda seen: {},
    returns="x · gate, gate = sigmoid(norm(conv([max, mean])))",
)
def SpatialGate(**options: Any) -> Layer:
    return Gated(variants.SpatialAttention(7, **SPATIAL, **options))


@module(
    "official",
    """
    ChannelGate.mlp.1.weight                      R C        ca.fc1.weight
    ChannelGate.mlp.1.bias                        R          ca.fc1.bias
    ChannelGate.mlp.3.weight                      C R        ca.fc2.weight
    ChannelGate.mlp.3.bias                        C          ca.fc2.bias
    SpatialGate.spatial.conv.weight               1 2 7 7    sa.conv1.weight        spatial
    SpatialGate.spatial.bn.weight                 1          sa.bn.weight           spatial
    SpatialGate.spatial.bn.bias                   1          sa.bn.bias             spatial
    SpatialGate.spatial.bn.running_mean           1          sa.bn.running_mean     spatial
    SpatialGate.spatial.bn.running_var            1          sa.bn.running_var      spatial
    SpatialGate.spatial.bn.num_batches_tracked    -          batches                spatial
    """,
    lambda seen: gate_arguments(seen) | ({} if "spatial" in seen.present else {"no_spatial": True}),
    returns="u · sigmoid(norm(conv([max, mean] of u))), u = x · sigmoid(mlp(mean) + mlp(max))",
    unseen=("pool_types",),
)
def CBAM(
    gate_channels: int, reduction_ratio: int = 16, pool_types: Sequence[str] = DEFAULT_POOLS, no_spatial: bool = False,
    **options: Any,
) -> Layer:  # fmt: skip
    options = one_stream(options)
    ca = channel_attention(gate_channels, reduction_ratio, pool_types, options)
    sa = None if no_spatial else variants.SpatialAttention(7, **SPATIAL, **options)
    return variants.CBAM(ca, sa)


def bam_arguments(seen: Seen) -> dict[str, Any]:
    """gate_channel. Raises Misfit for another hidden width than a sixteenth, the only one there."""
    C, R = seen.sizes["C"], seen.sizes["R"]
    if C // 16 != R:
        raise Misfit(f"expected {C} // 16 hidden units, the only number there, got {R}")
    return {"gate_channel": C}


@module(
    "official",
    """
    channel_att.gate_c.gate_c_fc_0.weight                     R C        channel.conv.weight
    channel_att.gate_c.gate_c_fc_0.bias                       R          channel.conv.bias
    channel_att.gate_c.gate_c_bn_1.weight                     R          channel.bn.weight
    channel_att.gate_c.gate_c_bn_1.bias                       R          channel.bn.bias
    channel_att.gate_c.gate_c_bn_1.running_mean               R          channel.bn.running_mean
    channel_att.gate_c.gate_c_bn_1.running_var                R          channel.bn.running_var
    channel_att.gate_c.gate_c_bn_1.num_batches_tracked        -          batches
    channel_att.gate_c.gate_c_fc_final.weight                 C R        channel_out.weight
    channel_att.gate_c.gate_c_fc_final.bias                   C          channel_out.bias
    spatial_att.gate_s.gate_s_conv_reduce0.weight             R C 1 1    reduce.conv.weight
    spatial_att.gate_s.gate_s_conv_reduce0.bias               R          reduce.conv.bias
    spatial_att.gate_s.gate_s_bn_reduce0.weight               R          reduce.bn.weight
    spatial_att.gate_s.gate_s_bn_reduce0.bias                 R          reduce.bn.bias
    spatial_att.gate_s.gate_s_bn_reduce0.running_mean         R          reduce.bn.running_mean
    spatial_att.gate_s.gate_s_bn_reduce0.running_var          R          reduce.bn.running_var
    spatial_att.gate_s.gate_s_bn_reduce0.num_batches_tracked  -          batches
    spatial_att.gate_s.gate_s_conv_di_0.weight                R R 3 3    first.conv.weight
    spatial_att.gate_s.gate_s_conv_di_0.bias                  R          first.conv.bias
    spatial_att.gate_s.gate_s_bn_di_0.weight                  R          first.bn.weight
    spatial_att.gate_s.gate_s_bn_di_0.bias                    R          first.bn.bias
    spatial_att.gate_s.gate_s_bn_di_0.running_mean            R          first.bn.running_mean
    spatial_att.gate_s.gate_s_bn_di_0.running_var             R          first.bn.running_var
    spatial_att.gate_s.gate_s_bn_di_0.num_batches_tracked     -          batches
    spatial_att.gate_s.gate_s_conv_di_1.weight                R R 3 3    second.conv.weight
    spatial_att.gate_s.gate_s_conv_di_1.bias                  R          second.conv.bias
    spatial_att.gate_s.gate_s_bn_di_1.weight                  R          second.bn.weight
    spatial_att.gate_s.gate_s_bn_di_1.bias                    R          second.bn.bias
    spatial_att.gate_s.gate_s_bn_di_1.running_mean            R          second.bn.running_mean
    spatial_att.gate_s.gate_s_bn_di_1.running_var             R          second.bn.running_var
    spatial_att.gate_s.gate_s_bn_di_1.num_batches_tracked     -          batches
    spatial_att.gate_s.gate_s_conv_final.weight               1 R 1 1    spatial_out.weight
    spatial_att.gate_s.gate_s_conv_final.bias                 1          spatial_out.bias
    """,
    bam_arguments,
    returns="x · (1 + gate), gate = sigmoid(mlp(mean) · conv(dilated(dilated(conv(x)))))",
)
def BAM(gate_channel: int, **options: Any) -> Layer:
    return OurBAM(gate_channel, 16, bias=True, **options)
