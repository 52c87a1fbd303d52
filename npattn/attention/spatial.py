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

from collections.abc import Sequence
from typing import Any, NamedTuple, Unpack

from npattn.attention.options import SpatialOptions, spatial_plan
from npattn.backend import Array
from npattn.checks import floating, odd_kernel, same_shape
from npattn.layer import Layer, Options
from npattn.ops import conv2d
from npattn.ops.activation import SigmoidCache, sigmoid_backward, sigmoid_forward
from npattn.ops.pooling import (
    MaxCache,
    MeanCache,
    channel_max_backward,
    channel_max_forward,
    channel_mean_backward,
    channel_mean_forward,
)


class Params(NamedTuple):
    w: Array  # (1, 2, k, k)


class Cache(NamedTuple):
    mean: MeanCache
    max: MaxCache
    conv: conv2d.Cache
    sigmoid: SigmoidCache


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """The spatial gate of x.

    Parameters: x (N, C, H, W); params, w (1, 2, k, k) with k odd. Returns: g (N, 1, H, W), in [0, 1], and the cache.
    Raises TypeError for a dtype or library that does not match, ValueError for a shape that does not or an even k.
    """
    (w,) = params
    xp = floating(x=x, w=w)
    odd_kernel("w", w, "1 2 k k", **{"1": 1, "2": 2})

    m_avg, mean = channel_mean_forward(x)  # SA.1
    m_max, max_ = channel_max_forward(x)  # SA.2
    m = xp.concat([m_avg, m_max], axis=1)  # SA.3
    a, conv = conv2d.forward(m, conv2d.Params(w))  # SA.4
    g, sigmoid = sigmoid_forward(a)  # SA.5
    return g, Cache(mean, max_, conv, sigmoid)


def backward(dg: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradient (dw,). Raises TypeError or ValueError if dg (N, 1, H, W) does not match the gate."""
    floating(dg=dg)
    same_shape("dg", dg, cache.sigmoid.y.shape, "the output gate")

    # SA.5 was g = sigmoid(a)
    da = sigmoid_backward(dg, cache.sigmoid)  # SA.5

    # SA.4 was a = w ∗ m
    dm, (dw, _) = conv2d.backward(da, cache.conv)  # SA.4

    # SA.3 laid two maps on each other: each takes its own back
    dm_avg, dm_max = dm[:, 0:1, :, :], dm[:, 1:2, :, :]  # SA.3

    # SA.2 was a maximum: one channel receives everything. SA.1 was a mean: all receive the same share
    dx_max = channel_max_backward(dm_max, cache.max)  # SA.2
    dx_avg = channel_mean_backward(dm_avg, cache.mean)  # SA.1

    # x was pooled twice, so its gradient comes back from both
    dx = dx_max + dx_avg
    return dx, Params(dw)


class SpatialAttention(Layer):
    """CBAM's spatial attention as a layer: x (N, C, H, W), any C, to its gate (N, 1, H, W).

    Parameters
    ----------
    kernel_size
        k, odd: 7 in the paper, 3 as its alternative; any other odd size works as well.
    maps
        What describes a pixel, in this order: ("mean", "max"), ("max", "mean"), ("mean",) or ("max",).
    mix
        "concat": the maps side by side, one after the other in the kernel. "mean": their mean as the only map.
    bias
        Whether the convolution has a bias.
    norm
        Whether there is a batch norm between convolution and gate. It has running statistics, as `npattn.BatchNorm2d`.
    momentum
        The share of the batch in those statistics, in [0, 1]. Only with norm=True.
    gate
        "sigmoid", or "hard_sigmoid": a/6 + 1/2 between 0 and 1; "torch_hard_sigmoid" has PyTorch's rounded slope.
    max_tie
        Which of several equal maxima gets the gradient: the "first", or all an "even" part.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form with options.

    `params`: "conv1.weight" (1, 2, k, k), with one map (1, 1, k, k); "conv1.bias" (1,); "bn.weight" and "bn.bias" (1,).
    `buffers` with a norm: "bn.running_mean" and "bn.running_var" (1,); `num_batches_tracked` counts their moves.
    `attention`: "spatial" (N, 1, H, W). Derivation of the options: docs/variants.md

    Raises
    ------
    TypeError, ValueError
        If kernel_size is no odd whole number, an option is not among those named, or `momentum` is given without a
        norm.
    """

    input_axes = "N C H W"
    room = "attention.spatial"

    def __init__(
        self,
        kernel_size: int = 7,
        *,
        maps: Sequence[str] = ("mean", "max"),
        mix: str = "concat",
        bias: bool = False,
        norm: bool = False,
        momentum: float = 0.1,
        gate: str = "sigmoid",
        max_tie: str = "first",
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**options)
        asked = SpatialOptions(maps=maps, mix=mix, bias=bias, norm=norm, momentum=momentum, gate=gate, max_tie=max_tie)
        plan = spatial_plan(self.rng, kernel_size, asked)
        self.form, self.momentum, self.num_batches_tracked = plan.form, plan.momentum, 0
        self.signature = f"kernel_size={kernel_size}{plan.shown}"
        self.params.update({name: self.own(value) for name, value in plan.params.items()})
        self.buffers.update({name: self.own(value) for name, value in plan.buffers.items()})
        if not plan.article:
            self.room = "variants.spatial"

    def run(self, x: Array) -> tuple[Array, Any]:
        g, cache = self.pair.forward(x, Params(self.params["conv1.weight"]))
        self._gates = {"spatial": cache.sigmoid.y}
        return g, cache

    def undo(self, dg: Array, cache: Any) -> tuple[Array, dict[str, Array]]:
        dx, grads = self.pair.backward(dg, cache)
        return dx, {"conv1.weight": grads.w}
