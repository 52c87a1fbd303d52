"""Docs and code, forward and backward, held together: no tag of a formula without its twins.

A tag such as SE.3 stands at four places: in the formula list that opens the file, at a line of a forward, at a line of
a backward, and at one equation of each direction in the docs page that the file names. A file that only looks, and has
no backward of its own, goes one way: its tags stand in the formula list, at a line, and at an equation.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TAG = re.compile(r"\b[A-Z]+\d?\.\d+\b")
EQUATION = re.compile(r"^:::\{(forward|backward)\} (.+)$", re.MULTILINE)
FILES = [
    path
    for package in ("ops", "attention", "variants")
    for path in sorted((ROOT / "npattn" / package).glob("*.py"))
    if path.name not in ("__init__.py", "options.py")  # options.py has no mathematics
]
ONE_WAY = [ROOT / "npattn" / "explain" / "cam.py"]
# x̂ is one product of three factors that all hold x: its direct path ends in the last line, after the other two
OUT_OF_ORDER = {("batch_norm.py", "train_backward")}


def direction_of(path: Path, function: str) -> str | None:
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
            found += [(function.name, direction, tag) for tag in tags]
    return found


def formulas(path: Path) -> set[str]:
    """The tags in the formula list of the file's docstring, its indented lines."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=False) or ""
    return {tag for line in docstring.splitlines() if line.startswith("    ") for tag in TAG.findall(line)}


def page_of(path: Path) -> Path:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    named = re.search(r"Derivation: (docs/\S+\.md)", docstring)
    assert named, f"{path.name}: names no page with its derivation"
    return ROOT / named[1]


def equations(page: Path) -> list[tuple[str, str]]:
    """(direction, tag) of every numbered equation, in the order of the page."""
    text = page.read_text(encoding="utf-8")
    return [(direction, tag) for direction, tags in EQUATION.findall(text) for tag in tags.split(", ")]


def unique(tags: list[str]) -> list[str]:
    return list(dict.fromkeys(tags))


@pytest.mark.parametrize("path", FILES + ONE_WAY, ids=lambda path: path.stem)
def test_every_tag_has_its_twins(path: Path):
    code = tagged(path)
    wanted = formulas(path)
    assert wanted, "no formula has a tag"
    page = equations(page_of(path))
    sharing = [other for other in FILES if page_of(other) == page_of(path)]  # a page may be that of several files
    of_page = set().union(wanted, *map(formulas, sharing))
    for direction in ("forward",) if path in ONE_WAY else ("forward", "backward"):
        assert {tag for _, way, tag in code if way == direction} == wanted, f"{direction}: code and formula list differ"
        assert {tag for way, tag in page if way == direction} == of_page, f"{direction}: docs and formula list differ"


@pytest.mark.parametrize("path", FILES + ONE_WAY, ids=lambda path: path.stem)
def test_an_equation_has_one_place(path: Path):
    page = equations(page_of(path))
    assert len(page) == len(set(page)), "an equation is numbered twice"


def test_every_equation_of_the_docs_is_somebodys():
    pages = {page_of(path) for path in FILES + ONE_WAY}
    for page in (ROOT / "docs").rglob("*.md"):
        if "_build" not in page.parts:
            assert page in pages or not equations(page), f"{page.name}: numbered equations that no file names"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_backward_undoes_the_last_line_first(path: Path):
    functions: dict[str, list[str]] = {}
    for function, _, tag in tagged(path):
        functions.setdefault(function, []).append(tag)
    pairs = 0
    for function, tags in functions.items():
        if function == "undo" or not function.endswith("backward") or (path.name, function) in OUT_OF_ORDER:
            continue
        forward = functions[function.replace("backward", "forward")]
        assert unique(tags) == unique(forward)[::-1], f"{function}: {tags}, but forward went {forward}"
        pairs += 1
    assert pairs or path.name == "gate.py", "nothing was compared"
