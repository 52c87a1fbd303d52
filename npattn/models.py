"""The tiny networks that the demo trains.

`digits` is the default: four stages of convolution, batch normalisation and ReLU, two of them with attention, ending
in global average pooling and one linear layer. That ending is what class activation maps are made from.

    stage    maps         what
    stage1   16 × 28×28   conv 3×3, 2×2 max pooling – BN – ReLU: pooled at once, so that the rest has a quarter to do;
                          no attention, since a stroke's edge says little about a digit
    stage2   32 × 14×14   conv 3×3 – BN – ReLU – attention, 2×2 max pooling
    stage3   64 × 7×7     conv 3×3 – BN – ReLU – attention
    stage4   64 × 7×7     conv 3×3 – BN – ReLU: no attention, since no layer after it would take out a common factor,
                          and gates that can raise all scores at once learn to stay open, at 1
    head     64 → 10      global average pooling, linear
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import numpy as np

from npattn.attention.cbam import CBAM
from npattn.attention.channel import ChannelAttention
from npattn.attention.gate import Gated
from npattn.attention.se import SELayer
from npattn.attention.spatial import SpatialAttention
from npattn.backend import Array
from npattn.layer import Layer, Options, Sequential
from npattn.ops.activation import ReLU
from npattn.ops.batch_norm import BatchNorm2d
from npattn.ops.conv2d import Conv2d
from npattn.ops.linear import Linear
from npattn.ops.pooling import GlobalAvgPool, MaxPool2x2

ATTENTIONS: dict[str, Callable[..., Layer] | None] = {
    "none": None,
    "se": lambda channels, **options: SELayer(channels, reduction=8, **options),
    "channel": lambda channels, **options: Gated(ChannelAttention(channels, ratio=8, **options)),
    "spatial": lambda channels, **options: Gated(SpatialAttention(kernel_size=7, **options)),
    "cbam": lambda channels, **options: CBAM(channels, ratio=8, kernel_size=7, **options),
}
"""What can stand in the stages. The ratio is 8 instead of 16, since 32 channels are few."""

CLASSES = 10


def stem(outputs: int, **options: Unpack[Options]) -> Sequential:
    """The first stage, on one channel: convolution, pooling, batch normalisation, ReLU."""
    return Sequential(
        conv=Conv2d(1, outputs, 3, bias=False, **options),  # no bias: batch norm has one
        pool=MaxPool2x2(**options),
        bn=BatchNorm2d(outputs, **options),
        relu=ReLU(**options),
    )


def stage(inputs: int, outputs: int, attention: str, pool: bool, **options: Unpack[Options]) -> Sequential:
    """Convolution, batch normalisation, ReLU, and, if asked for, attention and pooling."""
    layers: dict[str, Layer] = {
        "conv": Conv2d(inputs, outputs, 3, bias=False, **options),
        "bn": BatchNorm2d(outputs, **options),
        "relu": ReLU(**options),
    }
    make = ATTENTIONS[attention]
    if make is not None:
        layers["attention"] = make(outputs, **options)
    if pool:
        layers["pool"] = MaxPool2x2(**options)
    return Sequential(**layers)


def digits(attention: str = "cbam", **options: Unpack[Options]) -> Sequential:
    """The demo's network: images (N, 1, 28, 28) to scores (N, 10).

    Parameters
    ----------
    attention
        "none", "se", "channel", "spatial" or "cbam".
    dtype, rng, xp, fused
        As in `npattn.Layer`.

    Raises
    ------
    ValueError
        If attention is none of these.
    """
    if attention not in ATTENTIONS:
        raise ValueError(f"attention: expected one of {', '.join(ATTENTIONS)}, got {attention!r}")
    options["rng"] = np.random.default_rng(options.get("rng"))  # one stream for all layers: no two start alike
    return Sequential(
        stage1=stem(16, **options),
        stage2=stage(16, 32, attention, pool=True, **options),
        stage3=stage(32, 64, attention, pool=False, **options),
        stage4=stage(64, 64, "none", pool=False, **options),
        pool=GlobalAvgPool(**options),
        head=Linear(64, CLASSES, **options),
    )


def table(model: Sequential, x: Array) -> list[tuple[str, str, tuple[int, ...], int]]:
    """One row a layer: name, layer, shape of its output for the input x, number of parameters."""
    rows = []
    for name, layer in model.layers.items():
        if isinstance(layer, Sequential):
            rows += [(f"{name}.{inner}", what, shape, count) for inner, what, shape, count in table(layer, x)]
            x = layer.forward(x)
        else:
            x = layer.forward(x)
            rows.append((name, repr(layer), tuple(x.shape), layer.count()))
    return rows
