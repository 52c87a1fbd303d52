"""Concurrent spatial and channel squeeze and excitation (scSE): SE's gate beside one for each pixel, and their sum.

    x (N, C, H, W)   R = C // reduction   w1 (R, C)   b1 (R)   w2 (C, R)   b2 (C)   w_s (C)   b_s (1)

    SCSE.1   s = mean over the pixels of x            (N, C)
    SCSE.2   z = s w1ᵀ + b1                           (N, R)
    SCSE.3   h = relu(z)                              (N, R)
    SCSE.4   a_c = h w2ᵀ + b2                         (N, C)
    SCSE.5   g_c = sigmoid(a_c)                       (N, C)         what matters
    SCSE.6   a_s = Σ_c w_s x + b_s                    (N, 1, H, W)   a 1×1 convolution to one channel
    SCSE.7   g_s = sigmoid(a_s)                       (N, 1, H, W)   where it matters
    SCSE.8   y = x · g_c + x · g_s                    (N, C, H, W)

Both gates are made from x itself, side by side, where CBAM makes the second from what the first has left. x is used
three times, in SCSE.1, SCSE.6 and SCSE.8.
Roy, Navab and Wachinger, Concurrent Spatial and Channel Squeeze & Excitation, MICCAI 2018, section 3.
Derivation: docs/blocks/scse.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Weight
from npattn.checks import floating, hidden_width, same_shape, shaped, shaped_params, whole_number
from npattn.layer import Options
from npattn.ops import global_avg_pool, linear, relu, sigmoid


class Params(NamedTuple):
    w1: Array  # (R, C)
    b1: Array  # (R)
    w2: Array  # (C, R)
    b2: Array  # (C)
    w_s: Array  # (C)
    b_s: Array  # (1)


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    g_c: Array  # (N, C)
    g_s: Array  # (N, 1, H, W)
    w_s: Array  # (C)
    squeeze: global_avg_pool.Cache
    fc1: linear.Cache
    hidden: relu.Cache
    fc2: linear.Cache
    channel: sigmoid.Cache
    spatial: sigmoid.Cache


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """Scale every channel of x by its gate, and every pixel by its own, and add the two.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w1 (R, C), b1 (R), w2 (C, R), b2 and w_s (C), b_s (1).

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
    w1, b1, w2, b2, w_s, b_s = params
    xp = floating(x=x, **params._asdict())
    sizes = shaped_params(params, w1="R C", w2="C R", b1="R", b2="C", w_s="C", b_s="1")
    shaped("x", x, "N C H W", **sizes)

    s, squeeze = global_avg_pool.forward(x)  # SCSE.1
    z, fc1 = linear.forward(s, linear.Params(w1, b1))  # SCSE.2
    h, hidden = relu.forward(z)  # SCSE.3
    a_c, fc2 = linear.forward(h, linear.Params(w2, b2))  # SCSE.4
    g_c, channel = sigmoid.forward(a_c)  # SCSE.5
    a_s = xp.sum(x * w_s[:, None, None], axis=1, keepdims=True) + b_s  # SCSE.6
    g_s, spatial = sigmoid.forward(a_s)  # SCSE.7
    y = x * g_c[:, :, None, None] + x * g_s  # SCSE.8
    return y, Cache(x, g_c, g_s, w_s, squeeze, fc1, hidden, fc2, channel, spatial)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dw1, db1, dw2, db2, dw_s, db_s).

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dw1, db1, dw2, db2, dw_s and db_s.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x, g_c, g_s, w_s, squeeze, fc1, hidden, fc2, channel, spatial = cache
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, tuple(x.shape), "the output y")

    # SCSE.8 was y = x · g_c + x · g_s: x receives dy times both, and each gate the sum over what it was broadcast along
    dx_direct = dy * (g_c[:, :, None, None] + g_s)  # SCSE.8
    dg_c = xp.sum(dy * x, axis=(2, 3))  # SCSE.8
    dg_s = xp.sum(dy * x, axis=1, keepdims=True)  # SCSE.8

    # SCSE.7 was g_s = sigmoid(a_s)
    da_s = sigmoid.backward(dg_s, spatial)  # SCSE.7

    # SCSE.6 was a_s = Σ_c w_s x + b_s, with the same w_s and b_s at every pixel of every image
    dx_spatial = da_s * w_s[:, None, None]  # SCSE.6
    dw_s = xp.sum(da_s * x, axis=(0, 2, 3))  # SCSE.6
    db_s = xp.sum(da_s, axis=(0, 2, 3))  # SCSE.6

    # SCSE.5 was g_c = sigmoid(a_c)
    da_c = sigmoid.backward(dg_c, channel)  # SCSE.5

    # SCSE.4 was a_c = h w2ᵀ + b2
    dh, (dw2, db2) = linear.backward(da_c, fc2)  # SCSE.4

    # SCSE.3 let through what was positive
    dz = relu.backward(dh, hidden)  # SCSE.3

    # SCSE.2 was z = s w1ᵀ + b1
    ds, (dw1, db1) = linear.backward(dz, fc1)  # SCSE.2

    # SCSE.1 was a mean: every pixel has the same share in it
    dx_channel = global_avg_pool.backward(ds, squeeze)  # SCSE.1

    # x went three ways, so its gradient comes back from three
    dx = dx_direct + dx_spatial + dx_channel
    return dx, Params(dw1, db1, dw2, db2, dw_s, db_s)


class ScSE(Block):
    """Concurrent spatial and channel squeeze and excitation as a layer: x (N, C, H, W) to the same shape.

    Parameters
    ----------
    channel
        C, at least 1.
    reduction
        r: the hidden width is C // r, so 1 ≤ r ≤ C. 2 in the paper.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        "fc1.weight" (R, C, 1, 1), "fc1.bias" (R,), "fc2.weight" (C, R, 1, 1), "fc2.bias" (C,), "conv.weight" (1, C, 1,
        1), "conv.bias" (1,), R the hidden width.
    attention
        "channel" (N, C, 1, 1) and "spatial" (N, 1, H, W).

    Raises
    ------
    TypeError, ValueError
        If a number is no whole number of at least 1, or reduction > channel.
    """

    input_axes = "N C H W"
    state = (
        Weight("fc1.weight", "w1", "R C", stored="R C 1 1"),
        Weight("fc1.bias", "b1", "R", fan_in="C"),
        Weight("fc2.weight", "w2", "C R", stored="C R 1 1"),
        Weight("fc2.bias", "b2", "C", fan_in="R"),
        Weight("conv.weight", "w_s", "C", stored="1 C 1 1"),
        Weight("conv.bias", "b_s", "1", fan_in="C"),
    )
    gates = {"channel": ("g_c", "N C 1 1"), "spatial": ("g_s", "N 1 H W")}
    arguments = {"channel": "C", "reduction": "r"}
    card = Card(
        "scse",
        "concurrent spatial and channel squeeze and excitation (scSE)",
        asks="what and where, side by side?",
        gives="x · g_c + x · g_s",
        source="Roy et al., MICCAI 2018, section 3",
        page="blocks/scse",
        what="SE beside a gate for each pixel (scSE)",
        size=(1, 2, 2, 2),
        seed=57,
    )

    def __init__(self, channel: int, reduction: int = 2, **options: Unpack[Options]) -> None:
        C = whole_number("channel", channel)
        super().__init__({"C": C, "R": hidden_width("channel", C, "reduction", reduction)}, **options)
