"""A block that has groups is checked with two of them at least, however many channels there are."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from npattn import gradcheck
from npattn.block import Block
from npattn.blocks import blocks
from npattn.checker.cases import block_cases, checked, fused_cases, op_cases, place_for
from npattn.samples import Random
from tests.blocks.lct import lct_one_norm_over_all_channels
from tests.blocks.sge import sge_one_gate_for_all_channels

ROWS = {case.name: case for case in (*op_cases(), *block_cases(), *fused_cases())}
GROUPED = [
    name
    for name, entry in blocks().items()
    if issubclass(entry.kind, Block)
    and name == entry.card.name
    and "groups" in inspect.signature(entry.kind.__init__).parameters
]
SIZE = (2, 4, 3, 5)  # four channels are one group of the usual place


def groups(layer: Block) -> int:
    return layer.settings.get("groups") or layer.sizes["G"]


def test_these_have_groups():
    assert {"sge", "lct", "ela", "selective-kernel", "split-attention"} <= set(GROUPED)


@pytest.mark.parametrize("C", [1, 3, 4, 5, 6])
@pytest.mark.parametrize("name", GROUPED)
def test_one_of_its_rows_has_two_groups(name: str, C: int):
    entries = [entry for entry in checked() if entry.card.name == name]
    found = [groups(entry.layer(place_for((2, C, 3, 5), 2, 3), rng=0)) for entry in entries]
    assert max(found) >= 2, found
    rows = [case for case in ROWS.values() if case.name.startswith(f"{name}, ") and "groups=" in case.name]
    assert rows
    for row in rows:
        x, *_ = inputs = row.draw(Random(np.random.default_rng(0), (3, C, 3, 5)))
        assert x.shape[1] % 2 == 0
        y, cache = row.forward(*inputs)
        assert len(row.backward(np.ones_like(y), cache)) == len(inputs)


@pytest.mark.parametrize(
    ("name", "wrong"), [("sge", sge_one_gate_for_all_channels), ("lct", lct_one_norm_over_all_channels)]
)
def test_what_is_right_of_one_group_only_is_rejected(name: str, wrong):
    """As the row without further arguments shows, which four channels leave with one group."""
    one, two = ROWS[name], ROWS[f"{name}, groups=2"]
    draws = [row.draw(Random(np.random.default_rng(1), SIZE)) for row in (one, two)]
    assert gradcheck((one.forward, wrong), *draws[0])
    report = gradcheck((two.forward, wrong), *draws[1], raise_exception=False)
    assert [row.name for row in report.rows if row.wrong] == ["x"]
