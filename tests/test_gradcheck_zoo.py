"""The checker on trial: every wrong backward of the zoo is rejected for the right reason, every right one is not."""

from __future__ import annotations

import numpy as np
import pytest

import tests.zoo_variants  # noqa: F401  (it adds to the zoo)
from npattn import GradcheckError, gradcheck
from tests.zoo import ZOO, Mistake


@pytest.mark.parametrize("mistake", ZOO, ids=repr)
def test_every_mistake_is_rejected_and_named(mistake: Mistake):
    inputs = mistake.draw(np.random.default_rng(1))
    with pytest.raises(GradcheckError) as caught:
        gradcheck((mistake.forward, mistake.backward), *inputs)
    text = str(caught.value)
    assert f"\n{mistake.blames}" in text
    assert mistake.says in text
    blamed = [row.name for row in caught.value.report.rows if row.wrong]
    assert not blamed or mistake.blames.split(":")[0].removeprefix("gradient of ") in blamed


def test_the_zoo_is_large_enough():
    assert len(ZOO) >= 25
    assert len({repr(mistake) for mistake in ZOO}) == len(ZOO)
