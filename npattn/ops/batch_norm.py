"""Batch normalisation: every channel is shifted and scaled to mean 0 and variance 1, then to a learnt mean and spread.

    x (N, C, H, W)   gamma, beta (C)   n = N·H·W numbers a channel   ε > 0

    train                                                eval, with the running mean m and variance r
    BN.1   μ = (1/n) Σ x                       (C)       BN.5   ρ = 1 / √(r + ε)      (C)
    BN.2   ρ = 1 / √((1/n) Σ (x − μ)² + ε)     (C)       BN.6   x̂ = (x − m) · ρ       (N, C, H, W)
    BN.3   x̂ = (x − μ) · ρ           (N, C, H, W)
    BN.4   y = gamma · x̂ + beta      (N, C, H, W)       BN.4 is the same

In training x is used three times: in BN.3, and in μ and ρ, which every pixel of the batch has a hand in.
In eval m and r are constants, and the map is linear.
Ioffe & Szegedy, Batch Normalization, ICML 2015, algorithm 1. Derivation: docs/ops/batch_norm.md
"""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Statistic, Weight
from npattn.checks import floating, real_number, same_shape, shaped, whole_number
from npattn.layer import Options
from npattn.samples import Draw


class Params(NamedTuple):
    gamma: Array  # (C)
    beta: Array  # (C)


class Running(NamedTuple):
    mean: Array  # (C)
    var: Array  # (C)


class Cache(NamedTuple):
    x_hat: Array  # (N, C, H, W)
    rho: Array  # (C)
    mean: Array  # (C), of the batch in training, the running one in eval
    gamma: Array  # (C)
    of_batch: bool  # whether mean and rho are those of the batch
    eps: float


def over_pixels(c: Array) -> Array:
    """View one number a channel, (C), so that it broadcasts over (N, C, H, W)."""
    return c[None, :, None, None]


def train_forward(x: Array, params: Params, eps: float = 1e-5) -> tuple[Array, Cache]:
    """Normalise by the statistics of this batch.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        gamma and beta (C).
    eps
        Above 0.

    Returns
    -------
    y : (N, C, H, W)
    cache : Cache

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape that does not match, or for a single number a channel, whose variance says nothing.
    """
    gamma, beta = params
    xp = floating(x=x, gamma=gamma, beta=beta)
    eps = real_number("eps", eps, least=0)
    (C,) = shaped("gamma", gamma, "C")
    shaped("beta", beta, "C", C=C)
    N, C, H, W = shaped("x", x, "N C H W", C=C)
    if N * H * W < 2:
        raise ValueError(f"x: expected at least 2 numbers a channel to take a variance of, got shape {(N, C, H, W)}")

    mean = xp.mean(x, axis=(0, 2, 3))  # BN.1
    centred = x - over_pixels(mean)
    rho = 1 / xp.sqrt(xp.mean(centred * centred, axis=(0, 2, 3)) + eps)  # BN.2
    x_hat = centred * over_pixels(rho)  # BN.3
    y = over_pixels(gamma) * x_hat + over_pixels(beta)  # BN.4
    return y, Cache(x_hat, rho, mean, gamma, True, eps)


def train_backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dgamma, dbeta).

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dgamma and dbeta.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x_hat, rho, gamma = cache.x_hat, cache.rho, cache.gamma
    xp = floating(dy=dy, x_hat=x_hat)
    same_shape("dy", dy, x_hat.shape, "the output y")

    # BN.4 was y = gamma · x̂ + beta, both broadcast over images and pixels: their gradients are sums over them
    dbeta = xp.sum(dy, axis=(0, 2, 3))  # BN.4
    dgamma = xp.sum(dy * x_hat, axis=(0, 2, 3))  # BN.4
    dx_hat = dy * over_pixels(gamma)  # BN.4

    # BN.3 was x̂ = (x − μ) ρ. The direct path is dx̂ · ρ; the next two lines are what the others take from it
    # BN.2: a step of x along x̂ changes ρ so that x̂ stays as long as it was: that part of dx̂ has no effect
    along = x_hat * over_pixels(xp.mean(dx_hat * x_hat, axis=(0, 2, 3)))  # BN.2
    # BN.1: nor has a step that moves every x alike, since μ moves with it
    level = over_pixels(xp.mean(dx_hat, axis=(0, 2, 3)))  # BN.1
    dx = (dx_hat - along - level) * over_pixels(rho)  # BN.3
    return dx, Params(dgamma, dbeta)


def eval_forward(x: Array, params: Params, running: Running, eps: float = 1e-5) -> tuple[Array, Cache]:
    """Normalise by the running statistics, which are constants here.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        gamma and beta (C).
    running
        Mean and variance (C).
    eps
        Above 0.

    Returns
    -------
    y : (N, C, H, W)
    cache : Cache

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape that does not match.
    """
    gamma, beta = params
    xp = floating(x=x, gamma=gamma, beta=beta, mean=running.mean, var=running.var)
    eps = real_number("eps", eps, least=0)
    (C,) = shaped("gamma", gamma, "C")
    for name, value in (("beta", beta), ("mean", running.mean), ("var", running.var)):
        shaped(name, value, "C", C=C)
    shaped("x", x, "N C H W", C=C)

    rho = 1 / xp.sqrt(running.var + eps)  # BN.5
    x_hat = (x - over_pixels(running.mean)) * over_pixels(rho)  # BN.6
    y = over_pixels(gamma) * x_hat + over_pixels(beta)  # BN.4
    return y, Cache(x_hat, rho, running.mean, gamma, False, eps)


def eval_backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dgamma, dbeta).

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dgamma and dbeta.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x_hat, rho, gamma = cache.x_hat, cache.rho, cache.gamma
    xp = floating(dy=dy, x_hat=x_hat)
    same_shape("dy", dy, x_hat.shape, "the output y")

    # BN.4 as in training
    dbeta = xp.sum(dy, axis=(0, 2, 3))  # BN.4
    dgamma = xp.sum(dy * x_hat, axis=(0, 2, 3))  # BN.4
    dx_hat = dy * over_pixels(gamma)  # BN.4

    # BN.6 was x̂ = (x − m) ρ with m and, by BN.5, ρ constant: there is the direct path only
    dx = dx_hat * over_pixels(rho)  # BN.6, BN.5
    return dx, Params(dgamma, dbeta)


def forward(x: Array, params: Params, running: Running | None = None, eps: float = 1e-5) -> tuple[Array, Cache]:
    """Normalise by the running statistics where they are given, else by those of this batch.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        gamma and beta (C).
    running
        The statistics, mean and variance (C), or None.
    eps
        Above 0.

    Returns
    -------
    y : (N, C, H, W)
    cache : Cache

    Raises
    ------
    TypeError, ValueError
        As in `train_forward` and `eval_forward`.
    """
    return train_forward(x, params, eps) if running is None else eval_forward(x, params, running, eps)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dgamma, dbeta), for the one of the two forwards that the cache is from.

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dgamma and dbeta.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    return train_backward(dy, cache) if cache.of_batch else eval_backward(dy, cache)


def updated(running: Running, cache: Cache, momentum: float = 0.1) -> Running:
    """Return the running statistics moved towards those of the batch: new = (1 − momentum) · old + momentum · batch.

    As in PyTorch the variance counts n/(n−1) times here, the unbiased estimate, but not in BN.2.
    """
    momentum = real_number("momentum", momentum, 0, 1)
    N, _, H, W = cache.x_hat.shape
    n = N * H * W
    var = (1 / (cache.rho * cache.rho) - cache.eps) * (n / (n - 1))
    return Running(
        (1 - momentum) * running.mean + momentum * cache.mean,
        (1 - momentum) * running.var + momentum * var,
    )


def several_images(x: Array, running: Any) -> None:
    """Check that there are images to take a variance over, for a block that normalises one number of each.

    Raises ValueError if running is None and there is one, or none: their variance says nothing.
    """
    if running is None and x.shape[0] < 2:
        raise ValueError(f"x: expected at least 2 images to normalise over in training, got {x.shape[0]}")


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    x, params = draw.x() + 1, Params(draw.w("C"), draw.w("C"))
    running = Running(draw.x("C"), draw.positive("C"))
    return {"batch norm, train": (x, params), "batch norm, eval": (x, params, running)}


PAGE = {"N": 2, "C": 1, "H": 1, "W": 3}  # the sizes of the docs' worked example


def declared(name: str, field: str, axes: str, start: float = 1) -> tuple[Weight | Statistic, ...]:
    """What a block with a batch norm inside declares: `name` in the keys, `field` of Params and Running.

    start: the first value of gamma; with 0, what the norm ends is nothing at first.
    """
    return (
        Weight(f"{name}.weight", f"{field}.gamma", axes, start=start),
        Weight(f"{name}.bias", f"{field}.beta", axes, start=0),
        Statistic(f"{name}.running_mean", f"{field}.mean", axes, 0),
        Statistic(f"{name}.running_var", f"{field}.var", axes, 1),
    )


class BatchNorm2d(Block):
    """Batch normalisation as a layer, (N, C, H, W) to the same, with PyTorch's keys and initial values.

    In training mode (`train()`, the initial one) it uses the batch's statistics and moves the running ones, its
    `buffers`; in `eval()` mode it uses the running ones. `backward` works in both.

    Parameters
    ----------
    num_features
        C, at least 1.
    eps
        ε, at least 0.
    momentum
        The share of the batch in the running statistics, in [0, 1].
    dtype, rng, xp, fused
        As in `npattn.Layer`.

    Raises
    ------
    TypeError, ValueError
        If a number is outside its range.
    """

    input_axes = "N C H W"
    state = (
        Weight("weight", "gamma", "C", start=1),
        Weight("bias", "beta", "C", start=0),
        Statistic("running_mean", "mean", "C", 0),
        Statistic("running_var", "var", "C", 1),
    )
    arguments = {"num_features": "C"}

    def __init__(
        self, num_features: int, *, eps: float = 1e-5, momentum: float = 0.1, **options: Unpack[Options]
    ) -> None:
        C = whole_number("num_features", num_features)
        self.eps = real_number("eps", eps, least=0)
        momentum = real_number("momentum", momentum, least=0, most=1)
        super().__init__({"C": C}, settings={"eps": self.eps}, momentum=momentum, **options)
