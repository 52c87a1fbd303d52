"""Jongchan/attention-module, MODELS/cbam.py: the code of CBAM's authors.

Biases in the MLP; any of four pools; the maximum is the first map, the mean the second; batch norm with a momentum of
0.01 between the spatial convolution and its gate; a 7×7 kernel always. Every class returns x · gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from npattn import variants
from npattn.attention.gate import Gated
from npattn.checks import names_of
from npattn.dialects.table import Seen, module, one_stream, reduction
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
