"""timm's own classes with our weights: huggingface/pytorch-image-models, timm/layers/cbam.py and squeeze_excite.py.

They compute what the article's do, in their own words: means and `amax` instead of pooling layers. Equal maxima share
the gradient there, so they are compared on data without ties only.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from npattn.bench.peers import with_weights

Arrays = Mapping[str, np.ndarray]

PEERS: dict[str, dict[str, str]] = {
    "se": {"fc.0.weight": "fc1.weight", "fc.2.weight": "fc2.weight"},
    "cbam": {
        "ca.fc1.weight": "channel.fc1.weight",
        "ca.fc2.weight": "channel.fc2.weight",
        "sa.conv1.weight": "spatial.conv.conv.weight",
    },
}
"""The blocks that timm has, and timm's names for our keys."""


def layers() -> Any:
    """timm.layers, or None where timm is not installed."""
    try:
        return importlib.import_module("timm.layers")
    except ImportError:
        return None


def renamed(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """By timm's keys what is there by ours."""
    return {PEERS[name][key]: value for key, value in values.items()}


def peer(torch: Any, name: str, state: Arrays) -> Any:
    """timm's module for a block of PEERS, with these weights."""
    theirs = renamed(name, state)
    if name == "se":
        R, C = state["fc.0.weight"].shape
        theirs = {key: value[:, :, None, None] for key, value in theirs.items()}  # it has 1 × 1 convolutions there
        module = layers().get_attn("se")(C, rd_channels=R, bias=False)
    else:
        R, C = state["ca.fc1.weight"].shape[:2]
        k = state["sa.conv1.weight"].shape[2]
        module = layers().get_attn("cbam")(C, rd_channels=R, mlp_bias=False, spatial_kernel_size=k)
        module.spatial.conv.bn = torch.nn.Identity()  # the article has no batch norm there
    return with_weights(torch, module, theirs)
