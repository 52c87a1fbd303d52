"""Modules that say in PyTorch what a paper says, where its authors' code is not at hand: no repository has them.

scSE: SE's two FC as 1×1 convolutions with biases, a third to one channel, and the sum of the two products.
"""

from __future__ import annotations

from typing import Any

from npattn.attention.scse import ScSE as OurScSE
from npattn.dialects.table import module, reduction
from npattn.layer import Layer


@module(
    "paper",
    """
    fc1.weight            R C 1 1    fc1.weight
    fc1.bias              R          fc1.bias
    fc2.weight            C R 1 1    fc2.weight
    fc2.bias              C          fc2.bias
    conv.weight           1 C 1 1    conv.weight
    conv.bias             1          conv.bias
    """,
    lambda seen: {"channels": seen.sizes["C"]} | reduction(seen, usual=2),
    returns="x · sigmoid(mlp(mean)) + x · sigmoid(conv(x))",
)
def ScSE(channels: int, reduction: int = 2, **options: Any) -> Layer:
    return OurScSE(channels, reduction, **options)
