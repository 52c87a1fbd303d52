"""CBAM's channel attention: what matters? A gate for every channel, from its average and its maximum.

    x (N, C, H, W)   R = C // ratio   w1 (R, C)   w2 (C, R)

    CA.1   s_avg = mean over the pixels of x       (N, C)
    CA.2   s_max = maximum over the pixels of x    (N, C)
    CA.3   a_avg = mlp(s_avg)                      (N, C)
    CA.4   a_max = mlp(s_max)                      (N, C)   the same weights as in CA.3
    CA.5   a = a_avg + a_max                       (N, C)
    CA.6   g = sigmoid(a)                          (N, C)   the gate, returned as (N, C, 1, 1)

    the shared MLP, for a descriptor s (N, C)
    MLP.1  z = s w1ᵀ                               (N, R)
    MLP.2  h = relu(z)                             (N, R)
    MLP.3  a = h w2ᵀ                               (N, C)

x is used twice, and so are w1 and w2: the gradients of the two uses add.
It returns the gate alone; CBAM multiplies. Woo et al., CBAM, ECCV 2018, equation 2. Derivation: docs/blocks/channel.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Weight
from npattn.checks import floating, hidden_width, same_shape, shaped, whole_number
from npattn.layer import Options
from npattn.ops import global_avg_pool, global_max_pool, linear, relu, sigmoid


class Params(NamedTuple):
    w1: Array  # (R, C)
    w2: Array  # (C, R)


class MlpCache(NamedTuple):
    fc1: linear.Cache
    hidden: relu.Cache
    fc2: linear.Cache


class Cache(NamedTuple):
    avg_pool: global_avg_pool.Cache
    max_pool: global_max_pool.Cache
    avg_mlp: MlpCache
    max_mlp: MlpCache
    gate: sigmoid.Cache


def mlp_forward(s: Array, params: Params) -> tuple[Array, MlpCache]:
    """Two FC with a ReLU between: s (N, C) to a (N, C)."""
    z, fc1 = linear.forward(s, linear.Params(params.w1))  # MLP.1
    h, hidden = relu.forward(z)  # MLP.2
    a, fc2 = linear.forward(h, linear.Params(params.w2))  # MLP.3
    return a, MlpCache(fc1, hidden, fc2)


def mlp_backward(da: Array, cache: MlpCache) -> tuple[Array, Params]:
    """Return ds (N, C) and the gradients (dw1, dw2) of this one use of the weights."""
    # MLP.3 was a = h w2ᵀ
    dh, (dw2, _) = linear.backward(da, cache.fc2)  # MLP.3
    # MLP.2 let through what was positive
    dz = relu.backward(dh, cache.hidden)  # MLP.2
    # MLP.1 was z = s w1ᵀ
    ds, (dw1, _) = linear.backward(dz, cache.fc1)  # MLP.1
    return ds, Params(dw1, dw2)


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """The channel gate of x.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w1 (R, C) and w2 (C, R).

    Returns
    -------
    g : (N, C, 1, 1)
        In [0, 1].
    cache : Cache

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape that does not match.
    """
    w1, w2 = params
    floating(x=x, w1=w1, w2=w2)
    R, C = shaped("w1", w1, "R C")
    shaped("w2", w2, "C R", C=C, R=R)
    shaped("x", x, "N C H W", C=C)

    s_avg, avg_pool = global_avg_pool.forward(x)  # CA.1
    s_max, max_pool = global_max_pool.forward(x)  # CA.2
    a_avg, avg_mlp = mlp_forward(s_avg, params)  # CA.3
    a_max, max_mlp = mlp_forward(s_max, params)  # CA.4
    a = a_avg + a_max  # CA.5
    g, gate = sigmoid.forward(a)  # CA.6
    return g[:, :, None, None], Cache(avg_pool, max_pool, avg_mlp, max_mlp, gate)


def backward(dg: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dw1, dw2).

    Parameters
    ----------
    dg : (N, C, 1, 1)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dw1 and dw2.

    Raises
    ------
    TypeError, ValueError
        If dg does not match the gate.
    """
    floating(dg=dg)
    N, C, _, _ = cache.avg_pool.shape
    same_shape("dg", dg, (N, C, 1, 1), "the output gate")

    # CA.6 was g = sigmoid(a)
    da = sigmoid.backward(dg[:, :, 0, 0], cache.gate)  # CA.6

    # CA.5 was a sum: each term receives all of da
    da_avg = da_max = da  # CA.5

    # CA.4 and CA.3 used the same w1 and w2: a gradient from each use
    ds_max, from_max = mlp_backward(da_max, cache.max_mlp)  # CA.4
    ds_avg, from_avg = mlp_backward(da_avg, cache.avg_mlp)  # CA.3
    dw1 = from_max.w1 + from_avg.w1
    dw2 = from_max.w2 + from_avg.w2

    # CA.2 was a maximum: one pixel receives everything. CA.1 was a mean: all receive the same share
    dx_max = global_max_pool.backward(ds_max, cache.max_pool)  # CA.2
    dx_avg = global_avg_pool.backward(ds_avg, cache.avg_pool)  # CA.1

    # x was pooled twice, so its gradient comes back from both
    dx = dx_max + dx_avg
    return dx, Params(dw1, dw2)


class ChannelAttention(Block):
    """CBAM's channel attention as a layer: x (N, C, H, W) to its gate (N, C, 1, 1).

    Parameters
    ----------
    in_planes
        C, at least 1.
    ratio
        r: the hidden width is C // r, so 1 ≤ r ≤ C.
    dtype, rng, xp, fused
        As in `npattn.Layer`.

    Attributes
    ----------
    params
        "fc1.weight" (C//r, C, 1, 1) and "fc2.weight" (C, C//r, 1, 1).
    attention
        "channel" (N, C, 1, 1).

    Raises
    ------
    TypeError, ValueError
        If a number is no whole number of at least 1, or ratio > in_planes.

    See Also
    --------
    npattn.variants.ChannelAttention : With biases and other options.
    """

    input_axes = "N C H W"
    state = (
        Weight("fc1.weight", "w1", "R C", stored="R C 1 1"),  # a 1×1 kernel is an FC's matrix
        Weight("fc2.weight", "w2", "C R", stored="C R 1 1"),
    )
    gates = {"channel": ("gate.y", "N C 1 1")}
    arguments = {"in_planes": "C", "ratio": "r"}
    card = Card(
        "channel",
        "CBAM's channel attention",
        asks="what matters?",
        gives="g (N, C, 1, 1)",
        source="Woo et al., ECCV 2018, equation 2",
        page="blocks/channel",
        seed=4,
        gate=True,
    )

    def __init__(self, in_planes: int, ratio: int = 16, **options: Unpack[Options]) -> None:
        C = whole_number("in_planes", in_planes)
        super().__init__({"C": C, "R": hidden_width("in_planes", C, "ratio", ratio)}, **options)
