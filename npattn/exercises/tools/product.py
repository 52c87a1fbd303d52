"""A product, entry by entry: each factor needs the other one.

    a (C, W)   b (C, W)

    PROD.1   y = a · b    (C, W)

Derivation: docs/tools.md
"""

from __future__ import annotations

from typing import Any

from npattn.backend import Array
from npattn.samples import Draw


def forward(a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    """y of the shape of a and b; the cache is both."""
    y = a * b  # PROD.1
    return y, (a, b)


def backward(dy: Array, cache: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return da and db."""
    a, b = cache

    # PROD.1 was y = a · b: the slope for each factor is the other factor
    da = dy * b  # PROD.1
    db = dy * a  # PROD.1
    return da, db


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"product": (draw.x("C W"), draw.x("C W"))}
