"""The checker on trial: it rejects every wrong backward, for the right reason. Those of blocks are in tests/blocks/."""

from __future__ import annotations

import pytest

from tests.checker import zoo_ops
from tests.support import proofs
from tests.support.mistakes import MISTAKES, Mistake, must_be_rejected


@pytest.mark.parametrize("mistake", [wrong for wrong in MISTAKES if wrong.module == zoo_ops.__name__], ids=repr)
def test_every_mistake_is_rejected_and_named(mistake: Mistake):
    must_be_rejected(mistake)


def test_the_zoo_is_large_enough():
    """Nobody is without a keeper: each stands with the ops, or in the proofs of a block, and names differ."""
    found = [wrong for wrong in MISTAKES if wrong.module == zoo_ops.__name__]
    assert len(found) >= 35
    found += [wrong for file in proofs.files().values() for wrong in proofs.mistakes_of(file)]
    assert len(found) == len(MISTAKES) >= 71
    assert len({repr(mistake) for mistake in MISTAKES}) == len(MISTAKES)
