"""moskomule/senet.pytorch, se_module.py in its first version: biases, and `reduction` is the hidden width itself.

Later versions have no biases and divide by `reduction`: they are the article's SELayer.
"""

from __future__ import annotations

from typing import Any

from npattn import variants
from npattn.checks import whole_number
from npattn.dialects.table import Seen, module, no_more
from npattn.layer import Layer


def arguments(seen: Seen) -> dict[str, Any]:
    C, R = no_more(seen)
    return {"channel": C, "reduction": R}


@module(
    "moskomule",
    """
    fc.0.weight           R C        fc.0.weight
    fc.0.bias             R          fc.0.bias
    fc.2.weight           C R        fc.2.weight
    fc.2.bias             C          fc.2.bias
    """,
    arguments,
    returns="x · gate, gate = sigmoid(mlp(mean))",
    used="in its first SE-ResNets, as layerN.M.se, and by whoever writes SE with biases",
)
def SELayer(channel: int, reduction: int = 16, **options: Any) -> Layer:
    return variants.SELayer(channel, hidden=whole_number("reduction", reduction), bias=True, **options)
