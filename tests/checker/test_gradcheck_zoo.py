"""The checker on trial: it rejects every wrong backward, for the right reason. Those of blocks are in tests/blocks/."""

from __future__ import annotations

import numpy as np
import pytest

from npattn import gradcheck
from tests.checker.misses import ZOOS, outcome
from tests.support import proofs
from tests.support.mistakes import MISTAKES, Mistake, must_be_rejected

HERE = [wrong for wrong in MISTAKES if wrong.module in ZOOS]


@pytest.mark.parametrize("mistake", HERE, ids=repr)
def test_every_mistake_is_rejected_and_named(mistake: Mistake):
    must_be_rejected(mistake)


@pytest.mark.parametrize("mistake", HERE, ids=repr)
def test_no_cause_is_invented(mistake: Mistake):
    """Where the zoo knows no pattern, the checker guesses none; where it is not linear in dy, guesses prove nothing.

    `python -m tests.checker.misses --causes` shows the causes that are named for the blocks' mistakes, too.
    """
    report = gradcheck(*mistake.asked(np.random.default_rng(1)), strict=mistake.house_rule, raise_exception=False)
    for row in report.rows:
        if row.name == mistake.blames and not report.problems:
            assert mistake.says or not row.cause, row.cause
            assert mistake.says in row.cause + row.wrong


@pytest.mark.parametrize("mistake", HERE, ids=repr)
def test_no_mistake_is_green_at_other_points(mistake: Mistake):
    """`python -m tests.checker.misses --seeds 1000` asks more often."""
    assert all(outcome(mistake, seed) != "green" for seed in (3, 4))


def test_the_zoo_is_large_enough():
    """Nobody is without a keeper: each stands with the ops, or in the proofs of a block, and names differ."""
    assert len(HERE) >= 70
    found = [*HERE, *(wrong for file in proofs.files().values() for wrong in proofs.mistakes_of(file))]
    assert len(found) == len(MISTAKES) >= 140
    assert len({repr(mistake) for mistake in MISTAKES}) == len(MISTAKES)
