"""The examples in docstrings and in the docs' pages say what they print."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import npattn

ROOT = Path(__file__).resolve().parents[2]
PAGES = [path for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if path.exists()]
PAGES = [path for path in PAGES if "_build" not in path.parts and ">>>" in path.read_text(encoding="utf-8")]
MODULES = sorted(
    found.name for found in pkgutil.walk_packages(npattn.__path__, "npattn.") if not found.name.endswith("__main__")
)
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_page(path: Path):
    """All `pycon` blocks of a page, one after the other, as a reader types them."""
    text = path.read_text(encoding="utf-8")
    # everything outside of the blocks becomes blank lines, so that a failure names the page's own line
    kept, inside = [], False
    for line in text.splitlines():
        if line.startswith("```"):
            inside = not inside and line == "```pycon"
            kept.append("")
        else:
            kept.append(line if inside else "")
    test = doctest.DocTestParser().get_doctest("\n".join(kept) + "\n", {}, path.name, str(path), 0)
    assert len(test.examples) == len(re.findall(r"^>>> ", text, re.MULTILINE)), "an example outside of a pycon block"
    result = doctest.DocTestRunner(optionflags=FLAGS).run(test)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str):
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{error}")
    assert doctest.testmod(module, optionflags=FLAGS).failed == 0
