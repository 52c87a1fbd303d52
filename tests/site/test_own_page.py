"""docs/own.md, done as it says: the file, the checks, the training; and docs/port.md's module within PyTorch."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import npattn

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCKS = re.findall(r"^```python\n(.*?)^```", (DOCS / "own.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def contrast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "contrast.py"
    path.write_text(BLOCKS[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "contrast", raising=False)
    return path


def test_the_page_from_top_to_bottom(contrast: Path, capsys):
    command = re.search(r"^\$ (npattn gradcheck .*)$", (DOCS / "own.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=contrast.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    known: dict = {}
    for block in BLOCKS[1:]:
        exec(block, known)
    right = float(capsys.readouterr().out.split()[-1])
    assert right > 0.7
    assert "attention.gate" in known["net"].attention


def test_a_backward_without_the_mean_is_seen(contrast: Path):
    broken = BLOCKS[0].replace("dx_gate = dd - np.mean(dd, axis=(2, 3), keepdims=True)", "dx_gate = dd")
    assert broken != BLOCKS[0]
    contrast.write_text(broken, encoding="utf-8")
    module = importlib.import_module("contrast")
    x = np.random.default_rng(0).standard_normal((2, 4, 3, 3))
    with pytest.raises(npattn.GradcheckError, match="x: "):
        npattn.gradcheck((module.forward, module.backward), x, module.Params(np.array([1.0, -1, 0.5, 2])))


def test_the_page_on_porting_has_a_module_that_trains():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    text = (DOCS / "port.md").read_text(encoding="utf-8")
    (block,) = [b for b in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if "torch.module" in b]
    known = {"torch": torch, "npattn": npattn, "images": torch.randn(2, 3, 8, 8)}
    exec(block, known)
    assert known["net"][1].ca.fc1.weight.grad.shape == (2, 32, 1, 1)
