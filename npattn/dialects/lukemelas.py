"""lukemelas/EfficientNet-PyTorch, efficientnet_pytorch/model.py.

There is no class for it there: `_se_reduce` and `_se_expand` are two convolutions of MBConvBlock, among its others.
What goes by the name SE here is these two. C are the channels that the block expands to.
"""

from __future__ import annotations

from typing import Any

from npattn import variants
from npattn.checks import whole_number
from npattn.dialects.table import module, no_more
from npattn.layer import Layer


@module(
    "lukemelas",
    """
    _se_reduce.weight     R C 1 1    fc.0.weight
    _se_reduce.bias       R          fc.0.bias
    _se_expand.weight     C R 1 1    fc.2.weight
    _se_expand.bias       C          fc.2.bias
    """,
    lambda seen: dict(zip(("channels", "squeezed"), no_more(seen), strict=True)),
    returns="x · gate, gate = sigmoid(mlp(mean)), the mlp with a SiLU",
    among=True,
)
def SE(channels: int, squeezed: int, **options: Any) -> Layer:
    return variants.SELayer(channels, hidden=whole_number("squeezed", squeezed), bias=True, act="silu", **options)
