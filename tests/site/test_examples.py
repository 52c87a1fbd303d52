"""The examples run, and print what they promise."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npattn
from npattn.ops import linear

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


READMES = ("README.md", "README.zh-CN.md")


def read_me(name: str) -> str:
    return (EXAMPLES.parent / name).read_text(encoding="utf-8")


def python_of(name: str) -> list[str]:
    """The Python of a README, block by block."""
    return re.findall(r"^```python\n(.*?)^```", read_me(name), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", READMES)
def test_a_readme_s_python_runs_and_gives_the_shapes_behind_its_lines(name: str, capsys):
    """Block after block; the reader's own pair is `linear` here."""
    known: dict[str, Any] = {"my_forward": linear.forward, "my_backward": linear.backward}
    known |= {"my_x": np.ones((2, 3)), "my_params": linear.Params(np.arange(12.0).reshape(4, 3), None)}
    shapes = []
    for block in python_of(name):
        for step in ast.parse(block).body:
            exec(compile(ast.Module([step], []), name, "exec"), known)
            printed = capsys.readouterr().out
            shape = re.search(r"  # .*?(\([\d, ]+\))", block.splitlines()[step.end_lineno - 1])
            if shape:
                value = str(known[step.targets[0].id].shape) if isinstance(step, ast.Assign) else printed
                assert shape[1] in value
                shapes.append(shape[1])
    assert shapes == ["(8, 32, 30, 30)", "(2, 32, 1, 1)", "(8, 1, 30, 30)"]


def test_the_readmes_have_the_same_python():
    """Their comments are each in its own language."""
    english, chinese = ([ast.dump(ast.parse(block)) for block in python_of(name)] for name in READMES)
    assert english == chinese
    assert len(english) == 2


def test_the_chinese_readme_s_table_of_the_article_s_code():
    rows = re.findall(r"^\| [^|]+ \| (`[^|]*`) \| (`[^|]*`) \|$", read_me("README.zh-CN.md"), re.MULTILINE)
    assert len(rows) == 4
    for theirs, ours in rows:
        make, call, shape = (part.strip("`") for part in ours.split("<br>"))
        known = {"npattn": npattn, "x": np.zeros((8, 32, 300, 300), np.float32)}
        exec(make, known)
        assert f"# {eval(call, known)}" == shape
        assert theirs == re.sub(r"# \((.*)\)", r"# torch.Size([\1])", ours.replace("npattn.", ""))


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
