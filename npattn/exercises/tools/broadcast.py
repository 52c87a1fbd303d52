"""A product with a broadcast factor: one number is read by a whole row.

    x (C, W)   g (C)

    CAST.1   y_cj = x_cj · g_c    (C, W)

Derivation: docs/tools.md
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npattn.backend import Array
from npattn.samples import Draw


def forward(x: Array, g: Array) -> tuple[Array, tuple[Array, Array]]:
    """y of the shape of x; the cache is x and g."""
    y = x * g[:, None]  # CAST.1
    return y, (x, g)


def backward(dy: Array, cache: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return dx and dg."""
    x, g = cache

    # CAST.1 was a product: x receives dy times the other factor, g
    dx = dy * g[:, None]  # CAST.1
    # g_c was read by all of row c, so what comes back from the row adds up. A broadcast's backward is a sum
    dg = np.sum(dy * x, axis=1)  # CAST.1
    return dx, dg


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"broadcast": (draw.x("C W"), draw.x("C"))}
