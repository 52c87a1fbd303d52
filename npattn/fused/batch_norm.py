"""Batch normalisation: x is read once forward, x and dy back, and x̂ is never stored.

    X (n, C, P)   a group g of n images, P = H·W pixels, q = n·P numbers a channel; all groups: Q = Σ q
    or (1, C, P·N), one group of N images side by side (layout.py), taken a few channels at a time

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
from npattn.checks import floating, real_number, same_shape, shaped
from npattn.fused import check_takes, layout, maps, shares, threads, tiles
from npattn.ops.batch_norm import Params, Running

__all__ = [
    "Cache",
    "Params",
    "Running",
    "backward",
    "eval_backward",
    "eval_forward",
    "forward",
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
    of_batch: bool  # whether mean and rho are those of the batch
    eps: float


class Part(NamedTuple):
    g: int  # the group
    n: slice  # its images
    c: slice  # its channels
    images: int


def cut(X: Array, b: int) -> list[Part]:
    """Groups of images with all their channels, or of b images side by side all of them with some channels."""
    a, C, L = X.shape
    if b > 1:
        return [Part(0, slice(0, 1), c, b) for c in tiles.images(C, L * X.itemsize)]
    groups = tiles.images(a, C * L * X.itemsize)
    return [Part(g, n, slice(0, C), n.stop - n.start) for g, n in enumerate(groups)]


def train_forward(x: Array, params: Params, eps: float = 1e-5) -> tuple[Array, Cache]:
    """Normalise by the statistics of this batch, as `npattn.ops.batch_norm.train_forward` does, with its errors."""
    gamma, beta = params
    floating(x=x, gamma=gamma, beta=beta)
    eps = real_number("eps", eps, least=0)
    (C,) = shaped("gamma", gamma, "C")
    shaped("beta", beta, "C", C=C)
    N, C, H, W = shaped("x", x, "N C H W", C=C)
    if N * H * W < 2:
        raise ValueError(f"x: expected at least 2 numbers a channel to take a variance of, got shape {(N, C, H, W)}")
    check_takes(x=x)

    b = layout.beside(x)
    X, y = layout.planes(x), layout.output(x.shape, x.dtype, b)
    Y, L, parts = layout.planes(y), X.shape[2], cut(X, b)
    rows = np.empty((parts[-1].g + 1, 1 + 2 * C), dtype=x.dtype)  # of each group n, μ_g and Σ (x − μ_g)²
    own_means = rows[:, 1 : 1 + C]

    def centre(index: int) -> None:
        g, n, c, images = parts[index]
        own_means[g, c] = maps.pixel_sum(X[n, c]).sum(axis=0, dtype=np.float64) / (images * H * W)
        np.subtract(X[n, c], maps.repeated(own_means[g, c], L), out=Y[n, c])
        rows[g, 0], rows[g, 1 + C :][c] = images, maps.pixel_dot(Y[n, c], Y[n, c]).sum(axis=0, dtype=np.float64)

    with maps.long_rows(L):
        threads.in_parallel(centre, len(parts))
    every = shares.of_all(rows).astype(np.float64)  # few numbers: float32 would lose digits beside a large mean
    images, means, squares = every[:, :1], every[:, 1 : 1 + C], every[:, 1 + C :]
    count = images.sum()
    numbers = int(count) * H * W
    mean = (images * means).sum(axis=0) / count  # BN.1
    variance = squares.sum(axis=0) / numbers + (images * (means - mean) ** 2).sum(axis=0) / count
    rho = 1 / np.sqrt(variance + eps)  # BN.2
    mean, rho = mean.astype(x.dtype), rho.astype(x.dtype)
    scale = gamma * rho

    def rest(index: int) -> None:
        g, n, c, _ = parts[index]
        level = beta[c] + (own_means[g, c] - mean[c]) * scale[c]
        Y[n, c] *= maps.repeated(scale[c], L)  # BN.3, BN.4
        Y[n, c] += maps.repeated(level, L)  # BN.3, BN.4

    with maps.long_rows(L):
        threads.in_parallel(rest, len(parts))
    return y, Cache(x, rho, mean, gamma, numbers, True, eps)


def eval_forward(x: Array, params: Params, running: Running, eps: float = 1e-5) -> tuple[Array, Cache]:
    """Normalise by the running statistics, as `npattn.ops.batch_norm.eval_forward` does, with its errors."""
    gamma, beta = params
    floating(x=x, gamma=gamma, beta=beta, mean=running.mean, var=running.var)
    eps = real_number("eps", eps, least=0)
    (C,) = shaped("gamma", gamma, "C")
    for name, value in (("beta", beta), ("mean", running.mean), ("var", running.var)):
        shaped(name, value, "C", C=C)
    shaped("x", x, "N C H W", C=C)
    check_takes(x=x)

    rho = 1 / np.sqrt(running.var + eps)  # BN.5
    b = layout.beside(x)
    X, y = layout.planes(x), layout.output(x.shape, x.dtype, b)
    Y, L, parts = layout.planes(y), X.shape[2], cut(X, b)
    mean, scale, level = (maps.repeated(v, L) for v in (running.mean, gamma * rho, beta))

    def part(index: int) -> None:
        _, n, c, _ = parts[index]
        np.subtract(X[n, c], mean[c], out=Y[n, c])  # BN.6
        Y[n, c] *= scale[c]  # BN.6, BN.4
        Y[n, c] += level[c]  # BN.4

    with maps.long_rows(L):
        threads.in_parallel(part, len(parts))
    return y, Cache(x, rho, running.mean, gamma, x.size // C, False, eps)


def sums(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dY as planes; dx, where D = X − μ is for now; and of each group Σ dY · D beside Σ dY, (groups, 2·C)."""
    x, rho, mean = cache.x, cache.rho, cache.mean
    floating(dy=dy, x=x)
    same_shape("dy", dy, x.shape, "the output y")
    b = layout.beside(x)
    dx = layout.output(x.shape, x.dtype, b)
    X, dY, D = layout.planes(x), layout.planes(layout.alike(dy, b)), layout.planes(dx)
    parts, mean = cut(X, b), maps.repeated(mean, X.shape[2])
    C = len(rho)
    rows = np.empty((parts[-1].g + 1, 2 * C), dtype=x.dtype)

    def part(index: int) -> None:
        g, n, c, _ = parts[index]
        np.subtract(X[n, c], mean[c], out=D[n, c])
        rows[g, :C][c] = maps.pixel_dot(dY[n, c], D[n, c]).sum(axis=0, dtype=np.float64)
        rows[g, C:][c] = maps.pixel_sum(dY[n, c]).sum(axis=0, dtype=np.float64)

    with maps.long_rows(X.shape[2]):
        threads.in_parallel(part, len(parts))
    return dY, dx, rows


def gradients(rows: Array, rho: Array) -> Params:
    """(dgamma, dbeta), from the sums of all groups."""
    along, dbeta = rows.sum(axis=0).reshape(2, -1)
    return Params(along * rho, dbeta)  # BN.4


def train_backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dgamma, dbeta), as the textbook does, and with its errors."""
    x, rho, gamma, numbers = cache.x, cache.rho, cache.gamma, cache.numbers
    dY, dx, rows = sums(dy, cache)  # BN.4
    D = layout.planes(dx)
    L, parts = D.shape[2], cut(D, layout.beside(x))
    whole = gradients(shares.of_all(rows), rho)
    constants = -rho * whole.gamma / numbers, whole.beta / numbers, gamma * rho
    slope, level, scale = (maps.repeated(v, L) for v in constants)

    def part(index: int) -> None:
        _, n, c, _ = parts[index]
        dX = D[n, c]
        dX *= slope[c]  # BN.2: a step along x̂ has no effect
        dX -= level[c]  # BN.1: nor has a step that moves every x alike
        dX += dY[n, c]  # BN.4
        dX *= scale[c]  # BN.3

    with maps.long_rows(L):
        threads.in_parallel(part, len(parts))
    return dx, gradients(rows, rho)


def eval_backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dgamma, dbeta), as the textbook does, and with its errors."""
    dY, dx, rows = sums(dy, cache)  # BN.4
    # BN.6 was x̂ = (x − m) ρ with m and, by BN.5, ρ constant: there is the direct path only
    np.multiply(dY, (cache.gamma * cache.rho)[:, None], out=layout.planes(dx))  # BN.6, BN.5
    return dx, gradients(rows, cache.rho)


def forward(x: Array, params: Params, running: Running | None = None, eps: float = 1e-5) -> tuple[Array, Cache]:
    """Normalise by the running statistics where they are given, else by those of this batch."""
    return train_forward(x, params, eps) if running is None else eval_forward(x, params, running, eps)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dgamma, dbeta), for the one of the two forwards that the cache is from."""
    return train_backward(dy, cache) if cache.of_batch else eval_backward(dy, cache)


def updated(running: Running, cache: Cache, momentum: float = 0.1) -> Running:
    """The running statistics moved towards those of the batch, as `npattn.ops.batch_norm.updated` does."""
    momentum = real_number("momentum", momentum, 0, 1)
    n = cache.numbers
    var = (1 / (cache.rho * cache.rho) - cache.eps) * (n / (n - 1))
    return Running(
        (1 - momentum) * running.mean + momentum * cache.mean,
        (1 - momentum) * running.var + momentum * var,
    )
