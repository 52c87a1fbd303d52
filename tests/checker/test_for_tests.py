"""What others use in their tests: pytest's fixture, assert_right, and strategies for Hypothesis."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import find, given, settings

import npattn
from npattn import GradcheckError
from npattn.checker import strategies
from npattn.ops import relu

ROOT = Path(__file__).resolve().parents[2]
X = np.random.default_rng(0).standard_normal((2, 3))


def test_assert_right_fails_with_the_whole_report():
    wrong = (relu.forward, lambda dy, cache: -relu.backward(dy, cache))
    assert npattn.gradcheck.assert_right(relu, X)
    with pytest.raises(GradcheckError, match="verdict") as caught:
        npattn.gradcheck.assert_right(wrong, X)
    assert str(caught.value) == str(caught.value.report)


def test_a_table_fits_a_narrow_terminal(monkeypatch):
    report = npattn.gradcheck(relu, np.where(X == 0, 1, X))
    monkeypatch.setattr("npattn.checker.report.width", lambda: 44)
    narrow = str(report).splitlines()
    assert all(len(line) <= 44 for line in narrow[1:])
    assert not any(line.startswith("ok") for line in narrow)
    monkeypatch.undo()
    assert len(str(report).splitlines()) < len(narrow)


class Terminal:
    """Standard error that is one."""

    encoding = "utf-8"

    def __init__(self):
        self.text = ""

    def isatty(self):
        return True

    def write(self, text):
        self.text += text

    def flush(self):
        pass


@pytest.mark.parametrize("shown", [True, False])
def test_a_check_that_takes_long_shows_a_bar_on_a_terminal(monkeypatch, shown):
    pytest.importorskip("tqdm")
    monkeypatch.setattr("npattn.checker.shown.PATIENCE", 0.0)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    npattn.gradcheck(relu, X, progress=shown)
    assert ("entries" in terminal.text) is shown


def test_a_check_that_is_over_soon_shows_none(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    npattn.gradcheck(relu, X)
    assert terminal.text == ""


def test_gradcheck_is_still_a_function():
    import inspect
    import pickle

    assert inspect.isfunction(npattn.gradcheck)
    assert pickle.loads(pickle.dumps(npattn.gradcheck)) is npattn.gradcheck
    assert next(iter(inspect.signature(npattn.gradcheck).parameters)) == "target"


TEST = """
import numpy as np

class Scale:
    def __init__(self, w):
        self.w = w
    def forward(self, x):
        self.x = x
        return x * self.w
    def backward(self, dy):
        self.dw = (self.x * dy).sum(0)
        return dy * self.w

def test_right(gradcheck):
    gradcheck(Scale(np.ones(3)), np.ones((2, 3)))

def test_wrapped(gradcheck):
    gradcheck(gradcheck.wrap(Scale(np.ones(3)), params=["w"]), np.ones((2, 3)))

def test_wrong(gradcheck):
    gradcheck((lambda x: (x * 2, None), lambda dy, cache: dy * 3), np.ones((2, 3)))
"""


def test_the_fixture_is_there_without_an_option(tmp_path):
    """Its entry point is read from pyproject.toml, as an installer writes it down."""
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"][
        "pytest11"
    ]
    info = tmp_path / "npattn_entry_points-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: npattn-entry-points\nVersion: 0\n")
    lines = "\n".join(f"{name} = {module}" for name, module in entries.items())
    (info / "entry_points.txt").write_text(f"[pytest11]\n{lines}\n")
    (tmp_path / "test_scale.py").write_text(TEST)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_scale.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert "1 failed" in done.stdout, done.stdout + done.stderr
    assert "E       x: 6 of 6 entries are wrong" in done.stdout.replace("E         x:", "E       x:"), done.stdout
    assert "helpers.py" not in done.stdout.replace("npattn.checker.helpers", ""), done.stdout


def test_the_plugin_imports_nothing_heavy():
    code = "import sys, pytest_npattn; print([n for n in ('npattn', 'numpy', 'hypothesis') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_does_not_need_hypothesis():
    code = (
        "import sys; sys.modules['hypothesis'] = None; import numpy as np, npattn; from npattn.ops import relu; "
        "print(bool(npattn.gradcheck(relu, np.ones((2, 3)))))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


@settings(max_examples=30, deadline=None)
@given(strategies.images(with_ties=True, with_kinks=True))
def test_strategies_draw_what_a_relu_takes(x):
    assert x.ndim == 4
    assert x.size <= 200
    assert not npattn.gradcheck(relu, x, raise_exception=False).wrong


def test_strategies_draw_kinks_and_ties():
    shape = (2, 3)
    assert find(strategies.kinks(shape), lambda x: np.sum(x == 0) >= 2).shape == shape
    assert find(strategies.kinks(shape, at=1.0), lambda x: bool(np.any(x == 1))).shape == shape
    assert find(strategies.kinks(shape), lambda x: bool(np.any((x != 0) & (abs(x) < 1e-3)))).shape == shape
    assert find(strategies.ties(shape), lambda x: len(np.unique(x)) == 1).shape == shape
    assert find(strategies.ties(shape), lambda x: len(np.unique(x)) == 3).shape == shape
    assert find(strategies.images("NC", with_ties=True), lambda x: len(np.unique(x)) < x.size).ndim == 2
    assert find(strategies.arrays(shape), lambda x: np.abs(x).max() > 20).dtype == np.float64
    assert find(strategies.shapes("NCL", least=2), lambda s: True) == (2, 2, 2)
    assert find(strategies.labels(4, 3), lambda x: x.max() == 2).dtype == np.int64
