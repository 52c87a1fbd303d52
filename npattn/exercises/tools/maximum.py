"""A maximum over an axis: it reads one entry and routes the gradient there.

    x (C, W)

    MAX.1   i_c = where row c is largest, the first such place    (C, 1)
    MAX.2   y_c = x_c at i_c                                      (C, 1)

Derivation: docs/tools.md
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npattn.backend import Array
from npattn.samples import Draw


def forward(x: Array) -> tuple[Array, tuple[Array, tuple[int, ...]]]:
    """y (C, 1); the cache is the places and the shape of x."""
    i = np.argmax(x, axis=1, keepdims=True)  # MAX.1
    y = np.take_along_axis(x, i, axis=1)  # MAX.2
    return y, (i, x.shape)


def backward(dy: Array, cache: tuple[Array, tuple[int, ...]]) -> Array:
    """Return dx."""
    i, shape = cache

    # MAX.2 read one entry of a row: that one receives all of dy. MAX.1 chose it; a choice has no slope
    dx = np.zeros(shape)
    np.put_along_axis(dx, i, dy, axis=1)  # MAX.2, MAX.1
    return dx


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"maximum": (draw.x("C W"),)}
