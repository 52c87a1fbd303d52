"""Pool-and-concatenate channel attention: the average and the maximum of every channel, side by side, into one MLP.

    x (N, C, H, W)   R = C // ratio   w1 (R, 2C)   w2 (C, R)

    CAT.1   s_avg = mean over the pixels of x       (N, C)
    CAT.2   s_max = maximum over the pixels of x    (N, C)
    CAT.3   s = [s_avg, s_max]                      (N, 2C)   in this order
    CAT.4   a = mlp(s)                              (N, C)    FC w1, ReLU, FC w2, once
    CAT.5   g = sigmoid(a)                          (N, C)    the gate, returned as (N, C, 1, 1)

x is used twice: the gradients of the two uses add. The weights are used once, which is the difference to CBAM's
channel attention: there one MLP reads both descriptors, one after the other; here each has columns of w1 of its own.
It returns the gate alone; `Gated` multiplies. Derivation: docs/blocks/concat.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.attention import channel
from npattn.backend import Array
from npattn.block import Block, Card, Weight
from npattn.checks import floating, hidden_width, same_shape, shaped, whole_number
from npattn.layer import Options
from npattn.ops import global_avg_pool, global_max_pool, sigmoid


class Params(NamedTuple):
    w1: Array  # (R, 2C)
    w2: Array  # (C, R)


class Cache(NamedTuple):
    avg_pool: global_avg_pool.Cache
    max_pool: global_max_pool.Cache
    mlp: channel.MlpCache
    gate: sigmoid.Cache


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """The channel gate of x.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w1 (R, 2C) and w2 (C, R).

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
    xp = floating(x=x, w1=w1, w2=w2)
    C, R = shaped("w2", w2, "C R")
    shaped("w1", w1, "R 2C", R=R, C=C)
    shaped("x", x, "N C H W", C=C)

    s_avg, avg_pool = global_avg_pool.forward(x)  # CAT.1
    s_max, max_pool = global_max_pool.forward(x)  # CAT.2
    s = xp.concat([s_avg, s_max], axis=1)  # CAT.3
    a, mlp = channel.mlp_forward(s, channel.Params(w1, w2))  # CAT.4
    g, gate = sigmoid.forward(a)  # CAT.5
    return g[:, :, None, None], Cache(avg_pool, max_pool, mlp, gate)


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

    # CAT.5 was g = sigmoid(a)
    da = sigmoid.backward(dg[:, :, 0, 0], cache.gate)  # CAT.5

    # CAT.4 was two FC with a ReLU between
    ds, (dw1, dw2) = channel.mlp_backward(da, cache.mlp)  # CAT.4

    # CAT.3 laid two descriptors side by side: each takes its own half back
    ds_avg, ds_max = ds[:, :C], ds[:, C:]  # CAT.3

    # CAT.2 was a maximum: one pixel receives everything. CAT.1 was a mean: all receive the same share
    dx_max = global_max_pool.backward(ds_max, cache.max_pool)  # CAT.2
    dx_avg = global_avg_pool.backward(ds_avg, cache.avg_pool)  # CAT.1

    # x was pooled twice, so its gradient comes back from both
    dx = dx_max + dx_avg
    return dx, Params(dw1, dw2)


class ConcatAttention(Block):
    """Pool-and-concatenate channel attention as a layer: x (N, C, H, W) to its gate (N, C, 1, 1).

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
        "fc1.weight" (C//r, 2C, 1, 1) and "fc2.weight" (C, C//r, 1, 1).
    attention
        "channel" (N, C, 1, 1).

    Raises
    ------
    TypeError, ValueError
        If a number is no whole number of at least 1, or ratio > in_planes.
    """

    input_axes = "N C H W"
    state = (
        Weight("fc1.weight", "w1", "R 2C", stored="R 2C 1 1"),
        Weight("fc2.weight", "w2", "C R", stored="C R 1 1"),
    )
    gates = {"channel": ("gate.y", "N C 1 1")}
    arguments = {"in_planes": "C", "ratio": "r"}
    card = Card(
        "concat",
        "pool-and-concatenate channel attention",
        asks="what matters?",
        gives="g (N, C, 1, 1)",
        source="the article's last part",
        page="blocks/concat",
        seed=4,
        gate=True,
    )

    def __init__(self, in_planes: int, ratio: int = 16, **options: Unpack[Options]) -> None:
        C = whole_number("in_planes", in_planes)
        super().__init__({"C": C, "R": hidden_width("in_planes", C, "ratio", ratio)}, **options)
