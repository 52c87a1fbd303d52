"""NaN and infinities go where PyTorch lets them go, forward and backward, textbook and fused; else it is said where."""

from __future__ import annotations

import numpy as np
import pytest

from tests.extremes import FUSED, PAIRS, SPECIALS, Target, special_run
from tests.torch_pairs import TWINS, run

LAST = (
    "PyTorch hands the gradient to the last of several NaN, as its pooling does; here it is the first, as in torch.max"
)

DEVIATIONS = {
    ("global max pool", "d0"): LAST,
    ("2×2 max pool", "d0"): LAST,
    ("2×2 max pool, fused", "d0"): LAST,
}
"""Pair and result that may differ from PyTorch's, and why. docs/extremes.md has them."""

met: set[tuple[str, str]] = set()


@pytest.mark.parametrize("where", ["x", "dy"])
@pytest.mark.parametrize("special", SPECIALS)
@pytest.mark.parametrize("target", PAIRS + FUSED, ids=lambda target: target.name)
def test_as_pytorch(target: Target, special: str, where: str):
    pytest.importorskip("torch", reason="torch is not installed")
    if target.pair not in TWINS:
        pytest.skip("PyTorch's form of this pair is not written down")
    inputs, dy, found = special_run(target, special, where)
    y, gradients = run(target.pair, inputs, dy)
    wanted = {"y": y} | {f"d{name}": value for name, value in gradients.items()}
    for name, value in wanted.items():
        reason = DEVIATIONS.get((target.name, name))
        try:
            np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-11, err_msg=f"{target.name}: {name}")
        except AssertionError:
            assert reason, f"{target.name}: {name}"
            assert "NaN" in special
            assert where == "x"
            np.testing.assert_allclose(found[name].sum(), value.sum(), rtol=1e-9)
            met.add((target.name, name))


def test_the_deviations_are_there():
    """What is listed above has been met: a list that is longer than need be would hide mistakes."""
    pytest.importorskip("torch", reason="torch is not installed")
    if met:  # the tests before were run, and in this process
        assert met == set(DEVIATIONS)


@pytest.mark.parametrize("target", FUSED, ids=lambda target: target.name)
@pytest.mark.parametrize("special", ["NaN", "+inf", "-inf"])
def test_fused_and_textbook_lose_nothing(target: Target, special: str):
    """Where the textbook's y or dx is NaN or infinite, the fused one's is too: nothing is made finite on the way."""
    textbook = next(plain for plain in PAIRS if plain.name == target.pair)
    for where in ("x", "dy"):
        _, _, found = special_run(target, special, where)
        _, _, wanted = special_run(textbook, special, where)
        for name in ("y", "d0"):
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-9, atol=1e-11, err_msg=name)
