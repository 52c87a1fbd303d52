"""The article's classes under PyTorch 2.13, recorded: y, dx and every parameter's gradient must be the same.

A file tests/golden/BLOCK[_rR][_kK]_SHAPE_{dense,ties}_{f32,f64}.npz holds x, dy, y, dx, param.KEY and grad.KEY.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import npattn
from tests.numerical import distance

FILES = sorted((Path(__file__).parent / "golden").glob("*.npz"))
WITHIN = {"float64": 1e-12, "float32": 1e-5}


def layer_for(name: str, channels: int, **options) -> npattn.Layer:
    """The layer that a file's name speaks of."""
    block = name.split("_")[0]
    numbers = {key: int(value) for key, value in re.findall(r"_([rk])(\d+)(?=_)", name)}
    if block == "selayer":
        return npattn.SELayer(channels, numbers["r"], **options)
    if block == "channel":
        return npattn.ChannelAttention(channels, numbers["r"], **options)
    if block == "spatial":
        return npattn.SpatialAttention(numbers["k"], **options)
    return npattn.CBAM(channels, numbers["r"], numbers["k"], **options)


def test_all_files_are_here():
    assert len(FILES) == 72


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("fused", [False, True], ids=["textbook", "fused"])
def test_agrees_with_the_article(path: Path, fused: bool):
    recorded = np.load(path)
    x = recorded["x"]
    within = WITHIN[str(x.dtype)]
    layer = layer_for(path.stem, x.shape[1], dtype=x.dtype, fused=fused)
    state = {key.removeprefix("param."): recorded[key] for key in recorded.files if key.startswith("param.")}
    layer.load_state_dict(state)

    y = layer(x)
    dx = layer.backward(recorded["dy"])
    assert y.dtype == dx.dtype == x.dtype
    assert distance(y, recorded["y"]) < within
    assert distance(dx, recorded["dx"]) < within
    assert layer.grads.keys() == layer.params.keys() == state.keys()
    for key, gradient in layer.grads.items():
        assert gradient.shape == layer.params[key].shape == recorded[f"grad.{key}"].shape
        assert distance(gradient, recorded[f"grad.{key}"]) < within, key
