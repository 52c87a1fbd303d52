"""Docs and code, forward and backward, held together: no tag of a formula without its twins.

A tag such as SE.3 stands at four places: in the formula list that opens the file, at a line of a forward, at a line of
a backward, and at one equation of each direction in the docs page that the file names. The lines may be in the `run`
and `undo` of a layer that is made of layers. A file that only looks, and has no backward of its own, goes one way: its
tags stand in the formula list, at a line, and at an equation.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tags import FILES, ONE_WAY, ROOT, equations, formulas, page_of, tagged

OUT_OF_ORDER = {
    # x̂ is one product of three factors that all hold x: its direct path ends in the last line, after the other two
    ("ops/batch_norm.py", "train_backward"),
    # either in parallel or one after the other: two ways that stand one below the other in both directions
    ("variants/cbam.py", "undo"),
}


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def unique(tags: list[str]) -> list[str]:
    return list(dict.fromkeys(tags))


@pytest.mark.parametrize("path", FILES + ONE_WAY, ids=name_of)
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


@pytest.mark.parametrize("path", FILES + ONE_WAY, ids=name_of)
def test_an_equation_has_one_place(path: Path):
    page = equations(page_of(path))
    assert len(page) == len(set(page)), "an equation is numbered twice"


def test_every_equation_of_the_docs_is_somebodys():
    pages = {page_of(path) for path in FILES + ONE_WAY}
    for page in (ROOT / "docs").rglob("*.md"):
        if "_build" not in page.parts:
            assert page in pages or not equations(page), f"{page.name}: numbered equations that no file names"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_backward_undoes_the_last_line_first(path: Path):
    functions: dict[str, list[str]] = {}
    for function, _, tag in tagged(path):
        functions.setdefault(function, []).append(tag)
    pairs = 0
    for function, tags in functions.items():
        if not (function == "undo" or function.endswith("backward")) or (name_of(path), function) in OUT_OF_ORDER:
            continue
        forward = functions["run" if function == "undo" else function.replace("backward", "forward")]
        assert unique(tags) == unique(forward)[::-1], f"{function}: {tags}, but forward went {forward}"
        pairs += function != "undo"
    assert pairs, "nothing was compared"
