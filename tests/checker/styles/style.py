"""What a style is: a function that makes the target, right or wrong, and the inputs. The files beside have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Style(NamedTuple):
    """One way to write a layer."""

    name: str
    make: Callable[[bool], Any]  # True for the wrong one
    inputs: tuple[Any, ...]
    at: str  # where the wrong one is wrong
    tensors: tuple[str, ...]  # what is checked
    options: dict[str, Any] = {}

    def __repr__(self) -> str:
        return self.name


STYLES: list[Style] = []


def style(at: str, tensors: str, *inputs: Any, **options: Any) -> Callable[..., Any]:
    """Put what makes the target into the list."""

    def keep(make: Callable[[bool], Any]) -> Callable[[bool], Any]:
        STYLES.append(Style(make.__name__, make, inputs, at, tuple(tensors.split()), options))
        return make

    return keep


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


X = normal(4, 3)
IMAGE = normal(2, 3, 4, 4)
LABELS = np.array([0, 2, 1, 2])
ONE_HOT = np.eye(3)[LABELS]


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)
