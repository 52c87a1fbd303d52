"""The two FC of SE and of channel attention with the ReLU between, in as few calls as they take: they are small.

s (…, n, C)   w1 (R, C)   w2 (C, R)

MLP.1, MLP.2   h = max(s w1ᵀ, 0)
MLP.3          a = h w2ᵀ
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npattn.backend import Array


class Cache(NamedTuple):
    s: Array  # (…, n, C)
    h: Array  # (…, n, R)
    w1: Array  # (R, C)
    w2: Array  # (C, R)


def forward(s: Array, w1: Array, w2: Array) -> tuple[Array, Cache]:
    """a (…, n, C)."""
    h = s @ w1.T  # MLP.1
    np.maximum(h, 0, out=h)  # MLP.2, which keeps a NaN
    return h @ w2.T, Cache(s, h, w1, w2)  # MLP.3


def backward(da: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """ds (…, n, C), dw1 and dw2, each the sum over all leading axes."""
    s, h, w1, w2 = cache
    (C, R), rows = w2.shape, da.reshape(-1, w2.shape[0])
    dw2 = rows.T @ h.reshape(-1, R)  # MLP.3
    dh = rows @ w2  # MLP.3
    # MLP.2 let through what was positive; a NaN in h is no 0
    dh[h.reshape(-1, R) == 0] = 0  # MLP.2
    dw1 = dh.T @ s.reshape(-1, C)  # MLP.1
    return (dh @ w1).reshape(da.shape), dw1, dw2  # MLP.1
