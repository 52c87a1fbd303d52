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

from collections.abc import Sequence
from typing import Any, NamedTuple, Unpack

from npattn.attention.options import SE_ARTICLE, ChannelOptions, channel_plan
from npattn.backend import Array
from npattn.checks import floating, same_shape, shaped
from npattn.layer import Layer, Options
from npattn.ops import linear
from npattn.ops.activation import (
    ReluCache,
    SigmoidCache,
    relu_backward,
    relu_forward,
    sigmoid_backward,
    sigmoid_forward,
)
from npattn.ops.pooling import MeanCache, global_avg_pool_backward, global_avg_pool_forward


class Params(NamedTuple):
    w1: Array  # (R, C)
    w2: Array  # (C, R)


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    g: Array  # (N, C)
    squeeze: MeanCache
    fc1: linear.Cache
    relu: ReluCache
    fc2: linear.Cache
    sigmoid: SigmoidCache


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """Scale every channel of x by its gate.

    Parameters: x (N, C, H, W); params, w1 (R, C) and w2 (C, R). Returns: y (N, C, H, W) and the cache.
    Raises TypeError for a dtype or library that does not match, ValueError for a shape that does not.
    """
    w1, w2 = params
    floating(x=x, w1=w1, w2=w2)
    R, C = shaped("w1", w1, "R C")
    shaped("w2", w2, "C R", C=C, R=R)
    shaped("x", x, "N C H W", C=C)

    s, squeeze = global_avg_pool_forward(x)  # SE.1
    z, fc1 = linear.forward(s, linear.Params(w1))  # SE.2
    h, relu = relu_forward(z)  # SE.3
    a, fc2 = linear.forward(h, linear.Params(w2))  # SE.4
    g, sigmoid = sigmoid_forward(a)  # SE.5
    y = x * g[:, :, None, None]  # SE.6
    return y, Cache(x, g, squeeze, fc1, relu, fc2, sigmoid)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dw1, dw2). Raises TypeError or ValueError if dy (N, C, H, W) does not match y."""
    x, g, squeeze, fc1, relu, fc2, sigmoid = cache
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, x.shape, "the output y")

    # SE.6 was y = x · g: each factor receives dy times the other, and g, broadcast over the pixels, their sum
    dx_direct = dy * g[:, :, None, None]  # SE.6
    dg = xp.sum(dy * x, axis=(2, 3))  # SE.6

    # SE.5 was g = sigmoid(a)
    da = sigmoid_backward(dg, sigmoid)  # SE.5

    # SE.4 was a = h w2ᵀ
    dh, (dw2, _) = linear.backward(da, fc2)  # SE.4

    # SE.3 let through what was positive
    dz = relu_backward(dh, relu)  # SE.3

    # SE.2 was z = s w1ᵀ
    ds, (dw1, _) = linear.backward(dz, fc1)  # SE.2

    # SE.1 was a mean: every pixel has the same share in it
    dx_gate = global_avg_pool_backward(ds, squeeze)  # SE.1

    # x went two ways, so its gradient comes back from both
    dx = dx_direct + dx_gate
    return dx, Params(dw1, dw2)


class SELayer(Layer):
    """Squeeze-and-excitation as a layer: x (N, C, H, W) to x times its channel gate, the same shape.

    Parameters
    ----------
    channel
        C, at least 1.
    reduction
        r: the hidden width is C // r, so 1 ≤ r ≤ C.
    hidden, bias, pools, mix, layers, gate, max_tie
        Departures from the article, as in `npattn.ChannelAttention`; `pools` is ("avg",) here.
    dtype, rng, xp, fused
        As in `npattn.Layer`.

    `params`: "fc.0.weight" (C//r, C) and "fc.2.weight" (C, C//r), with biases "fc.0.bias" and "fc.2.bias".
    `attention`: "channel" (N, C, 1, 1).

    Raises
    ------
    TypeError, ValueError
        If a number is no whole number of at least 1, reduction > channel, or an option is not among those named.
    """

    input_axes = "N C H W"
    room = "attention.se"

    def __init__(
        self,
        channel: int,
        reduction: int = 16,
        *,
        hidden: int | None = None,
        bias: bool = False,
        pools: Sequence[str] = ("avg",),
        mix: str = "after",
        layers: int = 2,
        gate: str = "sigmoid",
        max_tie: str = "first",
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**options)
        asked = ChannelOptions(
            hidden=hidden, bias=bias, pools=pools, mix=mix, layers=layers, gate=gate, max_tie=max_tie
        )
        plan = channel_plan(self.rng, ("channel", channel), ("reduction", reduction), asked, SE_ARTICLE)
        C = self.channels = channel
        self.form = plan.form
        self.signature = f"{C}, reduction={reduction}{plan.shown}"
        for name, w in plan.weights.items():
            self.params[name.replace("1.", "fc.0.").replace("2.", "fc.2.")] = self.own(w)
        if not plan.article:
            self.room = "variants.se"

    def run(self, x: Array) -> tuple[Array, Any]:
        y, cache = self.pair.forward(x, Params(self.params["fc.0.weight"], self.params["fc.2.weight"]))
        self._gates = {"channel": cache.g[:, :, None, None]}
        return y, cache

    def undo(self, dy: Array, cache: Any) -> tuple[Array, dict[str, Array]]:
        dx, grads = self.pair.backward(dy, cache)
        return dx, {"fc.0.weight": grads.w1, "fc.2.weight": grads.w2}
