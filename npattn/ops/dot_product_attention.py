"""Scaled dot-product attention: a query is answered by a mean of the values, weighted by how well their keys fit it.

    q (N, P, R)   k (N, K, R)   v (N, K, M)      P queries, K keys, a value to each key; scale: 1/√R unless given

    ATT.1   s = scale · q kᵀ           (N, P, K)   a score for each query and each key
    ATT.2   a = softmax of s over K    (N, P, K)   shares: each query has 1 to give away
    ATT.3   y = a v                    (N, P, M)

N counts images; of several heads, images times heads. A mask, dropout and projections are not in it.
Vaswani et al., Attention Is All You Need, NeurIPS 2017, equation 1. Derivation: docs/blocks/non-local.md
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from npattn.backend import Array
from npattn.capacity import need
from npattn.checks import floating, plain, real_number, same_shape, shaped
from npattn.ops import softmax
from npattn.samples import Draw

HELD = 4  # arrays of all pairs that a forward or a backward holds at the same time


class Cache(NamedTuple):
    q: Array  # (N, P, R)
    k: Array  # (N, K, R)
    v: Array  # (N, K, M)
    shares: softmax.Cache  # its y is a (N, P, K)
    scale: float


def room_for_pairs(name: str, like: Array, N: int, P: int, K: int) -> None:
    """Check that an attention of N times P queries and K keys has room: `name` is what the caller gave, an array.

    Raises
    ------
    MemoryError
        If it has not, where the arrays are NumPy's.
    """
    if plain(like):
        need(
            HELD * like.dtype.itemsize * N * P * K, lambda: f"{name}: {HELD} arrays of all pairs, {N} of {P:,} × {K:,}"
        )


def forward(q: Array, k: Array, v: Array, scale: float | None = None) -> tuple[Array, Cache]:
    """Answer each query by a mean of the values.

    Parameters
    ----------
    q : (N, P, R)
    k : (N, K, R)
    v : (N, K, M)
    scale
        What the scores are multiplied by, of any sign. None is 1/√R.

    Returns
    -------
    y : (N, P, M)
    cache : Cache
        It holds the shares of all pairs: N P K numbers.

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape that does not match.
    MemoryError
        If the pairs take more memory than there is.
    """
    floating(q=q, k=k, v=v)
    N, P, R = shaped("q", q, "N P R")
    _, K, _ = shaped("k", k, "N K R", N=N, R=R)
    shaped("v", v, "N K M", N=N, K=K)
    if K == 0:
        raise ValueError(f"k: expected at least one key, got shape {(N, K, R)}")
    if scale is None:
        if R == 0:
            raise ValueError(f"q: expected a last axis of at least 1 for the scale 1/√R, got shape {(N, P, R)}")
        scale = 1 / math.sqrt(R)
    scale = real_number("scale", scale)
    room_for_pairs("q, k", q, N, P, K)

    s = scale * (q @ k.mT)  # ATT.1
    a, shares = softmax.forward(s)  # ATT.2
    y = a @ v  # ATT.3
    return y, Cache(q, k, v, shares, scale)


def backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return dq, dk and dv.

    Parameters
    ----------
    dy : (N, P, M)
    cache : Cache

    Returns
    -------
    dq : (N, P, R)
    dk : (N, K, R)
    dv : (N, K, M)

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    q, k, v, shares, scale = cache
    floating(dy=dy, q=q)
    same_shape("dy", dy, (*q.shape[:2], v.shape[2]), "the output y")

    # ATT.3 was y = a v: each factor receives dy times the other
    da = dy @ v.mT  # ATT.3
    dv = shares.y.mT @ dy  # ATT.3

    # ATT.2 made shares: what one receives is held against the mean of its row
    ds = softmax.backward(da, shares)  # ATT.2

    # ATT.1 was s = scale · q kᵀ: each factor receives ds times the other, and the scale goes along
    dq = scale * (ds @ k)  # ATT.1
    dk = scale * (ds.mT @ q)  # ATT.1
    return dq, dk, dv


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"dot-product attention": (draw.x("N P R"), draw.w("N K R"), draw.w("N K M"))}


PAGE = {"N": 1, "P": 2, "R": 1, "K": 2, "M": 2}  # the sizes of the docs' worked example
