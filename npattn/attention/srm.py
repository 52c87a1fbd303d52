"""Style recalibration (SRM): a gate is decided by its channel's mean and spread, and by nothing of other channels.

    x (N, C, H, W)   P = H·W pixels   w (C, 2)   norm: gamma, beta (C)   ε ≥ 0

    SRM.1   μ = mean over the pixels of x                        (N, C)   the style of a channel:
    SRM.2   d = x − μ                                            (N, C, H, W)
    SRM.3   σ = √(Σ_pixels d² / (P − 1) + ε)                     (N, C)   its mean, and its spread
    SRM.4   z = w_0 μ + w_1 σ                                    (N, C)   two numbers a channel
    SRM.5   u = batch norm of z, over the images                 (N, C)
    SRM.6   g = sigmoid(u)                                       (N, C)
    SRM.7   y = x · g                                            (N, C, H, W)

x is used three times, in SRM.1, SRM.2 and SRM.7. In training the images of a batch meet in the norm.
Lee, Kim and Nam, SRM, ICCV 2019, equations 1 to 5. Derivation: docs/blocks/srm.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Weight
from npattn.checks import floating, real_number, same_shape, shaped_params, whole_number
from npattn.layer import Options
from npattn.ops import batch_norm, sigmoid
from npattn.ops.pooling import some_pixels


class Params(NamedTuple):
    w: Array  # (C, 2)
    norm: batch_norm.Params  # gamma, beta (C)


class Running(NamedTuple):
    norm: batch_norm.Running  # mean, var (C)


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    mu: Array  # (N, C)
    d: Array  # (N, C, H, W)
    sigma: Array  # (N, C)
    g: Array  # (N, C)
    w: Array  # (C, 2)
    norm: batch_norm.Cache
    gate: sigmoid.Cache


def forward(x: Array, params: Params, running: Running | None = None, eps: float = 1e-5) -> tuple[Array, Cache]:
    """Scale every channel of x by a gate that its mean and its spread decide.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w (C, 2), and norm with gamma and beta (C).
    running
        The statistics to normalise by, mean and variance (C), or None for those of the batch.
    eps
        At least 0, beside the variance of a channel.

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
    w, of_norm = params
    xp = floating(x=x, w=w, **of_norm._asdict())
    eps = real_number("eps", eps, least=0)
    sizes = shaped_params(params, w="C 2")
    shaped_params(of_norm, sizes, gamma="C", beta="C")
    _, _, H, W = some_pixels(x, **sizes)
    batch_norm.several_images(x, running)
    others = max(H * W - 1, 1)

    mu = xp.mean(x, axis=(2, 3))  # SRM.1
    d = x - mu[:, :, None, None]  # SRM.2
    sigma = xp.sqrt(xp.sum(d * d, axis=(2, 3)) / others + eps)  # SRM.3
    z = w[:, 0] * mu + w[:, 1] * sigma  # SRM.4
    of_batch = None if running is None else running.norm
    normed, norm = batch_norm.forward(z[:, :, None, None], of_norm, of_batch)  # SRM.5
    g, gate = sigmoid.forward(normed[:, :, 0, 0])  # SRM.6
    y = x * g[:, :, None, None]  # SRM.7
    return y, Cache(x, mu, d, sigma, g, w, norm, gate)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dw, dnorm).

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dw and dnorm.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x, mu, d, sigma, g, w, norm, gate = cache
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, tuple(x.shape), "the output y")
    P = x.shape[2] * x.shape[3]

    # SRM.7 was y = x · g: each factor receives dy times the other, and g, broadcast over the pixels, their sum
    dx_direct = dy * g[:, :, None, None]  # SRM.7
    dg = xp.sum(dy * x, axis=(2, 3))  # SRM.7

    # SRM.6 was g = sigmoid(u)
    du = sigmoid.backward(dg, gate)  # SRM.6

    # SRM.5 was a normalisation, by statistics that all images had a hand in, or by constants
    dnormed, dnorm = batch_norm.backward(du[:, :, None, None], norm)  # SRM.5

    # SRM.4 was z = w_0 μ + w_1 σ, with the same w for all images
    dz = dnormed[:, :, 0, 0]
    dmu = dz * w[:, 0]  # SRM.4
    dsigma = dz * w[:, 1]  # SRM.4
    dw = xp.stack([xp.sum(dz * mu, axis=0), xp.sum(dz * sigma, axis=0)], axis=1)  # SRM.4

    # SRM.3 was a root of a sum of squares, with the slope d / (σ (P − 1)). Where σ is 0 it is taken as 0
    flat = sigma == 0
    slope = dsigma / (xp.where(flat, xp.ones_like(sigma), sigma) * max(P - 1, 1))
    dd = d * slope[:, :, None, None]  # SRM.3

    # SRM.2 was d = x − μ. What comes back to μ from here is −Σ dd, and that is 0, as Σ d is
    dx_spread = dd  # SRM.2

    # SRM.1 was a mean: every pixel has the same share in it
    dx_mean = dmu[:, :, None, None] / P  # SRM.1

    # x went three ways, so its gradient comes back from three; the plus broadcasts the mean's shares over the pixels
    dx = dx_direct + dx_spread + dx_mean
    return dx, Params(dw, dnorm)


def updated(running: Running, cache: Cache, momentum: float = 0.1) -> Running:
    """The running statistics moved towards those of the batch, as `npattn.ops.batch_norm.updated` does."""
    return Running(batch_norm.updated(running.norm, cache.norm, momentum))


class StyleRecalibration(Block):
    """Style recalibration as a layer: x (N, C, H, W) to x times its channel gate, the same shape.

    In training a batch needs two images or more.

    Parameters
    ----------
    channel
        C, at least 1.
    eps
        ε, at least 0, beside the variance of a channel: 1e-5 with the authors. The norm has one of its own.
    momentum
        The share of a batch in the running statistics, in [0, 1].
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        "cfc.weight" (C, 1, 2), "bn.weight" and "bn.bias" (C,).
    buffers
        "bn.running_mean" and "bn.running_var" (C,); `num_batches_tracked` counts their moves.
    attention
        "channel" (N, C, 1, 1).

    Raises
    ------
    TypeError, ValueError
        If a number is outside its range.
    """

    input_axes = "N C H W"
    state = (
        Weight("cfc.weight", "w", "C 2", stored="C 1 2"),
        *batch_norm.declared("bn", "norm", "C"),
    )
    gates = {"channel": ("g", "N C 1 1")}
    arguments = {"channel": "C"}
    card = Card(
        "srm",
        "style recalibration (SRM)",
        asks="what matters, by its style?",
        gives="x · g",
        source="Lee et al., ICCV 2019, equations 1 to 5",
        page="blocks/srm",
        what="style recalibration (SRM)",
        size=(3, 2, 1, 3),
        seed=27,
    )

    def __init__(self, channel: int, *, eps: float = 1e-5, momentum: float = 0.1, **options: Unpack[Options]) -> None:
        C = whole_number("channel", channel)
        settings = {"eps": real_number("eps", eps, least=0)}
        super().__init__({"C": C}, settings=settings, momentum=momentum, **options)
