"""A sum over an axis: every entry is read once, with slope 1.

    x (C, W)

    SUM.1   s_c = Σ_j x_cj    (C)

Derivation: docs/tools.md
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npattn.backend import Array
from npattn.samples import Draw


def forward(x: Array) -> tuple[Array, tuple[int, ...]]:
    """s (C); the cache is the shape of x."""
    s = np.sum(x, axis=1)  # SUM.1
    return s, x.shape


def backward(ds: Array, shape: tuple[int, ...]) -> Array:
    """Return dx."""
    # SUM.1 read every entry of a row with slope 1: each receives the row's ds. A sum's backward is a broadcast
    dx = ds[:, None] * np.ones(shape)  # SUM.1
    return dx


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"sum": (draw.x("C W"),)}
