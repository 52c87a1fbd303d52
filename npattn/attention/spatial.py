"""CBAM's spatial attention: where does it matter? A gate for every pixel, from its channels' mean and maximum.

    x (N, C, H, W)   w (1, 2, k, k), k odd

    SA.1   m_avg = mean over the channels of x       (N, 1, H, W)
    SA.2   m_max = maximum over the channels of x    (N, 1, H, W)
    SA.3   m = [m_avg, m_max]                        (N, 2, H, W)   in this order
    SA.4   a = w ∗ m                                 (N, 1, H, W)   a k×k convolution, zero padding k//2, no bias
    SA.5   g = sigmoid(a)                            (N, 1, H, W)   the gate

x is used twice: the gradients of the two uses add.
It returns the gate alone; CBAM multiplies. Woo et al., CBAM, ECCV 2018, equation 3. Derivation: docs/blocks/spatial.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Form, Weight
from npattn.checks import floating, odd, odd_kernel, same_shape
from npattn.layer import Options
from npattn.ops import channel_max, channel_mean, conv2d, sigmoid


class Params(NamedTuple):
    w: Array  # (1, 2, k, k)


class Cache(NamedTuple):
    mean: channel_mean.Cache
    max: channel_max.Cache
    conv: conv2d.Cache
    gate: sigmoid.Cache


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """The spatial gate of x.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w (1, 2, k, k) with k odd.

    Returns
    -------
    g : (N, 1, H, W)
        In [0, 1].
    cache : Cache

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape that does not match or an even k.
    """
    (w,) = params
    xp = floating(x=x, w=w)
    odd_kernel("w", w, "1 2 k k")

    m_avg, mean = channel_mean.forward(x)  # SA.1
    m_max, max_ = channel_max.forward(x)  # SA.2
    m = xp.concat([m_avg, m_max], axis=1)  # SA.3
    a, conv = conv2d.forward(m, conv2d.Params(w))  # SA.4
    g, gate = sigmoid.forward(a)  # SA.5
    return g, Cache(mean, max_, conv, gate)


def backward(dg: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradient (dw,).

    Parameters
    ----------
    dg : (N, 1, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dw.

    Raises
    ------
    TypeError, ValueError
        If dg does not match the gate.
    """
    floating(dg=dg)
    same_shape("dg", dg, cache.gate.y.shape, "the output gate")

    # SA.5 was g = sigmoid(a)
    da = sigmoid.backward(dg, cache.gate)  # SA.5

    # SA.4 was a = w ∗ m
    dm, (dw, _) = conv2d.backward(da, cache.conv)  # SA.4

    # SA.3 laid two maps on each other: each takes its own back
    dm_avg, dm_max = dm[:, 0:1, :, :], dm[:, 1:2, :, :]  # SA.3

    # SA.2 was a maximum: one channel receives everything. SA.1 was a mean: all receive the same share
    dx_max = channel_max.backward(dm_max, cache.max)  # SA.2
    dx_avg = channel_mean.backward(dm_avg, cache.mean)  # SA.1

    # x was pooled twice, so its gradient comes back from both
    dx = dx_max + dx_avg
    return dx, Params(dw)


class SpatialAttention(Block):
    """CBAM's spatial attention as a layer: x (N, C, H, W), any C, to its gate (N, 1, H, W).

    Parameters
    ----------
    kernel_size
        k, odd: 7 in the paper, 3 as its alternative; any other odd size works as well.
    dtype, rng, xp, fused
        As in `npattn.Layer`.

    Attributes
    ----------
    params
        "conv1.weight" (1, 2, k, k).
    attention
        "spatial" (N, 1, H, W).

    Raises
    ------
    TypeError, ValueError
        If kernel_size is no odd whole number.

    See Also
    --------
    npattn.variants.SpatialAttention : With a bias, a norm and other options.
    """

    input_axes = "N C H W"
    state = (Weight("conv1.weight", "w", "1 2 k k"),)
    gates = {"spatial": ("gate.y", "N 1 H W")}
    arguments = {"kernel_size": "k"}
    card = Card(
        "spatial",
        "CBAM's spatial attention",
        asks="where does it matter?",
        gives="g (N, 1, H, W)",
        source="Woo et al., ECCV 2018, equation 3",
        page="blocks/spatial",
        size=(1, 2, 3, 3),
        seed=56,
        gate=True,
        forms=(Form("spatial-k3", "CBAM's spatial attention, k = 3", {}, "ratio and kernel", {"k": 3}),),
    )

    def __init__(self, kernel_size: int = 7, **options: Unpack[Options]) -> None:
        super().__init__({"k": odd("kernel_size", kernel_size)}, **options)
