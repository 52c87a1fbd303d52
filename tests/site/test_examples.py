"""The examples run, and print what they promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout


def test_shapes():
    lines = run("shapes.py").splitlines()
    x = "(8, 32, 300, 300)"
    assert [line.strip() for line in lines] == [
        f"ChannelAttention: {x} -> (8, 32, 1, 1)",
        f"SpatialAttention: {x} -> (8, 1, 300, 300)",
        f"CBAM: {x} -> (8, 32, 300, 300)",
        f"SELayer: {x} -> (8, 32, 300, 300)",
    ]


@pytest.mark.slow
def test_train_and_classify(tmp_path):
    shown = run("train_and_classify.py", str(tmp_path / "run"))
    assert "right:   [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]" in shown
    assert "stage2.attention.spatial: (10, 1, 14, 14)" in shown
    assert (tmp_path / "run" / "attention.png").exists()


def test_the_readme_s_commands():
    """Its two commands stand there as they are run, and every other `npattn …` names a command that there is."""
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    assert '    pip install ".[demo]" && npattn train ' in readme
    assert '    pip install ".[test]" && pytest -n auto ' in readme
    shown = subprocess.run(
        [sys.executable, "-m", "npattn", "--help"], capture_output=True, text=True, check=True
    ).stdout
    named = set(re.findall(r"(?:`|&& |^ {4})npattn ([a-z]+)", readme, flags=re.MULTILINE))
    assert {"train", "bench", "gradcheck", "trace"} <= named
    assert all(re.search(rf"\b{command}\b", shown) for command in named), named
    assert not re.search(r"npattn\.(train|bench|trace|cam|ablate|dialect) ", readme)
