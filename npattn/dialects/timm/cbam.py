"""timm's CBAM: cbam.py. The two halves of CbamModule are not offered by `create_attn`, nor here."""

from __future__ import annotations

from typing import Any

from npattn import variants
from npattn.dialects.table import Seen, module, one_stream
from npattn.dialects.timm.rules import act_of, channels_of, gate_of, width
from npattn.layer import Layer


def cbam_arguments(seen: Seen) -> dict[str, Any]:
    return channels_of(seen, 1, "mlp_bias", usual=False) | {"spatial_kernel_size": seen.sizes["k"]}


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
