"""Gaussian context transformer (GCT): a channel is let through as far as its mean is like those of the others.

    x (N, C, H, W)   c > 0   ε > 0

    GAUSS.1   s = mean over the pixels of x              (N, C)
    GAUSS.2   ŝ = layer norm of s over the channels      (N, C)      mean 0, variance 1; nothing learnt
    GAUSS.3   g = exp(−ŝ² / (2 c²))                      (N, C)      1 at the mean, less on both sides of it
    GAUSS.4   y = x · g                                  (N, C, H, W)

Nothing is learnt. x is used twice, in GAUSS.1 and in GAUSS.4.
Ruan et al., Gaussian Context Transformer, CVPR 2021, the form GCT-B0. Derivation: docs/blocks/gaussian-context.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card
from npattn.checks import floating, real_number, same_shape
from npattn.layer import Options
from npattn.ops import global_avg_pool, layer_norm

SMALLEST = 1e-15  # c² is a divisor


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    s_hat: Array  # (N, C)
    g: Array  # (N, C)
    squeeze: global_avg_pool.Cache
    norm: layer_norm.Cache
    c: float


def forward(x: Array, c: float = 2, eps: float = 1e-5) -> tuple[Array, Cache]:
    """Scale every channel of x by a gate that falls as its mean leaves that of all channels.

    Parameters
    ----------
    x : (N, C, H, W)
    c
        How wide the Gaussian is, above 0.
    eps
        Above 0.

    Returns
    -------
    y : (N, C, H, W)
    cache : Cache

    Raises
    ------
    TypeError
        If x is no float array.
    ValueError
        If it has another shape, or no pixel.
    """
    xp = floating(x=x)
    c = real_number("c", c, least=SMALLEST)

    s, squeeze = global_avg_pool.forward(x)  # GAUSS.1
    s_hat, norm = layer_norm.forward(s, eps=eps)  # GAUSS.2
    g = xp.exp(-s_hat * s_hat / (2 * c * c))  # GAUSS.3
    y = x * g[:, :, None, None]  # GAUSS.4
    return y, Cache(x, s_hat, g, squeeze, norm, c)


def backward(dy: Array, cache: Cache) -> Array:
    """Return dx.

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x, s_hat, g, squeeze, norm, c = cache
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, tuple(x.shape), "the output y")

    # GAUSS.4 was y = x · g: each factor receives dy times the other, and g, broadcast over the pixels, their sum
    dx_direct = dy * g[:, :, None, None]  # GAUSS.4
    dg = xp.sum(dy * x, axis=(2, 3))  # GAUSS.4

    # GAUSS.3 was an exponential, which is its own slope, of −ŝ² / (2 c²)
    ds_hat = -dg * g * s_hat / (c * c)  # GAUSS.3

    # GAUSS.2 was a layer norm
    ds, _ = layer_norm.backward(ds_hat, norm)  # GAUSS.2

    # GAUSS.1 was a mean: every pixel has the same share in it
    dx_gate = global_avg_pool.backward(ds, squeeze)  # GAUSS.1

    # x went two ways, so its gradient comes back from both
    dx = dx_direct + dx_gate
    return dx


class GaussianContext(Block):
    """The Gaussian context transformer as a layer: x (N, C, H, W), any C, to x times its channel gate, the same shape.

    It has no parameters.

    Parameters
    ----------
    c
        How wide the Gaussian is, in standard deviations, above 0.
    eps
        ε of the norm, above 0.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    attention
        "channel" (N, C, 1, 1).

    Raises
    ------
    TypeError, ValueError
        If a number is outside its range.
    """

    input_axes = "N C H W"
    gates = {"channel": ("g", "N C 1 1")}
    card = Card(
        "gaussian-context",
        "Gaussian context transformer (GCT)",
        asks="which channels are as usual?",
        gives="x · g",
        source="Ruan et al., CVPR 2021, the form GCT-B0",
        page="blocks/gaussian-context",
        what="Gaussian context transformer (GCT)",
        size=(1, 3, 1, 2),
        seed=15,
    )

    def __init__(self, c: float = 2, *, eps: float = 1e-5, **options: Unpack[Options]) -> None:
        settings = {"c": real_number("c", c, least=SMALLEST), "eps": real_number("eps", eps, layer_norm.SMALLEST)}
        super().__init__(settings=settings, **options)
