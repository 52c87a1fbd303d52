"""The fully connected layer (FC). A 1×1 convolution is the same map, applied to every pixel's channels.

    x (..., K)   w (M, K)   b (M) or None   y (..., M)      "..." are any leading axes; P counts all their entries

    FC.1   y = x wᵀ          y[p, m] = Σ_k x[p, k] w[m, k]
    FC.2   y = y + b         b is broadcast over the leading axes

Put a pixel's channels last, and FC.1 is the 1×1 convolution: `conv2d` with a (M, K, 1, 1) kernel gives the same.
Derivation: docs/ops/linear.md
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Weight
from npattn.checks import floating, same_shape, shaped, true_or_false, whole_number
from npattn.layer import Options
from npattn.samples import Draw


class Params(NamedTuple):
    w: Array  # (M, K)
    b: Array | None = None  # (M)


class Cache(NamedTuple):
    x: Array  # (..., K)
    params: Params


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """Map the last axis of x.

    Parameters
    ----------
    x : (..., K)
    params
        w (M, K) and b (M) or None.

    Returns
    -------
    y : (..., M)
    cache : Cache

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape that does not match.
    """
    w, b = params
    floating(x=x, w=w, b=b)
    M, K = shaped("w", w, "M K")
    shaped("x", x, "... K", K=K)

    y = x @ w.T  # FC.1
    if b is not None:
        shaped("b", b, "M", M=M)
        y = y + b  # FC.2
    return y, Cache(x, params)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx (..., K) and the gradients (dw, db), db None where b was.

    Parameters
    ----------
    dy : (..., M)
    cache : Cache

    Returns
    -------
    dx : (..., K)
    grads : Params
        dw and db, None where b was.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x, (w, b) = cache
    xp = floating(dy=dy, x=x)
    M, K = w.shape
    same_shape("dy", dy, (*x.shape[:-1], M), "the output y")
    rows = math.prod(x.shape[:-1])
    dy_rows = xp.reshape(dy, (rows, M))  # the leading axes as one, P
    x_rows = xp.reshape(x, (rows, K))

    # FC.2 broadcast b over all rows: its gradient is the sum over them
    db = None if b is None else xp.sum(dy_rows, axis=0)  # FC.2

    # FC.1 was y = x wᵀ: each factor receives dy times the other one
    dx = dy @ w  # FC.1
    dw = dy_rows.T @ x_rows  # FC.1
    return dx, Params(dw, db)


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    x, w, b = draw.x("... K"), draw.w("M K"), draw.w("M")
    return {"linear": (x, Params(w, b)), "linear without bias": (x, Params(w))}


PAGE = {"...": 2, "K": 2, "M": 3}  # the sizes of the docs' worked example


class Linear(Block):
    """A fully connected layer, (N, in_features) to (N, out_features), with PyTorch's keys and initial distribution.

    Parameters
    ----------
    in_features, out_features
        Widths K and M, at least 1.
    bias
        Whether there is a b.
    dtype, rng, xp, fused
        As in `npattn.Layer`.

    Raises
    ------
    TypeError, ValueError
        If a width is no whole number of at least 1, or bias no bool.
    """

    state = (Weight("weight", "w", "M K"), Weight("bias", "b", "M", fan_in="K"))
    arguments = {"in_features": "W", "out_features": "C"}  # on images: the last axis

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, **options: Unpack[Options]) -> None:
        K = whole_number("in_features", in_features)
        M = whole_number("out_features", out_features)
        super().__init__({"K": K, "M": M}, without=() if true_or_false("bias", bias) else ("b",), **options)
