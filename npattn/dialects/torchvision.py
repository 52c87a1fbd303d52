"""pytorch/vision (torchvision 0.29), torchvision/ops/misc.py.

One class for MobileNetV3, EfficientNet, RegNet and MaxViT, with another activation or gate in each. None of that is in
its state_dict, and timm's SEModule has the same keys. The two functions are given by the names of torch's classes.
"""

from __future__ import annotations

from typing import Any

from npattn import variants
from npattn.checks import one_of, whole_number
from npattn.dialects.table import Place, module, no_more
from npattn.layer import Layer

ACTIVATIONS = {"ReLU": "relu", "SiLU": "silu"}
GATES = {"Sigmoid": "sigmoid", "Hardsigmoid": "torch_hard_sigmoid"}


@module(
    "torchvision",
    """
    fc1.weight            R C 1 1    fc.0.weight
    fc1.bias              R          fc.0.bias
    fc2.weight            C R 1 1    fc.2.weight
    fc2.bias              C          fc.2.bias
    """,
    lambda seen: dict(zip(("input_channels", "squeeze_channels"), no_more(seen), strict=True)),
    returns="x · gate, gate = sigmoid(mlp(mean))",
    unseen=("activation", "scale_activation"),
    used='in MobileNetV3 with scale_activation="Hardsigmoid", in EfficientNet and MaxViT with activation="SiLU", in '
    "RegNet with neither",
    places=(
        Place(r"features\.\d+\.block\.[12]", "MobileNetV3", {"scale_activation": "Hardsigmoid"}),
        Place(r"features\.\d+\.\d+\.block\.[12]", "EfficientNet", {"activation": "SiLU"}),
        Place(r"trunk_output\.block\d+\.block\d+-\d+\.f\.se", "RegNet", {}),
        Place(r".*\.layers\.squeeze_excitation", "MaxViT", {"activation": "SiLU"}),
    ),
)
def SqueezeExcitation(
    input_channels: int, squeeze_channels: int, activation: str = "ReLU", scale_activation: str = "Sigmoid",
    **options: Any,
) -> Layer:  # fmt: skip
    act = ACTIVATIONS[one_of("activation", activation, tuple(ACTIVATIONS))]
    gate = GATES[one_of("scale_activation", scale_activation, tuple(GATES))]
    hidden = whole_number("squeeze_channels", squeeze_channels)
    return variants.SELayer(input_channels, hidden=hidden, bias=True, act=act, gate=gate, **options)
