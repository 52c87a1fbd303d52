"""A product of matrices: rows read by columns, columns by rows.

    a (N, K)   b (K, M)

    MAT.1   y = a b    (N, M)    y_nm = Σ_k a_nk b_km

Derivation: docs/tools.md
"""

from __future__ import annotations

from typing import Any

from npattn.backend import Array
from npattn.samples import Draw


def forward(a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    """y (N, M); the cache is a and b."""
    y = a @ b  # MAT.1
    return y, (a, b)


def backward(dy: Array, cache: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return da and db."""
    a, b = cache

    # MAT.1 is the product rule again: each factor receives dy times the other
    # What is transposed follows from the shapes: da is (N, K), db is (K, M)
    da = dy @ b.T  # MAT.1
    db = a.T @ dy  # MAT.1
    return da, db


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"matmul": (draw.x("N K"), draw.x("K M"))}
