"""Squeeze-and-excitation: every channel is scaled by a gate that the whole image decides.

    x (N, C, H, W)   R = C // reduction   w1 (R, C)   w2 (C, R)

    SE.1   s = mean over the pixels of x    (N, C)         squeeze
    SE.2   z = s w1ᵀ                        (N, R)
    SE.3   h = relu(z)                      (N, R)
    SE.4   a = h w2ᵀ                        (N, C)
    SE.5   g = sigmoid(a)                   (N, C)         excitation: the gate
    SE.6   y = x · g                        (N, C, H, W)   scale

x is used twice, in SE.1 and in SE.6: its gradient is the sum of a direct path and one through the gate.
Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, equations 2 to 4. Derivation: docs/blocks/se.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Form, Weight
from npattn.checks import floating, hidden_width, same_shape, shaped, whole_number
from npattn.layer import Options
from npattn.ops import global_avg_pool, linear, relu, sigmoid


class Params(NamedTuple):
    w1: Array  # (R, C)
    w2: Array  # (C, R)


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    g: Array  # (N, C)
    squeeze: global_avg_pool.Cache
    fc1: linear.Cache
    hidden: relu.Cache
    fc2: linear.Cache
    gate: sigmoid.Cache


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """Scale every channel of x by its gate.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w1 (R, C) and w2 (C, R).

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
    w1, w2 = params
    floating(x=x, w1=w1, w2=w2)
    R, C = shaped("w1", w1, "R C")
    shaped("w2", w2, "C R", C=C, R=R)
    shaped("x", x, "N C H W", C=C)

    s, squeeze = global_avg_pool.forward(x)  # SE.1
    z, fc1 = linear.forward(s, linear.Params(w1))  # SE.2
    h, hidden = relu.forward(z)  # SE.3
    a, fc2 = linear.forward(h, linear.Params(w2))  # SE.4
    g, gate = sigmoid.forward(a)  # SE.5
    y = x * g[:, :, None, None]  # SE.6
    return y, Cache(x, g, squeeze, fc1, hidden, fc2, gate)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dw1, dw2).

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dw1 and dw2.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x, g, squeeze, fc1, hidden, fc2, gate = cache
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, x.shape, "the output y")

    # SE.6 was y = x · g: each factor receives dy times the other, and g, broadcast over the pixels, their sum
    dx_direct = dy * g[:, :, None, None]  # SE.6
    dg = xp.sum(dy * x, axis=(2, 3))  # SE.6

    # SE.5 was g = sigmoid(a)
    da = sigmoid.backward(dg, gate)  # SE.5

    # SE.4 was a = h w2ᵀ
    dh, (dw2, _) = linear.backward(da, fc2)  # SE.4

    # SE.3 let through what was positive
    dz = relu.backward(dh, hidden)  # SE.3

    # SE.2 was z = s w1ᵀ
    ds, (dw1, _) = linear.backward(dz, fc1)  # SE.2

    # SE.1 was a mean: every pixel has the same share in it
    dx_gate = global_avg_pool.backward(ds, squeeze)  # SE.1

    # x went two ways, so its gradient comes back from both
    dx = dx_direct + dx_gate
    return dx, Params(dw1, dw2)


class SELayer(Block):
    """Squeeze-and-excitation as a layer: x (N, C, H, W) to x times its channel gate, the same shape.

    Parameters
    ----------
    channel
        C, at least 1.
    reduction
        r: the hidden width is C // r, so 1 ≤ r ≤ C.
    dtype, rng, xp, fused
        As in `npattn.Layer`.

    Attributes
    ----------
    params
        "fc.0.weight" (C//r, C) and "fc.2.weight" (C, C//r).
    attention
        "channel" (N, C, 1, 1).

    Raises
    ------
    TypeError, ValueError
        If a number is no whole number of at least 1, or reduction > channel.

    See Also
    --------
    npattn.variants.SELayer : With biases and other options.
    """

    input_axes = "N C H W"
    state = (
        Weight("fc.0.weight", "w1", "R C"),
        Weight("fc.2.weight", "w2", "C R"),
    )
    gates = {"channel": ("g", "N C 1 1")}
    arguments = {"channel": "C", "reduction": "r"}
    card = Card(
        "se",
        "squeeze-and-excitation",
        asks="what matters?",
        gives="x · g",
        source="Hu et al., CVPR 2018, equations 2 to 4",
        page="blocks/se",
        seed=4,
        forms=(
            Form("se-r2", "squeeze-and-excitation, r = 2", {}, "ratio and kernel", {"r": 2}),
            Form("se-r4", "squeeze-and-excitation, r = 4", {}, "ratio and kernel", {"r": 4}),
            Form("se-r16", "squeeze-and-excitation, r = 16", {}, "ratio and kernel", {"r": 16}),
        ),
    )

    def __init__(self, channel: int, reduction: int = 16, **options: Unpack[Options]) -> None:
        C = whole_number("channel", channel)
        super().__init__({"C": C, "R": hidden_width("channel", C, "reduction", reduction)}, **options)
