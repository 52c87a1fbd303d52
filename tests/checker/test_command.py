"""`npattn gradcheck` on files of somebody's own: inputs by name, what a file may make, and the exit status."""

from __future__ import annotations

import sys

import pytest

from npattn import GradcheckReport, cli
from npattn.checker import Row

MINE = """
import numpy as np

class Affine:
    def __init__(self):
        self.W, self.b = np.ones((3, 2)) + np.eye(3, 2), np.zeros(2)
    def forward(self, x):
        self.x = x
        return x @ self.W + self.b
    def backward(self, dy):
        self.dW, self.db = self.x.T @ dy, dy.sum(0)
        return dy @ self.W.T

class Wrong(Affine):
    def backward(self, dy):
        return -super().backward(dy)

class Needs(Affine):
    def __init__(self, size):
        super().__init__()

def scale_forward(x, w, labels, train=True):
    return (x * w)[labels], (x, w, labels)

def scale_backward(dy, cache):
    x, w, labels = cache
    d = np.zeros_like(x)
    np.add.at(d, labels, dy)
    return d * w, (d * x).sum(0)

def crashing_forward(x):
    return x @ np.ones((7, 7)), x

def crashing_backward(dy, cache):
    return dy

def late_forward(x):
    return 2 * x, x

def late_backward(dy, cache):
    return dy.no_such_thing

def loss(x, labels):
    return np.sum(x[labels] ** 2), 2 * x * np.bincount(labels, minlength=len(x))[:, None]

def make():
    return Affine(), np.ones((4, 3))

def make_with_names():
    return (scale_forward, scale_backward), {"labels": np.array([0, 1]), "w": np.ones(3), "x": np.ones((2, 3))}

def make_several():
    return (scale_forward, scale_backward), np.ones((2, 3)), np.ones(3), np.array([0, 1, 1])

layer = Affine()
number = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    (tmp_path / "broken.py").write_text("x = 1\nimport no_such_library\n", encoding="utf-8")
    (tmp_path / "typo.py").write_text("x = (1\n", encoding="utf-8")
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(0)\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("mine", "broken", "typo", "leaves"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in ("mine", "broken", "typo", "leaves"):
        sys.modules.pop(name, None)


SCALE = ["--input", "x=2,3", "--input", "w=3", "--input", "labels=4:0..1"]


@pytest.mark.parametrize(
    "words",
    [
        ["mine.py:Affine", "--shape", "4,3"],
        ["mine:Affine", "--shape", "4,3"],
        ["mine.py:layer", "--input", "x=4,3"],
        ["mine.py:scale", *SCALE],
        ["mine.py:scale", *SCALE[4:], *SCALE[:4]],
        ["mine.py:scale", *SCALE, "--input", "train=False"],
        ["mine.py"],
        ["mine.py:make_with_names"],
        ["mine.py:make_several"],
        ["mine.py:make_several", "--wrt", "x"],
        ["mine.py:Affine", "--shape", "4,3", "--points", "2", "--strict"],
        ["mine.py:Affine", "--shape", "4,3", "--dtype", "float32"],
        ["mine.py:loss", "--input", "x=3,2", "--input", "labels=20:0..2"],
    ],
    ids=" ".join,
)
def test_right_is_0(words, mine, capsys):
    assert cli.main(["gradcheck", *words]) == 0, capsys.readouterr()
    printed = capsys.readouterr()
    assert "passed" in printed.out
    assert printed.err == ""


def test_wrong_is_1(mine, capsys):
    assert cli.main(["gradcheck", "mine.py:Wrong", "--shape", "4,3"]) == 1
    assert "x: 12 of 12 entries are wrong" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["mine.py:nothing", "--shape", "2"], "mine has no 'nothing'; it has "),
        (["none.py:layer", "--shape", "2"], "no such file: none.py"),
        (["none:layer", "--shape", "2"], "No module named 'none'; a file is named with its ending: none.py:name"),
        (["mine.py:layer"], "--input or --shape is missing, such as --input x=2,3"),
        (["mine.py:scale", "--input", "x=2,3", "--input", "z=3"], "--input z: forward takes x, w, labels, train"),
        (["mine.py:scale", "--input", "x=2,3", "--input", "labels=3:0..1"], "w missing, which comes before labels"),
        (["mine.py:scale", "--input", "x=2,y"], "expected a shape, whole numbers from 1"),
        (["mine.py:scale", "--input", "2,3"], "--input: expected name=shape, such as x=2,3, got '2,3'"),
        (["mine.py:scale", *SCALE[:4], "--input", "labels=4:3..1"], "expected a range low..high, got 3..1"),
        (["mine.py:scale", *SCALE, "--wrt", "q"], "wrt: expected names among x, w, got 'q'"),
        (["mine.py:Needs", "--shape", "2"], "asks for size. Write a function that makes it, and its inputs: "
         "def make(): return Needs(size), x"),
        (["mine.py:number", "--shape", "2"], "got 3"),
        (["mine.py:crashing", "--shape", "2,3"], "mine.py:32, in crashing_forward: return x @ np.ones((7, 7)), x: "),
        (["mine.py:late_forward", "--shape", "2,3"], "got a tuple of 2"),
        (["broken.py:x", "--shape", "2"], "broken.py:2, in <module>: import no_such_library: ModuleNotFoundError"),
        (["broken:x", "--shape", "2"], "broken.py:2, in <module>: import no_such_library: ModuleNotFoundError"),
        (["typo.py:x", "--shape", "2"], "typo.py:1"),
        (["leaves.py:x", "--shape", "2"], "leaves.py:2, in <module>: sys.exit(0): SystemExit"),
        (["--input", "x=2,3"], "--input is for a target of your own"),
        (["--points", "0"], "points: expected"),
        (["mine.py:layer", "--shape", "2,3", "--points", "0"], "points: expected"),
        (["mine.py:layer", "--shape", "2,3", "--dtype", "int8"], "dtype: expected float32 or float64"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)  # fmt: skip
def test_what_cannot_be_run_is_2_and_told_in_a_line(words, told, mine, capsys):
    assert cli.main(["gradcheck", *words]) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_a_backward_that_crashes_is_2(mine, capsys):
    assert cli.main(["gradcheck", "mine.py:late", "--shape", "2,3"]) == 2
    assert "no_such_thing" in capsys.readouterr().out


def test_untested_is_3(mine, capsys, monkeypatch):
    row = Row("x", (2, 3), "complex step", "all 6 entries", 0.0, untested="3 of 6 entries")
    monkeypatch.setattr("npattn.commands.gradcheck.gradcheck", lambda *_, **__: GradcheckReport("dead", (row,)))
    assert cli.main(["gradcheck", "mine.py:layer", "--shape", "2,3"]) == 3
    assert "x: untested: 3 of 6 entries" in capsys.readouterr().out
