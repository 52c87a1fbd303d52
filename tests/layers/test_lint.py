"""The linter's own rule: no NumPy in the textbook. Run where ruff is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUFF = shutil.which("ruff")

pytestmark = pytest.mark.skipif(RUFF is None, reason="ruff is not installed")


def banned(path: str, line: str) -> bool:
    """Whether ruff, as pyproject.toml sets it, objects to an import in a file of that name."""
    asked = [RUFF, "check", "--no-cache", "--select", "TID251", "--stdin-filename", path, "-"]
    done = subprocess.run(asked, input=f"{line}\n", capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert ("TID251" in done.stdout) == bool(done.returncode)
    return bool(done.returncode)


@pytest.mark.parametrize("line", ["import numpy as np", "from numpy import exp", "import numpy.linalg"])
@pytest.mark.parametrize("room", ["ops", "attention", "variants"])
def test_numpy_is_banned_from_the_textbook(room, line):
    assert banned(f"npattn/{room}/new.py", line)
    assert banned(str(ROOT / "npattn" / room / "new.py"), f"def f():\n    {line}")


@pytest.mark.parametrize("path", ["npattn/fused/new.py", "npattn/layer.py", "tests/new.py", "examples/new.py"])
def test_numpy_is_welcome_elsewhere(path):
    assert not banned(path, "import numpy as np")
