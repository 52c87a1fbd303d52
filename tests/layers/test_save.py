"""A layer saves itself and loads what it saved, or nothing."""

from __future__ import annotations

import os

import numpy as np
import pytest

import npattn
from npattn.checker.cases import Maker
from tests.support.cases import MAKERS, ident, image_for


@pytest.fixture(params=MAKERS, ids=ident)
def make(request) -> Maker:
    return request.param


@pytest.mark.parametrize("name", ["layer.npz", "layer.safetensors"])
def test_what_is_saved_comes_back(make: Maker, name: str, tmp_path):
    if name.endswith("safetensors"):
        pytest.importorskip("safetensors", reason="safetensors is not installed")
    layer, other = make(), make()
    layer(np.random.default_rng(0).standard_normal(image_for(layer, (2, 8, 4, 3))).astype(np.float32))
    for key, value in other.params.items():
        other.params[key] = value + 1
    layer.save(tmp_path / name)
    assert other.load(tmp_path / name) is other
    wanted = layer.state_dict()
    assert list(other.state_dict()) == list(wanted)
    for key, value in other.state_dict().items():
        np.testing.assert_array_equal(value, wanted[key], err_msg=key)
    assert os.listdir(tmp_path) == [name]


def test_numpy_reads_it(tmp_path):
    layer = npattn.CBAM(8, 4, 3)
    layer.save(str(tmp_path / "cbam.npz"))
    with np.load(tmp_path / "cbam.npz") as found:
        assert sorted(found) == sorted(layer.params)


def test_what_numpy_writes_is_read(tmp_path):
    layer = npattn.CBAM(8, 4, 3)
    np.savez(tmp_path / "cbam.npz", **layer.state_dict())
    npattn.CBAM(8, 4, 3).load(tmp_path / "cbam.npz")


@pytest.mark.parametrize("name", ["layer.pt", "layer", "npz"])
def test_another_ending(name: str, tmp_path):
    layer = npattn.ReLU()
    with pytest.raises(ValueError, match=rf"path: expected a name that ends in \.npz or \.safetensors, got '{name}'"):
        layer.save(tmp_path / name)
    with pytest.raises(ValueError, match="path: expected a name that ends in"):
        layer.load(tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_files_that_are_none(tmp_path):
    layer = npattn.CBAM(8, 4, 3)
    before = layer.state_dict()
    with pytest.raises(FileNotFoundError):
        layer.load(tmp_path / "missing.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(OSError, match="expected a regular file"):
        layer.load(tmp_path / "folder.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(OSError, match="expected a regular file"):
        layer.load(tmp_path / "pipe.npz")
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(ValueError, match=r"text\.npz: no \.npz file, or a broken one"):
        layer.load(tmp_path / "text.npz")
    layer.save(tmp_path / "cut.npz")
    whole = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.npz: no \.npz file, or a broken one"):
        layer.load(tmp_path / "cut.npz")
    npattn.SELayer(8, 4).save(tmp_path / "se.npz")
    with pytest.raises(KeyError, match="state: expected the keys"):
        layer.load(tmp_path / "se.npz")
    np.savez(tmp_path / "pickle.npz", **{**before, "ca.fc1.weight": np.array([None])})
    with pytest.raises(ValueError, match=r"pickle\.npz: no \.npz file, or a broken one"):
        layer.load(tmp_path / "pickle.npz")
    (tmp_path / "text.safetensors").write_text("no safetensors at all")
    with pytest.raises(ValueError, match=r"text\.safetensors: (no \.safetensors file|needs safetensors)"):
        layer.load(tmp_path / "text.safetensors")
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
