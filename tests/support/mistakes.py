"""Wrong backwards: mistakes that people really make, each beside the right forward. The checker must reject every one.

A mistake names what the check must blame, and, where its pattern is plain, a part of the likely cause. Those of a block
stand in the file of its proofs, tests/blocks/; those of the ops in tests/checker/zoo_ops.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from npattn import GradcheckError, Layer, gradcheck

Draw = Callable[[np.random.Generator], tuple[Any, ...]]
Backward = Callable[..., Any]


@dataclass(frozen=True)
class Mistake:
    """A wrong backward, what the checker is asked beside its right forward, and what its message has to say."""

    backward: Backward
    asked: Draw  # the target and the inputs, all that gradcheck takes
    blames: str
    says: str
    house_rule: bool = False  # right numbers, and against our own rules: what strict=True is for

    @property
    def module(self) -> str:
        """Where it stands: the file of a block's proofs."""
        return self.backward.__module__

    def __repr__(self) -> str:
        return self.backward.__name__


MISTAKES: list[Mistake] = []


def mistake(
    forward: Callable[..., Any], draw: Draw, blames: str, says: str = "", house_rule: bool = False
) -> Callable[[Backward], Backward]:
    """Put the decorated backward among the mistakes: that of `forward`, whose inputs `draw` gives."""

    def add(backward: Backward) -> Backward:
        MISTAKES.append(Mistake(backward, lambda rng: ((forward, backward), *draw(rng)), blames, says, house_rule))
        return backward

    return add


def mistake_of_layer(
    make: Callable[[np.random.Generator], Layer], draw: Draw, blames: str, says: str = ""
) -> Callable[[Backward], Backward]:
    """The same for a layer that is made of layers: the decorated function takes the place of its `undo`."""

    def add(undo: Backward) -> Backward:
        def asked(rng: np.random.Generator) -> tuple[Any, ...]:
            layer = make(rng)
            layer.__class__ = type(undo.__name__, (type(layer),), {"undo": undo})
            return layer, *draw(rng)

        MISTAKES.append(Mistake(undo, asked, blames, says))
        return undo

    return add


def must_be_rejected(wrong: Mistake) -> None:
    """Assert that the checker rejects it, and for the right reason."""
    with pytest.raises(GradcheckError) as caught:
        gradcheck(*wrong.asked(np.random.default_rng(1)), strict=wrong.house_rule)
    text = str(caught.value)
    assert f"\n{wrong.blames}" in text
    assert wrong.says in text
    blamed = [row.name for row in caught.value.report.rows if row.wrong]
    assert not blamed or wrong.blames.split(":")[0].removeprefix("gradient of ") in blamed


def image(rng: np.random.Generator, shape: tuple[int, ...] = (2, 4, 5, 6)) -> np.ndarray:
    """An input of both signs."""
    return rng.standard_normal(shape)


def only_x(rng: np.random.Generator) -> tuple[np.ndarray]:
    """The input of what has no parameters."""
    return (image(rng),)


def tied_x(rng: np.random.Generator) -> tuple[np.ndarray]:
    """The same with ties."""
    return (rng.integers(0, 3, (2, 4, 4, 6)).astype(float),)
