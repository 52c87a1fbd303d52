"""A value that is used twice: two readers, two gradients, one sum.

    x (C, W)

    TWICE.1   s = mean of each row of x     (C, 1)
    TWICE.2   y = x · tanh(s)               (C, W)

Derivation: docs/tools.md
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npattn.backend import Array
from npattn.samples import Draw


def forward(x: Array) -> tuple[Array, tuple[Array, Array]]:
    """y of the shape of x; the cache is x and tanh(s)."""
    s = np.mean(x, axis=1, keepdims=True)  # TWICE.1
    t = np.tanh(s)
    y = x * t  # TWICE.2
    return y, (x, t)


def backward(dy: Array, cache: tuple[Array, Array]) -> Array:
    """Return dx."""
    x, t = cache

    # TWICE.2 was a product: dy times the other factor for each, and for t, which was broadcast, the sum over the row
    dx_direct = dy * t  # TWICE.2
    dt = np.sum(dy * x, axis=1, keepdims=True)  # TWICE.2

    # tanh has the slope 1 − tanh²
    ds = dt * (1 - t * t)

    # TWICE.1 was a mean over the row: each entry has the same share in it
    dx_mean = ds / x.shape[1] * np.ones(x.shape)  # TWICE.1

    # x was read in TWICE.1 and in TWICE.2: what comes back adds
    dx = dx_direct + dx_mean
    return dx


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"used twice": (draw.x("C W"),)}
