"""Layer normalisation: every row, the numbers of the last axis, is shifted and scaled to mean 0 and variance 1.

    x (..., K)   gamma, beta (K), or nothing   ε > 0      "..." are any leading axes: a row for each of their entries

    LN.1   m = x − (1/K) Σ_k x                    (..., K)   less the mean of its row
    LN.2   ρ = 1 / √((1/K) Σ_k m² + ε)            (..., 1)
    LN.3   x̂ = m · ρ                              (..., K)
    LN.4   y = gamma · x̂ + beta                   (..., K)   x̂ itself, where nothing is learnt

No row knows of another, so training and evaluation are the same. m is used twice, in LN.2 and in LN.3.
Ba, Kiros and Hinton, Layer Normalization, 2016, equations 3 and 4. Derivation: docs/ops/layer_norm.md
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Unpack

from npattn.backend import Array, copied
from npattn.block import Block, Weight
from npattn.checks import floating, real_number, same_shape, shaped, whole_number
from npattn.layer import Options
from npattn.samples import Draw


class Params(NamedTuple):
    gamma: Array  # (K)
    beta: Array  # (K)


class Cache(NamedTuple):
    x_hat: Array  # (..., K)
    rho: Array  # (..., 1)
    gamma: Array | None  # (K)


SMALLEST = 1e-30  # ε is a divisor where all numbers of a row are equal


def forward(x: Array, params: Params | None = None, eps: float = 1e-5) -> tuple[Array, Cache]:
    """Normalise the last axis of x.

    Parameters
    ----------
    x : (..., K)
    params
        gamma and beta (K), or None for x̂ itself.
    eps
        Above 0.

    Returns
    -------
    y : (..., K)
    cache : Cache

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape that does not match.
    """
    xp = floating(x=x)
    eps = real_number("eps", eps, least=SMALLEST)
    K = shaped("x", x, "... K")[-1]
    if K == 0:
        raise ValueError("x: expected a last axis of at least 1 to take a mean of, got 0")

    m = x - xp.mean(x, axis=-1, keepdims=True)  # LN.1
    rho = 1 / xp.sqrt(xp.mean(m * m, axis=-1, keepdims=True) + eps)  # LN.2
    x_hat = m * rho  # LN.3
    if params is None:
        return copied(x_hat), Cache(x_hat, rho, None)
    gamma, beta = params
    floating(x=x, gamma=gamma, beta=beta)
    for name, value in (("gamma", gamma), ("beta", beta)):
        shaped(name, value, "K", K=K)
    y = gamma * x_hat + beta  # LN.4
    return y, Cache(x_hat, rho, gamma)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params | None]:
    """Return dx and the gradients (dgamma, dbeta), or None where there were no parameters.

    Parameters
    ----------
    dy : (..., K)
    cache : Cache

    Returns
    -------
    dx : (..., K)
    grads : Params
        dgamma and dbeta, or None where there were no parameters.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x_hat, rho, gamma = cache
    xp = floating(dy=dy, x_hat=x_hat)
    same_shape("dy", dy, tuple(x_hat.shape), "the output y")
    K = x_hat.shape[-1]

    # LN.4 was y = gamma · x̂ + beta, both for all rows: their gradients are sums over them
    dx_hat, grads = dy, None
    if gamma is not None:
        rows = (math.prod(x_hat.shape[:-1]), K)
        dbeta = xp.sum(xp.reshape(dy, rows), axis=0)  # LN.4
        dgamma = xp.sum(xp.reshape(dy * x_hat, rows), axis=0)  # LN.4
        dx_hat = dy * gamma  # LN.4
        grads = Params(dgamma, dbeta)

    # LN.3 was x̂ = m ρ, one ρ for the row, and m is x̂ / ρ
    dm_above = dx_hat * rho  # LN.3
    drho = xp.sum(dx_hat * x_hat, axis=-1, keepdims=True) / rho  # LN.3

    # LN.2 was a root below a line: its slope in m is −ρ³ m / K, and ρ m is x̂. m was used twice: the two meet here
    dm = dm_above - drho * rho * rho * x_hat / K  # LN.2

    # LN.1 was m = x − mean: what all of a row receive alike moves the mean as well, and has no effect
    dx = dm - xp.mean(dm, axis=-1, keepdims=True)  # LN.1
    return dx, grads


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"layer norm": (draw.x("... K"), Params(draw.w("K"), draw.w("K")))}


PAGE = {"...": 2, "K": 3}  # the sizes of the docs' worked example


class LayerNorm(Block):
    """Layer normalisation of the last axis as a layer, with PyTorch's keys and initial values.

    Parameters
    ----------
    normalized_shape
        K, at least 1: the length of the last axis.
    eps
        ε, above 0.
    dtype, rng, xp, fused
        As in `npattn.Layer`.

    Raises
    ------
    TypeError, ValueError
        If a number is outside its range.
    """

    state = (Weight("weight", "gamma", "K", start=1), Weight("bias", "beta", "K", start=0))
    arguments = {"normalized_shape": "W"}

    def __init__(self, normalized_shape: int, *, eps: float = 1e-5, **options: Unpack[Options]) -> None:
        K = whole_number("normalized_shape", normalized_shape)
        super().__init__({"K": K}, settings={"eps": real_number("eps", eps, least=SMALLEST)}, **options)
