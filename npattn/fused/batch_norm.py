"""Batch normalisation: x is read once forward, x and dy back, and x̂ is never stored.

    X (n, C, P)   a group g of n images, P = H·W pixels, q = n·P numbers a channel

    train forward                                                                        reads     writes
      BN.1, BN.2   μ_g; Y = X − μ_g; Σ Y²; then all groups merged to μ and ρ             x         y
      BN.3, BN.4   Y = Y · (gamma · ρ) + (beta + (μ_g − μ) · gamma · ρ)                  y         y

    The groups' sums merge exactly, where E[x²] − μ² would lose every digit for a mean far from 0:
      μ = Σ q μ_g / Σ q        Σ (x − μ)² = Σ_g [ Σ (x − μ_g)² + q (μ_g − μ)² ]

    train backward
      BN.4         D = X − μ, where dx will be; dbeta = Σ dY, dgamma = ρ Σ dY · D        x, dy     dx
      BN.3–BN.1    dX = gamma ρ (dY − D · ρ dgamma / Σq − dbeta / Σq)                    dx, dy    dx

In eval μ and ρ are constants, which leaves dX = gamma ρ dY.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npattn.backend import Array
from npattn.checks import floating, same_shape, shaped
from npattn.fused import contiguous, maps, taken, threads, tiles
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

    def group(index: int) -> tuple[Array, Array]:
        n = groups[index]
        mean = maps.pixel_sum(X[n]).sum(axis=0) / ((n.stop - n.start) * P)
        np.subtract(X[n], maps.beside(mean, P), out=y[n])
        return mean, maps.pixel_dot(y[n], y[n]).sum(axis=0)

    with maps.long_rows(P):
        parts = threads.spread(group, len(groups))
    means, squares = (np.stack(both) for both in zip(*parts, strict=True))
    shares = np.asarray([n.stop - n.start for n in groups], dtype=x.dtype)[:, None] / N
    mean = (shares * means).sum(axis=0)  # BN.1
    variance = squares.sum(axis=0) / (N * P) + (shares * (means - mean) ** 2).sum(axis=0)
    rho = 1 / np.sqrt(variance + eps)  # BN.2
    scale = gamma * rho

    def rest(index: int) -> None:
        n = groups[index]
        y[n] *= maps.beside(scale, P)  # BN.3, BN.4
        y[n] += maps.beside(beta + (means[index] - mean) * scale, P)  # BN.3, BN.4

    with maps.long_rows(P):
        threads.spread(rest, len(groups))
    return y.reshape(x.shape), Cache(x, rho, mean, gamma)


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
    return y.reshape(x.shape), Cache(x, rho, running.mean, gamma)


def sums(dy: Array, cache: Cache) -> tuple[Array, Array, Params]:
    """dy, its elements in order; D = X − μ where dx will be; and the gradients (dgamma, dbeta)."""
    x, rho, mean, _ = cache
    floating(dy=dy, x=x)
    same_shape("dy", dy, x.shape, "the output y")
    dy = contiguous(dy)
    X, groups = cut(x)
    dY, _ = cut(dy)
    D = output(X.shape, X.dtype)
    mean = maps.beside(mean, X.shape[2])

    def group(index: int) -> tuple[Array, Array]:
        n = groups[index]
        np.subtract(X[n], mean, out=D[n])
        return maps.pixel_dot(dY[n], D[n]).sum(axis=0), maps.pixel_sum(dY[n]).sum(axis=0)

    with maps.long_rows(X.shape[2]):
        along, dbeta = threads.add_up(threads.spread(group, len(groups)))
    return dy, D, Params(along * rho, dbeta)  # BN.4


def train_backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dgamma, dbeta), as the textbook does, and with its errors."""
    x, rho, _, gamma = cache
    dy, dx, grads = sums(dy, cache)  # BN.4
    dY, groups = cut(dy)
    N, _, P = dx.shape
    constants = -rho * grads.gamma / (N * P), grads.beta / (N * P), gamma * rho
    slope, level, scale = (maps.beside(v, P) for v in constants)

    def group(index: int) -> None:
        part = dx[groups[index]]
        part *= slope  # BN.2: a step along x̂ has no effect
        part -= level  # BN.1: nor has a step that moves every x alike
        part += dY[groups[index]]  # BN.4
        part *= scale  # BN.3

    with maps.long_rows(P):
        threads.spread(group, len(groups))
    return dx.reshape(x.shape), grads


def eval_backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dgamma, dbeta), as the textbook does, and with its errors."""
    dy, dx, grads = sums(dy, cache)  # BN.4
    # BN.6 was x̂ = (x − m) ρ with m and, by BN.5, ρ constant: there is the direct path only
    np.multiply(dy.reshape(dx.shape), (cache.gamma * cache.rho)[:, None], out=dx)  # BN.6, BN.5
    return dx.reshape(dy.shape), grads


def updated(running: Running, cache: Cache, momentum: float = 0.1, eps: float = 1e-5) -> Running:
    """The running statistics moved towards those of the batch, as `npattn.ops.batch_norm.updated` does."""
    N, _, H, W = cache.x.shape
    n = N * H * W
    var = (1 / (cache.rho * cache.rho) - eps) * (n / (n - 1))
    return Running(
        (1 - momentum) * running.mean + momentum * cache.mean,
        (1 - momentum) * running.var + momentum * var,
    )
