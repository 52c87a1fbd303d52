"""Batch normalisation: x is read twice forward, x and dy twice back, and x̂ is never stored.

    X (n, C, P)   a group of n images, P = H·W pixels, q = n·P numbers a channel

    train forward                                                                        reads     writes
      BN.1, BN.2   of each group the mean and Σ (x − mean)²; then all groups merged      x
      BN.3, BN.4   Y = (X − μ) · (gamma · ρ) + beta                                      x         y

    The groups' sums merge exactly, where E[x²] − μ² would lose every digit for a mean far from 0:
      μ = Σ q μ_g / Σ q        Σ (x − μ)² = Σ_g [ Σ (x − μ_g)² + q (μ_g − μ)² ]

    train backward
      BN.4         dbeta = Σ dY, dgamma = ρ Σ dY · (X − μ)                               x, dy
      BN.3–BN.1    dX = gamma ρ (dY − (X − μ) · ρ dgamma / Σq − dbeta / Σq)              x, dy     dx

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


def moments(x: Array) -> tuple[Array, Array]:
    """BN.1 and the mean of squares under BN.2's root, each (C)."""
    X, groups = cut(x)

    def group(index: int) -> tuple[Array, Array]:
        here = X[groups[index]]
        q = here.shape[0] * here.shape[2]
        mean = maps.pixel_sum(here).sum(axis=0) / q
        centred = threads.scratch("centred", here.shape, x.dtype)
        np.subtract(here, maps.beside(mean, here.shape[2]), out=centred)
        return mean, maps.pixel_dot(centred, centred).sum(axis=0)

    with maps.long_rows(X.shape[2]):
        parts = threads.spread(group, len(groups))
    q = np.asarray([here.stop - here.start for here in groups], dtype=x.dtype)[:, None] / X.shape[0]  # the shares
    means = np.stack([mean for mean, _ in parts])
    mean = (q * means).sum(axis=0)
    squares = np.stack([squares for _, squares in parts]).sum(axis=0) / (X.shape[0] * X.shape[2])
    return mean, squares + (q * (means - mean) ** 2).sum(axis=0)


def normalise(x: Array, cache: Cache, beta: Array) -> Array:
    """BN.3 and BN.4."""
    X, groups = cut(x)
    y = output(X.shape, X.dtype)
    mean, scale, level = (maps.beside(v, X.shape[2]) for v in (cache.mean, cache.gamma * cache.rho, beta))

    def group(index: int) -> None:
        n = groups[index]
        np.subtract(X[n], mean, out=y[n])  # BN.3
        y[n] *= scale  # BN.3, BN.4
        y[n] += level  # BN.4

    with maps.long_rows(X.shape[2]):
        threads.spread(group, len(groups))
    return y.reshape(x.shape)


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

    mean, variance = moments(x)  # BN.1
    cache = Cache(x, 1 / np.sqrt(variance + eps), mean, gamma)  # BN.2
    return normalise(x, cache, beta), cache


def eval_forward(x: Array, params: Params, running: Running, eps: float = 1e-5) -> tuple[Array, Cache]:
    """Normalise by the running statistics, as `npattn.ops.batch_norm.eval_forward` does, with its errors."""
    gamma, beta = params
    floating(x=x, gamma=gamma, beta=beta, mean=running.mean, var=running.var)
    (C,) = shaped("gamma", gamma, "C")
    for name, value in (("beta", beta), ("mean", running.mean), ("var", running.var)):
        shaped(name, value, "C", C=C)
    shaped("x", x, "N C H W", C=C)
    taken(x=x)

    cache = Cache(x, 1 / np.sqrt(running.var + eps), running.mean, gamma)  # BN.5, BN.6
    return normalise(x, cache, beta), cache


def sums(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """dy, its elements in order, and the gradients (dgamma, dbeta)."""
    x, rho, mean, _ = cache
    floating(dy=dy, x=x)
    same_shape("dy", dy, x.shape, "the output y")
    dy = contiguous(dy)
    X, groups = cut(x)
    dY, _ = cut(dy)
    mean = maps.beside(mean, X.shape[2])

    def group(index: int) -> tuple[Array, Array]:
        n = groups[index]
        centred = np.subtract(X[n], mean, out=threads.scratch("centred", X[n].shape, x.dtype))
        return maps.pixel_dot(dY[n], centred).sum(axis=0), maps.pixel_sum(dY[n]).sum(axis=0)

    with maps.long_rows(X.shape[2]):
        along, dbeta = threads.add_up(threads.spread(group, len(groups)))
    return dy, Params(along * rho, dbeta)  # BN.4


def train_backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dgamma, dbeta), as the textbook does, and with its errors."""
    x, rho, mean, gamma = cache
    dy, grads = sums(dy, cache)  # BN.4
    X, groups = cut(x)
    dY, _ = cut(dy)
    dx = output(X.shape, X.dtype)
    q = X.shape[0] * X.shape[2]
    constants = mean, -rho * grads.gamma / q, grads.beta / q, gamma * rho
    mean, slope, level, scale = (maps.beside(v, X.shape[2]) for v in constants)

    def group(index: int) -> None:
        n = groups[index]
        part = np.subtract(X[n], mean, out=threads.scratch("centred", X[n].shape, x.dtype))
        part *= slope  # BN.2: a step along x̂ has no effect
        part -= level  # BN.1: nor has a step that moves every x alike
        part += dY[n]  # BN.4
        np.multiply(part, scale, out=dx[n])  # BN.3

    with maps.long_rows(X.shape[2]):
        threads.spread(group, len(groups))
    return dx.reshape(x.shape), grads


def eval_backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dgamma, dbeta), as the textbook does, and with its errors."""
    dy, grads = sums(dy, cache)  # BN.4
    # BN.6 was x̂ = (x − m) ρ with m and, by BN.5, ρ constant: there is the direct path only
    dx = dy * (cache.gamma * cache.rho)[:, None, None]  # BN.6, BN.5
    return dx, grads


def updated(running: Running, cache: Cache, momentum: float = 0.1, eps: float = 1e-5) -> Running:
    """The running statistics moved towards those of the batch, as `npattn.ops.batch_norm.updated` does."""
    N, _, H, W = cache.x.shape
    n = N * H * W
    var = (1 / (cache.rho * cache.rho) - eps) * (n / (n - 1))
    return Running(
        (1 - momentum) * running.mean + momentum * cache.mean,
        (1 - momentum) * running.var + momentum * var,
    )
