"""Three structures that look like squeeze-and-excitation and are not: each leaves out one thing that SE needs.

    x (N, C, H, W)   s, a, g (N, C) unless a shape says otherwise

    without FC: the squeeze is the scale. Nothing is learnt
    NOFC.1   s = mean over the pixels of x     (N, C)
    NOFC.2   y = x · s                         (N, C, H, W)

    by convolution: no squeeze. The gate of a pixel knows its neighbours and nothing else        w (C, C, k, k), k odd
    CG.1     a = w ∗ x                         (N, C, H, W)   zero padding k//2, no bias
    CG.2     g = sigmoid(a)                    (N, C, H, W)   a gate for every pixel of every channel
    CG.3     y = x · g                         (N, C, H, W)

    in parallel: the gate looks at what goes into a transformation F and scales what comes out of it
    x (N, B, H, W)   u = F(x) (N, C, H', W')   w1 (R, B)   w2 (C, R)
    PAR.1    u = F(x)                          (N, C, H', W')
    PAR.2    s = mean over the pixels of x     (N, B)         of x, not of u
    PAR.3    a = mlp(s)                        (N, C)         FC w1, ReLU, FC w2: CBAM's MLP
    PAR.4    g = sigmoid(a)                    (N, C)
    PAR.5    y = u · g                         (N, C, H', W')

In each of them x is used twice, so in each there is a `+`; in the third it is the layer's, since F is a layer.
Derivation: docs/blocks/wrong.md
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import NamedTuple, Unpack

from npattn.attention import channel, gate
from npattn.backend import Array
from npattn.checks import floating, hidden_width, odd, same_shape, shaped, whole_number
from npattn.layer import Layer, Options, uniform
from npattn.nested import Joined, Nested
from npattn.ops import conv2d
from npattn.ops.activation import SigmoidCache, sigmoid_backward, sigmoid_forward
from npattn.ops.pooling import MeanCache, global_avg_pool_backward, global_avg_pool_forward

# Without FC


class SqueezeCache(NamedTuple):
    x: Array  # (N, C, H, W)
    s: Array  # (N, C)
    squeeze: MeanCache


def squeeze_forward(x: Array) -> tuple[Array, SqueezeCache]:
    """Scale every channel of x by its own mean.

    Parameters: x (N, C, H, W). Returns: y (N, C, H, W) and the cache.
    Raises TypeError or ValueError if x is no float array of 4 axes with at least one pixel.
    """
    s, squeeze = global_avg_pool_forward(x)  # NOFC.1
    y = x * s[:, :, None, None]  # NOFC.2
    return y, SqueezeCache(x, s, squeeze)


def squeeze_backward(dy: Array, cache: SqueezeCache) -> Array:
    """Return dx; there is nothing else. Raises TypeError or ValueError if dy (N, C, H, W) does not match y."""
    x, s, squeeze = cache
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, x.shape, "the output y")

    # NOFC.2 was y = x · s: each factor receives dy times the other, and s, broadcast over the pixels, their sum
    dx_direct = dy * s[:, :, None, None]  # NOFC.2
    ds = xp.sum(dy * x, axis=(2, 3))  # NOFC.2

    # NOFC.1 was a mean. No weight stands between the two: the way ends at x, in the same channel
    dx_gate = global_avg_pool_backward(ds, squeeze)  # NOFC.1
    dx = dx_direct + dx_gate
    return dx


class SqueezeScale(Layer):
    """SE without its FC as a layer: x (N, C, H, W), any C, times the mean of each channel, the same shape.

    It has no parameters, and its factor is no gate: it is not kept between 0 and 1, and it is 0 where a channel is.

    Parameters
    ----------
    dtype, rng, xp, fused
        As in `npattn.Layer`.

    `attention`: "channel" (N, C, 1, 1), the means.
    """

    input_axes = "N C H W"

    def run(self, x: Array) -> tuple[Array, SqueezeCache]:
        y, cache = squeeze_forward(x)
        self._gates = {"channel": cache.s[:, :, None, None]}
        return y, cache

    def undo(self, dy: Array, cache: SqueezeCache) -> tuple[Array, dict[str, Array]]:
        return squeeze_backward(dy, cache), {}


# By convolution


class ConvParams(NamedTuple):
    w: Array  # (C, C, k, k)


class ConvCache(NamedTuple):
    x: Array  # (N, C, H, W)
    g: Array  # (N, C, H, W)
    conv: conv2d.Cache
    sigmoid: SigmoidCache


def conv_forward(x: Array, params: ConvParams) -> tuple[Array, ConvCache]:
    """Scale every pixel of every channel by a gate that a convolution makes from its neighbourhood.

    Parameters: x (N, C, H, W); params, w (C, C, k, k) with k odd. Returns: y (N, C, H, W) and the cache.
    Raises TypeError for a dtype or library that does not match, ValueError for a shape that does not or an even k.
    """
    (w,) = params
    floating(x=x, w=w)
    _, C, _, _ = shaped("x", x, "N C H W")
    shaped("w", w, "M C k k", M=C, C=C)

    a, conv = conv2d.forward(x, conv2d.Params(w))  # CG.1
    g, sigmoid = sigmoid_forward(a)  # CG.2
    y = x * g  # CG.3
    return y, ConvCache(x, g, conv, sigmoid)


def conv_backward(dy: Array, cache: ConvCache) -> tuple[Array, ConvParams]:
    """Return dx and the gradient (dw,). Raises TypeError or ValueError if dy (N, C, H, W) does not match y."""
    x, g, conv, sigmoid = cache
    floating(dy=dy, x=x)
    same_shape("dy", dy, x.shape, "the output y")

    # CG.3 was y = x · g: each factor receives dy times the other. Nothing was broadcast, so nothing is summed
    dx_direct = dy * g  # CG.3
    dg = dy * x  # CG.3

    # CG.2 was g = sigmoid(a)
    da = sigmoid_backward(dg, sigmoid)  # CG.2

    # CG.1 was a = w ∗ x, the second way on which x reached y: it leads back to the neighbours only
    dx_gate, (dw, _) = conv2d.backward(da, conv)  # CG.1
    dx = dx_direct + dx_gate
    return dx, ConvParams(dw)


class ConvGate(Layer):
    """SE with a convolution for squeeze and FC, as a layer: x (N, C, H, W) times a gate of its own shape.

    Parameters
    ----------
    channel
        C, at least 1.
    kernel_size
        k, odd.
    dtype, rng, xp, fused
        As in `npattn.Layer`.

    `params`: "conv.weight" (C, C, k, k). `attention`: "pixel" (N, C, H, W).

    Raises
    ------
    TypeError, ValueError
        If channel is no whole number of at least 1, or kernel_size is even.
    """

    input_axes = "N C H W"

    def __init__(self, channel: int, kernel_size: int = 3, **options: Unpack[Options]) -> None:
        super().__init__(**options)
        C = self.channels = whole_number("channel", channel)
        k = odd("kernel_size", kernel_size)
        self.signature = f"{C}, kernel_size={k}"
        self.params["conv.weight"] = self.own(uniform(self.rng, (C, C, k, k), fan_in=C * k * k))

    def run(self, x: Array) -> tuple[Array, ConvCache]:
        y, cache = conv_forward(x, ConvParams(self.params["conv.weight"]))
        self._gates = {"pixel": cache.g}
        return y, cache

    def undo(self, dy: Array, cache: ConvCache) -> tuple[Array, dict[str, Array]]:
        dx, grads = conv_backward(dy, cache)
        return dx, {"conv.weight": grads.w}


# In parallel


class GateCache(NamedTuple):
    squeeze: MeanCache
    mlp: channel.MlpCache
    sigmoid: SigmoidCache


def gate_forward(x: Array, params: channel.Params) -> tuple[Array, GateCache]:
    """The gate of SE alone, for as many channels as w2 has rows.

    Parameters: x (N, B, H, W); params, w1 (R, B) and w2 (C, R).
    Returns: g (N, C, 1, 1), in [0, 1], and the cache.
    Raises TypeError for a dtype or library that does not match, ValueError for a shape that does not.
    """
    w1, w2 = params
    floating(x=x, w1=w1, w2=w2)
    R, B = shaped("w1", w1, "R B")
    shaped("w2", w2, "C R", R=R)
    shaped("x", x, "N B H W", B=B)

    s, squeeze = global_avg_pool_forward(x)  # PAR.2
    a, mlp = channel.mlp_forward(s, params)  # PAR.3
    g, sigmoid = sigmoid_forward(a)  # PAR.4
    return g[:, :, None, None], GateCache(squeeze, mlp, sigmoid)


def gate_backward(dg: Array, cache: GateCache) -> tuple[Array, channel.Params]:
    """Return dx and the gradients (dw1, dw2).

    Raises TypeError or ValueError if dg (N, C, 1, 1) does not match the gate.
    """
    squeeze, mlp, sigmoid = cache
    floating(dg=dg)
    same_shape("dg", dg, (*sigmoid.y.shape, 1, 1), "the output gate")

    # PAR.4 was g = sigmoid(a)
    da = sigmoid_backward(dg[:, :, 0, 0], sigmoid)  # PAR.4

    # PAR.3 was two FC with a ReLU between
    ds, grads = channel.mlp_backward(da, mlp)  # PAR.3

    # PAR.2 was a mean: every pixel has the same share in it
    dx = global_avg_pool_backward(ds, squeeze)  # PAR.2
    return dx, grads


class SEGate(Layer):
    """The gate of squeeze-and-excitation as a layer: x (N, B, H, W) to a gate (N, C, 1, 1) for other maps.

    Parameters
    ----------
    in_planes
        B, the channels of x, at least 1.
    channel
        C, the channels that the gate is for, at least 1.
    reduction
        r: the hidden width is C // r, so 1 ≤ r ≤ C.
    dtype, rng, xp, fused
        As in `npattn.Layer`.

    `params`: "fc.0.weight" (C//r, B) and "fc.2.weight" (C, C//r). `attention`: "channel" (N, C, 1, 1).

    Raises
    ------
    TypeError, ValueError
        If a number is no whole number of at least 1, or reduction > channel.
    """

    input_axes = "N C H W"

    def __init__(self, in_planes: int, channel: int, reduction: int = 16, **options: Unpack[Options]) -> None:
        super().__init__(**options)
        B = self.channels = whole_number("in_planes", in_planes)
        R = hidden_width("channel", channel, "reduction", reduction)
        self.signature = f"{B}, {channel}, reduction={reduction}"
        self.params["fc.0.weight"] = self.own(uniform(self.rng, (R, B), fan_in=B))
        self.params["fc.2.weight"] = self.own(uniform(self.rng, (channel, R), fan_in=R))

    def run(self, x: Array) -> tuple[Array, GateCache]:
        g, cache = gate_forward(x, channel.Params(self.params["fc.0.weight"], self.params["fc.2.weight"]))
        self._gates = {"channel": cache.sigmoid.y[:, :, None, None]}
        return g, cache

    def undo(self, dg: Array, cache: GateCache) -> tuple[Array, dict[str, Array]]:
        dx, grads = gate_backward(dg, cache)
        return dx, {"fc.0.weight": grads.w1, "fc.2.weight": grads.w2}


class ParallelSE(Nested):
    """SE beside a transformation F instead of behind it: x (N, B, H, W) to F(x) times a gate made from x.

    Parameters
    ----------
    transform
        F: a layer from B channels to C, a `Sequential` say.
    gate
        `SEGate(B, C)`, or any other layer from x to a gate for F(x).

    `params`: "transform." and the transformation's own keys, "gate." and the gate's. `attention` likewise.

    Raises
    ------
    TypeError
        If one is no layer, or they differ in array module or dtype.
    """

    input_axes = "N C H W"

    def __init__(self, transform: Layer, gate: Layer) -> None:
        super().__init__({"transform": transform, "gate": gate})

    def run(self, x: Array) -> tuple[Array, gate.Cache]:
        u = self.layers["transform"].forward(x)  # PAR.1
        g = self.layers["gate"].forward(x)
        self._after_run()
        return gate.forward(u, g)  # PAR.5

    def undo(self, dy: Array, cache: gate.Cache) -> tuple[Array, MutableMapping[str, Array]]:
        # PAR.5 was y = u · g
        du, dg = gate.backward(dy, cache)  # PAR.5

        # x went two ways, into the gate and into F. Nothing of the gate's way goes through F
        dx_gate = self.layers["gate"].backward(dg)
        dx_transform = self.layers["transform"].backward(du)  # PAR.1
        dx = dx_transform + dx_gate
        return dx, Joined(self.layers, "grads")
