"""NaN and infinities go where PyTorch lets them go, forward and backward, textbook and fused; else it is said where."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.extremes import FUSED, PAIRS, SPECIALS, Target, special_run
from tests.support.torch_pairs import TWINS, run

COMPARED = [target for target in PAIRS + FUSED if target.pair in TWINS]
"""The pairs whose form in PyTorch is written down."""

LAST = (
    "PyTorch hands the gradient to the last of several NaN, as its pooling does; here it is the first, as in torch.max"
)

TWO_WAYS = (
    "an infinite dy comes back on two ways, ∞ − ∞ where their slopes differ in sign; PyTorch adds the slopes first"
)

DEVIATIONS = {
    ("global max pool", "d0"): LAST,
    ("2×2 max pool", "d0"): LAST,
    ("2×2 max pool, fused", "d0"): LAST,
    ("maximum over windows", "d0"): LAST,
    ("maximum over oblong windows", "d0"): LAST,
    ("silu", "d0"): TWO_WAYS,
}
"""Pair and result that may differ from PyTorch's, and why. docs/extremes.md has them."""


def same(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether they agree, NaN and infinities included."""
    return np.allclose(found, wanted, rtol=1e-9, atol=1e-11, equal_nan=True)


def beside_torch(target: Target, special: str, where: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name to what was found and what PyTorch has."""
    inputs, dy, found = special_run(target, special, where)
    y, gradients = run(target.pair, inputs, dy)
    wanted = {"y": y} | {f"d{name}": value for name, value in gradients.items()}
    return {name: (found[name], value) for name, value in wanted.items()}


@pytest.mark.parametrize("where", ["x", "dy"])
@pytest.mark.parametrize("special", SPECIALS)
@pytest.mark.parametrize("target", COMPARED, ids=lambda target: target.name)
def test_as_pytorch(target: Target, special: str, where: str):
    pytest.importorskip("torch", reason="torch is not installed")
    for name, (found, wanted) in beside_torch(target, special, where).items():
        if not same(found, wanted):
            assert (target.name, name) in DEVIATIONS, f"{target.name}: {name}"
            if DEVIATIONS[target.name, name] == TWO_WAYS:
                assert where == "dy"
                assert np.all(np.isnan(found) | (found == wanted) | np.isclose(found, wanted, rtol=1e-9))
                continue
            assert "NaN" in special
            assert where == "x"
            np.testing.assert_allclose(found.sum(), wanted.sum(), rtol=1e-9)


@pytest.mark.parametrize(("of", "name"), DEVIATIONS)
def test_the_deviations_are_there(of: str, name: str):
    """What is listed above is met: a list that is longer than need be would hide mistakes."""
    pytest.importorskip("torch", reason="torch is not installed")
    (target,) = (target for target in PAIRS + FUSED if target.name == of)
    two_ways = DEVIATIONS[of, name] == TWO_WAYS
    specials = [special for special in SPECIALS if two_ways or "NaN" in special]
    pairs = [beside_torch(target, special, "dy" if two_ways else "x")[name] for special in specials]
    assert not all(same(found, wanted) for found, wanted in pairs)


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
