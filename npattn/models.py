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

`se_resnet` is the smallest network in the style of He et al. and Hu et al.: residual units with SE in their branches.

    stage    maps         what
    stem     16 × 14×14   as stage1 above
    unit1    16 × 14×14   x + branch – ReLU; branch: conv 3×3 – BN – ReLU – conv 3×3 – BN – attention
    unit2    32 × 7×7     2×2 max pooling, then the same; the skip path has a 1×1 convolution and BN, for 16 → 32
    unit3    32 × 7×7     as unit1
    head     32 → 10      global average pooling, linear
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, Unpack

import numpy as np

from npattn.arguments import explained
from npattn.attention.gate import Gated
from npattn.attention.residual import Residual
from npattn.backend import Array
from npattn.block import Place
from npattn.blocks import Entry, blocks, canonical, folded
from npattn.capacity import shapes_only
from npattn.checks import one_of
from npattn.grad_mode import no_grad
from npattn.layer import Layer, Options
from npattn.nested import Sequential
from npattn.ops.batch_norm import BatchNorm2d
from npattn.ops.conv2d import Conv2d
from npattn.ops.global_avg_pool import GlobalAvgPool
from npattn.ops.linear import Linear
from npattn.ops.max_pool_2x2 import MaxPool2x2
from npattn.ops.relu import ReLU
from npattn.state import generator

RATIO = 8  # the usual one, instead of 16: 32 channels are few


def attentions() -> tuple[str, ...]:
    """What can stand in the stages: nothing, any block that there is, or, to compare with, one more convolution.

    Returns
    -------
    tuple of str
        Names, "none" first and "conv" last.
    """
    return ("none", *blocks(), "conv")


def attention_named(name: str) -> str:
    """The one of `attentions()` that is meant: "cbam" for "CBAM", "none" for "None". Raises ValueError if none is."""
    short = folded(name) if isinstance(name, str) else ""
    meant = short if short in ("none", "conv") else canonical(name)
    return one_of("attention", meant, attentions())


def with_attention(layers: dict[str, Layer], attention: str, place: Place, options: Options) -> dict[str, Layer]:
    """The layers with an attention behind them, if asked for; or beside them, if it is made from their own input."""
    if attention == "none":
        return layers
    if attention == "conv":
        return {**layers, "attention": Conv2d(place.C, place.C, 3, bias=False, **options)}
    entry = blocks()[attention]
    most = entry.card.most_pixels
    if most is not None and most < place.H * place.W:
        return layers
    if entry.card.beside:
        return {"beside": entry.layer(place, transform=Sequential(**layers), **options)}
    place = dataclasses.replace(place, B=None)  # it sees what the layers make
    if not entry.card.gate:
        check_keeps_shape(entry, place)
    layer = entry.layer(place, **options)
    return {**layers, "attention": Gated(layer) if entry.card.gate else layer}


def check_keeps_shape(entry: Entry, place: Place) -> None:
    """Raise ValueError if what the block gives has another shape than what it takes: the layers behind count on it.

    It is asked by a forward of zeros, with weights that take no memory.
    """
    given = (1, place.C, place.H, place.W)
    with shapes_only(), no_grad():
        found = entry.layer(place, fused=False).eval().forward(np.zeros(given, np.float32)).shape
    if found != given:
        raise ValueError(
            f"attention: expected a block that gives the shape that it takes, as these networks need it, got "
            f"{entry.name}, which makes {found} of {given}"
        )


CLASSES = 10


def stem(outputs: int, **options: Unpack[Options]) -> Sequential:
    """The first stage, on one channel: convolution, pooling, batch normalisation, ReLU."""
    return Sequential(
        conv=Conv2d(1, outputs, 3, bias=False, **options),  # no bias: batch norm has one
        pool=MaxPool2x2(**options),
        bn=BatchNorm2d(outputs, **options),
        relu=ReLU(**options),
    )


def stage(inputs: int, outputs: int, size: int, attention: str, pool: bool, **options: Unpack[Options]) -> Sequential:
    """Convolution, batch normalisation, ReLU, and, if asked for, attention and pooling."""
    layers: dict[str, Layer] = {
        "conv": Conv2d(inputs, outputs, 3, bias=False, **options),
        "bn": BatchNorm2d(outputs, **options),
        "relu": ReLU(**options),
    }
    layers = with_attention(layers, attention, Place(outputs, size, size, r=RATIO, B=inputs), options)
    if pool:
        layers["pool"] = MaxPool2x2(**options)
    return Sequential(**layers)


@explained
def digits(attention: str = "cbam", **options: Unpack[Options]) -> Sequential:
    """The demo's network: images (N, 1, 28, 28) to scores (N, 10).

    Parameters
    ----------
    attention
        "none", "se", "channel", "spatial", "cbam", or any other of `attentions()`.
    **options
        `dtype`, `rng`, `xp` and `fused`, as in `npattn.Layer`.

    Returns
    -------
    Sequential
        In training mode. Its stages are layers by name.

    Raises
    ------
    ValueError
        If attention is none of these.
    """
    attention = attention_named(attention)
    options["rng"] = generator(options.get("rng"))  # one stream for all layers: no two start alike
    return Sequential(
        stage1=stem(16, **options),
        stage2=stage(16, 32, 14, attention, pool=True, **options),
        stage3=stage(32, 64, 7, attention, pool=False, **options),
        stage4=stage(64, 64, 7, "none", pool=False, **options),
        pool=GlobalAvgPool(**options),
        head=Linear(64, CLASSES, **options),
    )


def unit(inputs: int, outputs: int, size: int, attention: str, **options: Unpack[Options]) -> Residual:
    """A residual unit of two convolutions, with the attention, if asked for, at the end of the branch."""
    layers: dict[str, Layer] = {
        "conv1": Conv2d(inputs, outputs, 3, bias=False, **options),
        "bn1": BatchNorm2d(outputs, **options),
        "relu": ReLU(**options),
        "conv2": Conv2d(outputs, outputs, 3, bias=False, **options),
        "bn2": BatchNorm2d(outputs, **options),
    }
    layers = with_attention(layers, attention, Place(outputs, size, size, r=RATIO, B=inputs), options)
    if inputs == outputs:
        return Residual(Sequential(**layers))
    skip = Sequential(conv=Conv2d(inputs, outputs, 1, bias=False, **options), bn=BatchNorm2d(outputs, **options))
    return Residual(Sequential(**layers), skip)


@explained
def se_resnet(attention: str = "se", **options: Unpack[Options]) -> Sequential:
    """A small SE-ResNet: images (N, 1, 28, 28) to scores (N, 10).

    Parameters
    ----------
    attention
        What stands at the end of each branch: "se", "none" for the same network without, or any other of
        `attentions()`.
    **options
        `dtype`, `rng`, `xp` and `fused`, as in `npattn.Layer`.

    Returns
    -------
    Sequential
        In training mode. Its stages are layers by name.

    Raises
    ------
    ValueError
        If attention is none of these.
    """
    attention = attention_named(attention)
    options["rng"] = generator(options.get("rng"))
    return Sequential(
        stem=stem(16, **options),
        unit1=unit(16, 16, 14, attention, **options),
        relu1=ReLU(**options),
        pool1=MaxPool2x2(**options),
        unit2=unit(16, 32, 7, attention, **options),
        relu2=ReLU(**options),
        unit3=unit(32, 32, 7, attention, **options),
        relu3=ReLU(**options),
        pool=GlobalAvgPool(**options),
        head=Linear(32, CLASSES, **options),
    )


class Network(NamedTuple):
    """A network that `npattn train` knows."""

    build: Callable[..., Sequential]  # (attention, **options)
    attention: str  # the one that it has unless another is asked for


NETWORKS = {"digits": Network(digits, "cbam"), "se-resnet": Network(se_resnet, "se")}
"""By the name that `--model` takes."""


def table(model: Sequential, x: Array) -> list[tuple[str, str, tuple[int, ...], int]]:
    """One row a layer: name, layer, shape of its output for the input x, number of parameters."""
    rows = []
    for name, layer in model.layers.items():
        rows += rows_of(name, layer, x)
        x = layer.forward(x)
    return rows


def rows_of(name: str, layer: Layer, x: Array) -> list[tuple[str, str, tuple[int, ...], int]]:
    """The rows of one layer, or of the layers that it is made of."""
    if isinstance(layer, Sequential):
        return [(f"{name}.{inner}", what, shape, count) for inner, what, shape, count in table(layer, x)]
    if isinstance(layer, Residual):
        inside = [row for part, inner in layer.layers.items() for row in rows_of(f"{name}.{part}", inner, x)]
        return [*inside, (name, "+", tuple(layer.forward(x).shape), 0)]
    return [(name, repr(layer), tuple(layer.forward(x).shape), layer.count())]
