"""Formulas of the parameters: as the pages have them, and equal to what is counted, at sizes not used to make them."""

from __future__ import annotations

import pytest

from npattn.block import Place
from npattn.blocks import block, blocks
from npattn.capacity import shapes_only
from npattn.explain.formula import PLACES, formula

OTHERS = (
    Place(7, 3, 4, r=2, k=11),
    Place(96, 14, 13, r=12, k=5),
    Place(256, 56, 56),
    Place(2048, 7, 7),
    Place(640, 2, 9, r=5),
)


@pytest.mark.parametrize("name", blocks())
def test_it_counts_what_the_layer_counts(name: str):
    entry = block(name)
    found = formula(entry)
    for place in (*OTHERS, *PLACES):
        with shapes_only():
            layer = entry.layer(place, rng=0)
        assert found.at(place, layer) == layer.count(), (str(found), place)


def test_as_the_pages_write_them():
    written = {
        "se": "2CR", "se-r2": "2CR", "cbam": "2CR + 2k²", "cbam-official": "2CR + 2k² + C + R + 2",
        "scse": "2CR + 2C + R + 1",
        "simam": "0", "conv-gate": "9C²", "spatial-k3": "18", "sge": "2G", "eca": "k′", "psa": "3C² + 2CD",
        "residual-skip": "10C² + 2CR + 2C", "srm": "4C", "gated": "2CR",
    }  # fmt: skip
    assert {name: str(formula(block(name))) for name in written} == written


def test_a_blocks_own_letter_is_no_place_s():
    """ECA's k is a rule of C: a letter of its own. What a form fixes, r = 2, is in R."""
    assert formula(block("eca")).own == {"k′": "k"}
    assert formula(block("se-r2")).fixed == {"r": 2}
