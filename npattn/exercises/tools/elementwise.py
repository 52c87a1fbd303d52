"""An elementwise function: each entry of y reads one entry of x.

    x (any shape)

    EACH.1   y = x² + sin x

Derivation: docs/tools.md
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npattn.backend import Array
from npattn.samples import Draw


def forward(x: Array) -> tuple[Array, Array]:
    """y of the shape of x; the cache is x."""
    y = x * x + np.sin(x)  # EACH.1
    return y, x


def backward(dy: Array, x: Array) -> Array:
    """Return dx."""
    # EACH.1 is a function of one number: its slope is 2x + cos x, and dy is multiplied by it
    dx = dy * (2 * x + np.cos(x))  # EACH.1
    return dx


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"elementwise": (draw.x("C W"),)}
