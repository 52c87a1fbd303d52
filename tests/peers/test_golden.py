"""The article's classes under PyTorch 2.13, recorded: y, dx and every parameter's gradient must be the same.

A file tests/peers/golden/BLOCK[_rR][_kK]_SHAPE_{dense,ties}_{f32,f64}.npz holds x, dy, y, dx, param.KEY and grad.KEY.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import npattn
from tests.support.numerical import distance

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
    """In float32 PyTorch's numbers are rounded as ours are, so ours may be as far again from them as they are from the
    exact ones, the textbook's in float64; ours must be within the bound from those. It matters where a weight's
    gradient is a small sum of large terms: in one file PyTorch's is 7e-6 off, the fused one 6e-6 the other way.
    """
    recorded = np.load(path)
    dtype = recorded["x"].dtype
    within = WITHIN[str(dtype)]
    numbers, exact = results(path, dtype, fused=fused), results(path, np.dtype("float64"), fused=False)
    assert numbers.keys() == {key for key in recorded.files if key in ("y", "dx") or key.startswith("grad.")}
    for key, got in numbers.items():
        assert got.shape == recorded[key].shape, key
        assert got.dtype == dtype, key
        assert distance(got, exact[key]) < within, key
        assert distance(recorded[key], exact[key]) < within, key
        assert distance(got, recorded[key]) < within + distance(recorded[key], exact[key]), key


def results(path: Path, dtype: np.dtype, fused: bool) -> dict[str, np.ndarray]:
    """What the layer makes of a file's x and dy, under the file's keys."""
    recorded = np.load(path)
    x, dy = (recorded[key].astype(dtype) for key in ("x", "dy"))
    state = {key: recorded[key].astype(dtype) for key in recorded.files if key.startswith("param.")}
    layer = layer_for(path.stem, x.shape[1], dtype=dtype, fused=fused)
    layer.load_state_dict({key.removeprefix("param."): value for key, value in state.items()})
    y = layer(x)
    assert layer.path == ("fused" if fused else "textbook")
    dx = layer.backward(dy)
    assert layer.grads.keys() == layer.params.keys()
    return {"y": y, "dx": dx} | {f"grad.{key}": gradient for key, gradient in layer.grads.items()}
