"""docs/dialects.md shows what `npattn dialect` prints, for these files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from npattn import cli
from npattn.dialects import build, dump, write

PAGE = Path(__file__).resolve().parents[2] / "docs" / "dialects.md"


def resnet_cbam() -> dict[str, np.ndarray]:
    """Two residual units with the official CBAM, as DataParallel saves them."""
    state = {"conv1.weight": np.zeros((64, 3, 3, 3), np.float32)}
    for unit in ("layer1.0", "layer1.1"):
        state[f"{unit}.conv1.weight"] = np.zeros((64, 64, 3, 3), np.float32)
        cbam = dump(build("official", "CBAM", gate_channels=64, rng=0))
        state |= {f"{unit}.cbam.{key}": value for key, value in cbam.items()}
    return {f"module.{key}": value for key, value in state.items()}


def one_fc() -> dict[str, np.ndarray]:
    return dump(build("ultralytics", "ChannelAttention", channels=64, rng=0))


def mobilenet() -> dict[str, np.ndarray]:
    """torchvision's first unit of MobileNetV3."""
    se = dump(build("torchvision", "SqueezeExcitation", input_channels=16, squeeze_channels=8, rng=0))
    state = {f"features.1.block.1.{key}": value for key, value in se.items()}
    return {"features.0.0.weight": np.zeros((16, 3, 3, 3), np.float32), **state}


@pytest.mark.parametrize("make", [resnet_cbam, one_fc, mobilenet], ids=lambda make: make.__name__)
def test_what_the_page_shows(make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    name = f"{make.__name__}.npz"
    write(tmp_path / name, make())
    monkeypatch.chdir(tmp_path)
    assert cli.main(["dialect", name]) == 0
    shown = re.search(rf"```console\n\$ npattn dialect {name}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert shown, f"no block for {name}"
    assert shown[1] == capsys.readouterr().out
