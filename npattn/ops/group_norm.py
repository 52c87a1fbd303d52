"""Group normalisation: the channels of an image fall into groups, and each group is a row of a layer norm.

    x (N, C, H, W)   G groups of C / G channels   gamma, beta (C)   ε > 0

    GN.1   x̂ = layer norm of x, all numbers of a group of an image being a row     (N, C, H, W)
    GN.2   y = gamma · x̂ + beta                                                    (N, C, H, W)

A group has one mean and one variance, but each channel its own gamma and beta. No image knows of another.
Wu and He, Group Normalization, ECCV 2018, equations 1, 2, 6 and 7. Derivation: docs/ops/layer_norm.md
"""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Weight
from npattn.checks import floating, multiple_of, real_number, same_shape, shaped, whole_number
from npattn.layer import Options
from npattn.ops import layer_norm
from npattn.samples import Draw


class Params(NamedTuple):
    gamma: Array  # (C)
    beta: Array  # (C)


class Cache(NamedTuple):
    x_hat: Array  # (N, C, H, W)
    gamma: Array  # (C)
    norm: layer_norm.Cache


def forward(x: Array, params: Params, groups: int = 1, eps: float = 1e-5) -> tuple[Array, Cache]:
    """Normalise every group of channels of every image.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        gamma and beta (C).
    groups
        A divisor of C.
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
        For a shape that does not match, or if there is nothing to take a mean of.
    """
    gamma, beta = params
    xp = floating(x=x, gamma=gamma, beta=beta)
    (C,) = shaped("gamma", gamma, "C")
    shaped("beta", beta, "C", C=C)
    N, C, H, W = shaped("x", x, "N C H W", C=C)
    if 0 in (C, H, W):
        raise ValueError(f"x: expected C, H and W of at least 1 to take a mean of, got {(N, C, H, W)}")
    multiple_of("x (its channels)", C, "groups", whole_number("groups", groups))

    rows, norm = layer_norm.forward(xp.reshape(x, (N, groups, C // groups * H * W)), eps=eps)  # GN.1
    x_hat = xp.reshape(rows, (N, C, H, W))
    y = gamma[:, None, None] * x_hat + beta[:, None, None]  # GN.2
    return y, Cache(x_hat, gamma, norm)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dgamma, dbeta).

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dgamma and dbeta (C).

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x_hat, gamma, norm = cache
    xp = floating(dy=dy, x_hat=x_hat)
    same_shape("dy", dy, tuple(x_hat.shape), "the output y")

    # GN.2 was y = gamma · x̂ + beta, both broadcast over images and pixels: their gradients are sums over them
    dbeta = xp.sum(dy, axis=(0, 2, 3))  # GN.2
    dgamma = xp.sum(dy * x_hat, axis=(0, 2, 3))  # GN.2
    dx_hat = dy * gamma[:, None, None]  # GN.2

    # GN.1 was a layer norm of rows, which were x in another shape
    drows, _ = layer_norm.backward(xp.reshape(dx_hat, tuple(norm.x_hat.shape)), norm)  # GN.1
    dx = xp.reshape(drows, tuple(x_hat.shape))
    return dx, Params(dgamma, dbeta)


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"group norm": (draw.x("N 2C H W"), Params(draw.w("2C"), draw.w("2C")))}


SETTINGS = {"group norm": {"groups": 2}}
"""What else `forward` is given there."""


PAGE = {"N": 1, "C": 2, "H": 1, "W": 2}  # the sizes of the docs' worked example: two groups of two channels


class GroupNorm(Block):
    """Group normalisation as a layer, (N, C, H, W) to the same, with PyTorch's keys and initial values.

    Parameters
    ----------
    num_groups
        G, at least 1, a divisor of C.
    num_channels
        C, at least 1.
    eps
        ε, above 0.
    dtype, rng, xp, fused
        As in `npattn.Layer`.

    Raises
    ------
    TypeError, ValueError
        If a number is outside its range, or the channels do not fall into so many groups.
    """

    input_axes = "N C H W"
    state = (Weight("weight", "gamma", "C", start=1), Weight("bias", "beta", "C", start=0))
    arguments = {"num_groups": "G", "num_channels": "C"}

    def __init__(self, num_groups: int, num_channels: int, *, eps: float = 1e-5, **options: Unpack[Options]) -> None:
        G, C = whole_number("num_groups", num_groups), whole_number("num_channels", num_channels)
        multiple_of("num_channels", C, "num_groups", G)
        settings = {"groups": G, "eps": real_number("eps", eps, least=layer_norm.SMALLEST)}
        super().__init__({"C": C}, settings=settings, **options)
