"""Gated channel transformation (GCT): channels compete, or help each other, by their lengths.

    x (N, C, H, W)   alpha, gamma, beta (C)   ε > 0

    GCT.1   q = √(Σ_pixels x² + ε)                   (N, C)        a channel's length
    GCT.2   e = alpha · q                            (N, C)        the embedding
    GCT.3   l = √((1/C) Σ_channels e² + ε)           (N, 1)        the length of all of them
    GCT.4   ê = e / l                                (N, C)
    GCT.5   a = gamma · ê + beta                     (N, C)
    GCT.6   g = 1 + tanh(a) = 2 sigmoid(2 a)         (N, C)        from 0 to 2; 1 where gamma and beta are 0
    GCT.7   y = x · g                                (N, C, H, W)

Three numbers a channel. x is used twice, in GCT.1 and in GCT.7, and e twice, in GCT.3 and in GCT.4.
Yang et al., Gated Channel Transformation for Visual Recognition, CVPR 2020: embedding, normalisation, gating.
Derivation: docs/blocks/gated-channel.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Weight
from npattn.checks import floating, real_number, same_shape, shaped_params, whole_number
from npattn.layer import Options
from npattn.ops import sigmoid
from npattn.ops.pooling import some_pixels

SMALLEST = 1e-30  # ε is under a root, of numbers that may be 0


class Params(NamedTuple):
    alpha: Array  # (C)
    gamma: Array  # (C)
    beta: Array  # (C)


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    q: Array  # (N, C)
    l: Array  # (N, 1)  # noqa: E741, the letter of the formula
    e_hat: Array  # (N, C)
    g: Array  # (N, C)
    params: Params
    gate: sigmoid.Cache


def forward(x: Array, params: Params, eps: float = 1e-5) -> tuple[Array, Cache]:
    """Scale every channel of x by a gate that its length decides, beside those of the others.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        alpha, gamma and beta (C).
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
    alpha, gamma, beta = params
    xp = floating(x=x, alpha=alpha, gamma=gamma, beta=beta)
    eps = real_number("eps", eps, least=SMALLEST)
    sizes = shaped_params(params, alpha="C", gamma="C", beta="C")
    some_pixels(x, **sizes)

    q = xp.sqrt(xp.sum(x * x, axis=(2, 3)) + eps)  # GCT.1
    e = alpha * q  # GCT.2
    l = xp.sqrt(xp.mean(e * e, axis=1, keepdims=True) + eps)  # GCT.3  # noqa: E741
    e_hat = e / l  # GCT.4
    a = gamma * e_hat + beta  # GCT.5
    half, gate = sigmoid.forward(2 * a)  # GCT.6, in the form that keeps its digits where the gate is nearly shut
    g = 2 * half  # GCT.6
    y = x * g[:, :, None, None]  # GCT.7
    return y, Cache(x, q, l, e_hat, g, params, gate)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dalpha, dgamma, dbeta).

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dalpha, dgamma and dbeta.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x, q, l, e_hat, g, (alpha, gamma, _), gate = cache  # noqa: E741
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, tuple(x.shape), "the output y")
    C = x.shape[1]

    # GCT.7 was y = x · g: each factor receives dy times the other, and g, broadcast over the pixels, their sum
    dx_direct = dy * g[:, :, None, None]  # GCT.7
    dg = xp.sum(dy * x, axis=(2, 3))  # GCT.7

    # GCT.6 was g = 2 sigmoid(2 a): a 2 from outside, and one from inside
    da = 2 * sigmoid.backward(2 * dg, gate)  # GCT.6

    # GCT.5 was a = gamma · ê + beta, both for all images
    de_hat = da * gamma  # GCT.5
    dgamma = xp.sum(da * e_hat, axis=0)  # GCT.5
    dbeta = xp.sum(da, axis=0)  # GCT.5

    # GCT.4 was ê = e / l, one l for all channels
    de_above = de_hat / l  # GCT.4
    dl = -xp.sum(de_hat * e_hat, axis=1, keepdims=True) / l  # GCT.4

    # GCT.3 was a root of a mean of squares: its slope is e / (C l), and e / l is ê
    de_below = dl * e_hat / C  # GCT.3

    # GCT.2 was e = alpha · q, for all images
    de = de_above + de_below
    dq = de * alpha  # GCT.2
    dalpha = xp.sum(de * q, axis=0)  # GCT.2

    # GCT.1 was a length: its slope is x / q
    dx_gate = x * (dq / q)[:, :, None, None]  # GCT.1

    # x went two ways, so its gradient comes back from both
    dx = dx_direct + dx_gate
    return dx, Params(dalpha, dgamma, dbeta)


class GatedChannel(Block):
    """Gated channel transformation as a layer: x (N, C, H, W) to x times its channel gate, the same shape.

    Parameters
    ----------
    num_channels
        C, at least 1.
    epsilon
        ε, above 0, under both roots.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        "alpha", "gamma" and "beta" (1, C, 1, 1), 1, 0 and 0 at first: every gate is then 1.
    attention
        "channel" (N, C, 1, 1), between 0 and 2.

    Raises
    ------
    TypeError, ValueError
        If a number is outside its range.
    """

    input_axes = "N C H W"
    state = (
        Weight("alpha", "alpha", "C", stored="1 C 1 1", start=1),
        Weight("gamma", "gamma", "C", stored="1 C 1 1", start=0),
        Weight("beta", "beta", "C", stored="1 C 1 1", start=0),
    )
    gates = {"channel": ("g", "N C 1 1")}
    arguments = {"num_channels": "C"}
    card = Card(
        "gated-channel",
        "gated channel transformation (GCT)",
        asks="which channels win?",
        gives="x · g",
        source="Yang et al., CVPR 2020, embedding, normalisation and gating",
        page="blocks/gated-channel",
        what="gated channel transformation (GCT)",
        size=(1, 3, 1, 2),
        seed=17,
    )

    def __init__(self, num_channels: int, *, epsilon: float = 1e-5, **options: Unpack[Options]) -> None:
        C = whole_number("num_channels", num_channels)
        super().__init__({"C": C}, settings={"eps": real_number("epsilon", epsilon, least=SMALLEST)}, **options)
