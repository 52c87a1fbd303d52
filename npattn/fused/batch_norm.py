"""Batch normalisation: x is read once forward, x and dy back, and x̂ is never stored.

    X (n, C, P)   a group g of n images, P = H·W pixels, q = n·P numbers a channel; all groups: Q = Σ q

    train forward                                                                        reads     writes
      BN.1, BN.2   μ_g; Y = X − μ_g; Σ Y²; then all groups merged to μ and ρ             x         y
      BN.3, BN.4   Y = Y · (gamma · ρ) + (beta + (μ_g − μ) · gamma · ρ)                  y         y

    The groups' sums merge exactly, where E[x²] − μ² would lose every digit for a mean far from 0:
      μ = Σ q μ_g / Q        Σ (x − μ)² = Σ_g [ Σ (x − μ_g)² + q (μ_g − μ)² ]

    train backward
      BN.4         D = X − μ, where dx will be; dbeta = Σ dY, dgamma = ρ Σ dY · D        x, dy     dx
      BN.3–BN.1    dX = gamma ρ (dY − D · ρ dgamma / Q − dbeta / Q)                      dx, dy    dx

In eval μ and ρ are constants, which leaves dX = gamma ρ dY.

Where several processes share a batch (shares.py), μ, ρ and Q are those of all their groups, and so are dgamma and dbeta
in dX. The gradients (dgamma, dbeta) that are returned are a share's own, as every layer's are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npattn.backend import Array
from npattn.checks import floating, same_shape, shaped
from npattn.fused import contiguous, maps, shares, taken, threads, tiles
from npattn.fused.memory import output
from npattn.ops.batch_norm import Params, Running

__all__ = [
    "Cache",
    "Params",
    "Running",
    "eval_backward",
    "eval_forward",
    "train_backward",
    "train_forward",
    "updated",
]


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    rho: Array  # (C)
    mean: Array  # (C), of the batch in training, the running one in eval
    gamma: Array  # (C)
    numbers: int  # Q


def cut(x: Array) -> tuple[Array, list[slice]]:
    """x as (N, C, P), and groups of images."""
    N, C, H, W = x.shape
    return x.reshape(N, C, H * W), tiles.images(N, C * H * W * x.itemsize)


def train_forward(x: Array, params: Params, eps: float = 1e-5) -> tuple[Array, Cache]:
    """Normalise by the statistics of this batch, as `npattn.ops.batch_norm.train_forward` does, with its errors."""
    gamma, beta = params
    floating(x=x, gamma=gamma, beta=beta)
    (C,) = shaped("gamma", gamma, "C")
    shaped("beta", beta, "C", C=C)
    N, C, H, W = shaped("x", x, "N C H W", C=C)
    if N * H * W < 2:
        raise ValueError(f"x: expected at least 2 numbers a channel to take a variance of, got shape {(N, C, H, W)}")
    taken(x=x)

    X, groups = cut(x)
    y = output(X.shape, X.dtype)
    P = X.shape[2]
    rows = np.empty((len(groups), 1 + 2 * C), dtype=x.dtype)  # of each group n, μ_g and Σ (x − μ_g)²

    def group(index: int) -> None:
        n = groups[index]
        mean = maps.pixel_sum(X[n]).sum(axis=0) / ((n.stop - n.start) * P)
        np.subtract(X[n], maps.beside(mean, P), out=y[n])
        rows[index, 0] = n.stop - n.start
        rows[index, 1 : 1 + C], rows[index, 1 + C :] = mean, maps.pixel_dot(y[n], y[n]).sum(axis=0)

    with maps.long_rows(P):
        threads.spread(group, len(groups))
    images, means, squares = np.split(shares.of_all(rows), [1, 1 + C], axis=1)
    numbers = int(images.sum()) * P
    weights = images * P / numbers
    mean = (weights * means).sum(axis=0)  # BN.1
    variance = squares.sum(axis=0) / numbers + (weights * (means - mean) ** 2).sum(axis=0)
    rho = 1 / np.sqrt(variance + eps)  # BN.2
    scale = gamma * rho

    def rest(index: int) -> None:
        n = groups[index]
        y[n] *= maps.beside(scale, P)  # BN.3, BN.4
        y[n] += maps.beside(beta + (rows[index, 1 : 1 + C] - mean) * scale, P)  # BN.3, BN.4

    with maps.long_rows(P):
        threads.spread(rest, len(groups))
    return y.reshape(x.shape), Cache(x, rho, mean, gamma, numbers)


def eval_forward(x: Array, params: Params, running: Running, eps: float = 1e-5) -> tuple[Array, Cache]:
    """Normalise by the running statistics, as `npattn.ops.batch_norm.eval_forward` does, with its errors."""
    gamma, beta = params
    floating(x=x, gamma=gamma, beta=beta, mean=running.mean, var=running.var)
    (C,) = shaped("gamma", gamma, "C")
    for name, value in (("beta", beta), ("mean", running.mean), ("var", running.var)):
        shaped(name, value, "C", C=C)
    shaped("x", x, "N C H W", C=C)
    taken(x=x)

    rho = 1 / np.sqrt(running.var + eps)  # BN.5
    X, groups = cut(x)
    y = output(X.shape, X.dtype)
    mean, scale, level = (maps.beside(v, X.shape[2]) for v in (running.mean, gamma * rho, beta))

    def group(index: int) -> None:
        n = groups[index]
        np.subtract(X[n], mean, out=y[n])  # BN.6
        y[n] *= scale  # BN.6, BN.4
        y[n] += level  # BN.4

    with maps.long_rows(X.shape[2]):
        threads.spread(group, len(groups))
    return y.reshape(x.shape), Cache(x, rho, running.mean, gamma, x.size // C)


def sums(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dy, its elements in order; D = X − μ where dx will be; and of each group Σ dY · D beside Σ dY, (groups, 2·C)."""
    x, rho, mean, _, _ = cache
    floating(dy=dy, x=x)
    same_shape("dy", dy, x.shape, "the output y")
    dy = contiguous(dy)
    X, groups = cut(x)
    dY, _ = cut(dy)
    D = output(X.shape, X.dtype)
    mean = maps.beside(mean, X.shape[2])
    C = len(rho)
    rows = np.empty((len(groups), 2 * C), dtype=x.dtype)

    def group(index: int) -> None:
        n = groups[index]
        np.subtract(X[n], mean, out=D[n])
        rows[index, :C] = maps.pixel_dot(dY[n], D[n]).sum(axis=0)
        rows[index, C:] = maps.pixel_sum(dY[n]).sum(axis=0)

    with maps.long_rows(X.shape[2]):
        threads.spread(group, len(groups))
    return dy, D, rows


def gradients(rows: Array, rho: Array) -> Params:
    """(dgamma, dbeta), from the sums of all groups."""
    along, dbeta = rows.sum(axis=0).reshape(2, -1)
    return Params(along * rho, dbeta)  # BN.4


def train_backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dgamma, dbeta), as the textbook does, and with its errors."""
    x, rho, _, gamma, numbers = cache
    dy, dx, rows = sums(dy, cache)  # BN.4
    dY, groups = cut(dy)
    whole = gradients(shares.of_all(rows), rho)
    constants = -rho * whole.gamma / numbers, whole.beta / numbers, gamma * rho
    slope, level, scale = (maps.beside(v, dx.shape[2]) for v in constants)

    def group(index: int) -> None:
        part = dx[groups[index]]
        part *= slope  # BN.2: a step along x̂ has no effect
        part -= level  # BN.1: nor has a step that moves every x alike
        part += dY[groups[index]]  # BN.4
        part *= scale  # BN.3

    with maps.long_rows(dx.shape[2]):
        threads.spread(group, len(groups))
    return dx.reshape(x.shape), gradients(rows, rho)


def eval_backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dgamma, dbeta), as the textbook does, and with its errors."""
    dy, dx, rows = sums(dy, cache)  # BN.4
    # BN.6 was x̂ = (x − m) ρ with m and, by BN.5, ρ constant: there is the direct path only
    np.multiply(dy.reshape(dx.shape), (cache.gamma * cache.rho)[:, None], out=dx)  # BN.6, BN.5
    return dx.reshape(dy.shape), gradients(rows, cache.rho)


def updated(running: Running, cache: Cache, momentum: float = 0.1, eps: float = 1e-5) -> Running:
    """The running statistics moved towards those of the batch, as `npattn.ops.batch_norm.updated` does."""
    n = cache.numbers
    var = (1 / (cache.rho * cache.rho) - eps) * (n / (n - 1))
    return Running(
        (1 - momentum) * running.mean + momentum * cache.mean,
        (1 - momentum) * running.var + momentum * var,
    )
