"""The page that compares checkers: our column is what our checker says now. The others' need their libraries."""

from __future__ import annotations

import pytest

from tests.checker.compare_checkers import PAGE, npattn_checker, table, verdict
from tests.checker.compared import Compared, targets

ALL = targets()
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.read_text("utf-8").splitlines()
        if line.startswith("| ")]  # fmt: skip


def test_the_page_has_the_thirty_targets():
    head, *rows, last = ROWS
    assert [row[0] for row in rows] == [target.about for target in ALL]
    assert [row[1] for row in rows] == ["right" if target.right else "wrong" for target in ALL]
    assert (len(ALL), sum(target.right for target in ALL)) == (30, 10)
    assert [name.split(" ")[0] for name in head[2:]] == ["npattn", "PyTorch", "JAX", "Chainer"]
    for column in range(2, len(head)):
        bold = sum(row[column].startswith("**") for row in rows)
        assert int(last[column]) == 30 - bold


@pytest.mark.parametrize("target", ALL, ids=lambda target: target.about)
def test_our_column_is_what_our_checker_says(target: Compared):
    passed = verdict(npattn_checker()[1], target)
    (row,) = [row for row in ROWS if row[0] == target.about]
    assert row[2].strip("*") == ("passes" if passed else "rejects")
    assert passed == target.right


def test_what_is_judged_wrongly_is_bold():
    text = table({"all": ("all", lambda target: True)})
    assert text.count("| passes |") == 10
    assert text.count("| **passes** |") == 20
    assert text.endswith("| judged rightly | of 30 | 10 |")
