"""The page about checking shows what its example prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def rounded(text: str) -> str:
    """Without the digits of rounding errors, which differ from one machine to the next."""
    return re.sub(r"\b\d(\.\d)?e-1\d\b", "tiny", text)


def test_the_page_shows_what_the_example_prints():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "examples/check_your_own_layer.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=True)
    page = rounded((ROOT / "docs" / "checking.md").read_text(encoding="utf-8"))
    blocks = [block.partition("\n") for block in done.stdout.split("# ")[1:]]
    assert len(blocks) == 7
    for title, _, printed in blocks:
        assert rounded(f"```text\n{printed.strip()}\n```") in page, title
