"""Spatial group-wise enhance (SGE): in each group of channels, a pixel matters as far as it is like the group's mean.

    x (N, C, H, W)   G groups of D = C / G channels   P = H·W pixels   gamma, beta (G)   ε > 0

    SGE.1   s = mean over the pixels of x                       (N, G, D)      what the group is about
    SGE.2   c = Σ_channels of the group x · s                   (N, G, H, W)   how much of it a pixel has
    SGE.3   m = c − mean over the pixels of c                   (N, G, H, W)
    SGE.4   σ = √(Σ_pixels m² / (P − 1))                        (N, G)         0 for a single pixel
    SGE.5   t = m / (σ + ε)                                     (N, G, H, W)
    SGE.6   a = gamma · t + beta                                (N, G, H, W)
    SGE.7   g = sigmoid(a)                                      (N, G, H, W)   a gate for each pixel of a group
    SGE.8   y = x · g                                           (N, C, H, W)

x is used three times, in SGE.1, SGE.2 and SGE.8. Where all pixels of a group are alike σ is 0, and takes no gradient.
Li, Hu and Yang, Spatial Group-wise Enhance, 2019, equations 1 to 5. Derivation: docs/blocks/sge.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Further, Weight
from npattn.checks import floating, multiple_of, real_number, same_shape, shaped, whole_number
from npattn.layer import Options
from npattn.ops import sigmoid
from npattn.ops.pooling import some_pixels

SMALLEST = 1e-30  # ε is a divisor where all pixels of a group are alike


class Params(NamedTuple):
    gamma: Array  # (G)
    beta: Array  # (G)


class Cache(NamedTuple):
    x: Array  # (N, G, D, H, W), as all that follows
    s: Array  # (N, G, D, 1, 1)
    sigma: Array  # (N, G, 1, 1, 1)
    t: Array  # (N, G, 1, H, W)
    g: Array  # (N, G, 1, H, W)
    gamma: Array  # (G, 1, 1, 1)
    gate: sigmoid.Cache
    eps: float


def forward(x: Array, params: Params, eps: float = 1e-5) -> tuple[Array, Cache]:
    """Scale every pixel of a group of channels by a gate that says how much it is like the group's mean.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        gamma and beta (G), G a divisor of C.
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
    xp = floating(x=x, gamma=gamma, beta=beta)
    eps = real_number("eps", eps, least=SMALLEST)
    (G,) = shaped("gamma", gamma, "G")
    shaped("beta", beta, "G", G=G)
    N, C, H, W = some_pixels(x)
    multiple_of("x (its channels)", C, "gamma (its length)", G)
    x = xp.reshape(x, (N, G, C // G, H, W))
    gamma, beta = gamma[:, None, None, None], beta[:, None, None, None]
    others = max(H * W - 1, 1)

    s = xp.mean(x, axis=(3, 4), keepdims=True)  # SGE.1
    c = xp.sum(x * s, axis=2, keepdims=True)  # SGE.2
    m = c - xp.mean(c, axis=(3, 4), keepdims=True)  # SGE.3
    sigma = xp.sqrt(xp.sum(m * m, axis=(3, 4), keepdims=True) / others)  # SGE.4
    t = m / (sigma + eps)  # SGE.5
    a = gamma * t + beta  # SGE.6
    g, gate = sigmoid.forward(a)  # SGE.7
    y = xp.reshape(x * g, (N, C, H, W))  # SGE.8
    return y, Cache(x, s, sigma, t, g, gamma, gate, eps)


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
        dgamma and dbeta.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x, s, sigma, t, g, gamma, gate, eps = cache
    xp = floating(dy=dy, x=x)
    N, G, D, H, W = x.shape
    same_shape("dy", dy, (N, G * D, H, W), "the output y")
    dy = xp.reshape(dy, (N, G, D, H, W))
    others = max(H * W - 1, 1)

    # SGE.8 was y = x · g: each factor receives dy times the other, and g, one for the channels of a group, their sum
    dx_direct = dy * g  # SGE.8
    dg = xp.sum(dy * x, axis=2, keepdims=True)  # SGE.8

    # SGE.7 was g = sigmoid(a)
    da = sigmoid.backward(dg, gate)  # SGE.7

    # SGE.6 was a = gamma · t + beta, both for all pixels of all images
    dt = da * gamma  # SGE.6
    dgamma = xp.sum(da * t, axis=(0, 2, 3, 4))  # SGE.6
    dbeta = xp.sum(da, axis=(0, 2, 3, 4))  # SGE.6

    # SGE.5 was t = m / (σ + ε): a quotient, and one σ was for all pixels
    dm_above = dt / (sigma + eps)  # SGE.5
    dsigma = -xp.sum(dt * t, axis=(3, 4), keepdims=True) / (sigma + eps)  # SGE.5

    # SGE.4 was a root of a sum of squares, with the slope m / (σ (P − 1)), and m = t (σ + ε). At σ = 0 it is taken as 0
    flat = sigma == 0
    unit = t * (sigma + eps) / xp.where(flat, xp.ones_like(sigma), sigma)
    dm_below = dsigma * unit / others  # SGE.4

    # SGE.3 was m = c − mean: what all pixels receive alike moves the mean as well, and has no effect
    dm = dm_above + dm_below
    dc = dm - xp.mean(dm, axis=(3, 4), keepdims=True)  # SGE.3

    # SGE.2 was a product of x and s, added over the channels of a group; one s was for all pixels
    dx_like = dc * s  # SGE.2
    ds = xp.sum(dc * x, axis=(3, 4), keepdims=True)  # SGE.2

    # SGE.1 was a mean: every pixel has the same share in it
    dx_mean = ds / (H * W)  # SGE.1

    # x went three ways, so its gradient comes back from three; the plus broadcasts the mean's shares over the pixels
    dx = dx_direct + dx_like + dx_mean
    return xp.reshape(dx, (N, G * D, H, W)), Params(dgamma, dbeta)


class SpatialGroupEnhance(Block):
    """Spatial group-wise enhance as a layer: x (N, C, H, W), C a multiple of the groups, to the same shape.

    Parameters
    ----------
    groups
        G, at least 1: the C / G channels of a group share a gate for each pixel.
    eps
        ε, above 0, beside the standard deviation.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        "weight" and "bias" (1, G, 1, 1), 0 and 1 at first: every gate is then the same, sigmoid(1).
    attention
        "groups" (N, G, H, W).

    Raises
    ------
    TypeError, ValueError
        If a number is outside its range; in forward, if the channels do not fall into so many groups.
    """

    input_axes = "N C H W"
    state = (
        Weight("weight", "gamma", "G", stored="1 G 1 1", start=0),
        Weight("bias", "beta", "G", stored="1 G 1 1", start=1),
    )
    gates = {"groups": ("g", "N G H W")}
    arguments = {"groups": "G"}
    card = Card(
        "sge",
        "spatial group-wise enhance (SGE)",
        asks="where is what a group of channels is about?",
        gives="x · g",
        source="Li et al., 2019, equations 1 to 5",
        page="blocks/sge",
        what="spatial group-wise enhance (SGE)",
        size=(1, 6, 1, 3),
        seed=18,
        further=(Further({"groups": 2}, 2),),
    )

    def __init__(self, groups: int = 64, *, eps: float = 1e-5, **options: Unpack[Options]) -> None:
        G = whole_number("groups", groups)
        super().__init__({"G": G}, settings={"eps": real_number("eps", eps, least=SMALLEST)}, **options)
