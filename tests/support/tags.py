"""The tags of formulas, SE.3 say, as they are read out of code, of formula lists and of docs pages."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TAG = re.compile(r"\b[A-Z]+\d?\.\d+\b")
EQUATION = re.compile(r"^:::\{(forward|backward)\} (.+)$", re.MULTILINE)
NO_FORMULAS = ("__init__.py", "pooling.py", "sliding.py", "window.py", "gate_functions.py")  # shared by several files
FILES = [
    path
    for package in ("ops", "attention", "variants")
    for path in sorted((ROOT / "npattn" / package).glob("*.py"))
    if path.name not in NO_FORMULAS
]
ONE_WAY = [ROOT / "npattn" / "explain" / "cam.py"]


def direction_of(path: Path, function: str) -> str | None:
    """Which way a function goes, by its name: those of a pair, and a layer's `run` and `undo`."""
    if path in ONE_WAY:
        return "forward"
    if function == "run" or function.endswith("forward"):
        return "forward"
    return "backward" if function == "undo" or function.endswith("backward") else None


def tagged(path: Path) -> list[tuple[str, str, str]]:
    """(function, direction, tag) for every tag behind a line of code, in the order of the file."""
    source = path.read_text(encoding="utf-8")
    texts = source.splitlines()
    found = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        direction = direction_of(path, function.name)
        for text in texts[function.lineno - 1 : function.end_lineno]:
            code, mark, comment = text.partition("  # ")
            tags = TAG.findall(comment) if mark and code.strip() else []
            assert direction or not tags, f"{path.name}, {function.name}: a tag outside of a forward or backward"
            found += [(function.name, str(direction), tag) for tag in tags]
    return found


def formulas(path: Path) -> set[str]:
    """The tags in the formula list of the file's docstring, its indented lines."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=False) or ""
    return {tag for line in docstring.splitlines() if line.startswith("    ") for tag in TAG.findall(line)}


def page_of(path: Path) -> Path:
    """The page with the derivation, which the file's docstring names."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    named = re.search(r"Derivation: (docs/\S+\.md)", docstring)
    assert named, f"{path.name}: names no page with its derivation"
    return ROOT / named[1]


def equations(page: Path) -> list[tuple[str, str]]:
    """(direction, tag) of every numbered equation, in the order of the page."""
    text = page.read_text(encoding="utf-8")
    return [(direction, tag) for direction, tags in EQUATION.findall(text) for tag in tags.split(", ")]
