"""Every pair and every layer of the library, with random inputs: one table for the command and the tests."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from npattn.attention import cbam, channel, concat, gate, psa, residual, se, spatial, wrong
from npattn.layer import Layer, Sequential
from npattn.ops import activation, batch_norm, conv2d, linear, loss, pooling


class Draw(NamedTuple):
    """What a case is drawn from."""

    rng: np.random.Generator
    size: tuple[int, int, int, int]  # N, C, H, W
    ratio: int = 2  # C // ratio is the hidden width
    k: int = 3  # kernel size
    scale: float = 1.0  # of the weights

    def x(self) -> np.ndarray:
        return self.rng.standard_normal(self.size)

    def w(self, *shape: int) -> np.ndarray:
        return self.scale * self.rng.standard_normal(shape)

    @property
    def R(self) -> int:
        return max(1, self.size[1] // self.ratio)

    def channel(self) -> channel.Params:
        return channel.Params(self.w(self.R, self.size[1]), self.w(self.size[1], self.R))

    def spatial(self) -> spatial.Params:
        return spatial.Params(self.w(1, 2, self.k, self.k))

    def psa(self) -> psa.Params:
        _, C, H, W = self.size
        D = (2 * H - 1) * (2 * W - 1)
        return psa.Params(self.w(D, C), self.w(D, C), self.w(C, 3 * C))

    def norm(self) -> batch_norm.Params:
        return batch_norm.Params(self.w(self.size[1]), self.w(self.size[1]))

    def running(self) -> batch_norm.Running:
        C = self.size[1]
        return batch_norm.Running(self.rng.standard_normal(C), self.rng.uniform(0.5, 2, C))


class Case(NamedTuple):
    """A pair, and its inputs. `backward` gives one gradient for each, or None."""

    name: str
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    draw: Callable[[Draw], tuple[Any, ...]]


def with_none(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Batch norm's backward in eval mode, with a None for the running statistics, which are constants."""
    return functools.wraps(backward)(lambda dy, cache: (*backward(dy, cache), None))


eval_backward = with_none(batch_norm.eval_backward)


OPS = (
    Case("relu", activation.relu_forward, activation.relu_backward, lambda d: (d.x(),)),
    Case("sigmoid", activation.sigmoid_forward, activation.sigmoid_backward, lambda d: (d.x(),)),
    Case("linear", linear.forward, linear.backward,
         lambda d: (d.x(), linear.Params(d.w(d.R + 1, d.size[3]), d.w(d.R + 1)))),
    Case("conv2d", conv2d.forward, conv2d.backward,
         lambda d: (d.x(), conv2d.Params(d.w(d.R + 1, d.size[1], d.k, d.k), d.w(d.R + 1)))),
    Case("global average pool", pooling.global_avg_pool_forward, pooling.global_avg_pool_backward, lambda d: (d.x(),)),
    Case("global max pool", pooling.global_max_pool_forward, pooling.global_max_pool_backward, lambda d: (d.x(),)),
    Case("channel mean", pooling.channel_mean_forward, pooling.channel_mean_backward, lambda d: (d.x(),)),
    Case("channel max", pooling.channel_max_forward, pooling.channel_max_backward, lambda d: (d.x(),)),
    Case("2×2 average pool", pooling.avg_pool_2x2_forward, pooling.avg_pool_2x2_backward, lambda d: (d.x(),)),
    Case("2×2 max pool", pooling.max_pool_2x2_forward, pooling.max_pool_2x2_backward, lambda d: (d.x(),)),
    Case("batch norm, train", batch_norm.train_forward, batch_norm.train_backward, lambda d: (d.x(), d.norm())),
    Case("batch norm, eval", batch_norm.eval_forward, eval_backward, lambda d: (d.x(), d.norm(), d.running())),
    Case("cross-entropy", loss.forward, loss.backward,
         lambda d: (d.w(d.size[0] + 3, d.size[1]), d.rng.integers(0, d.size[1], d.size[0] + 3))),
    Case("gate", gate.forward, gate.backward, lambda d: (d.x(), d.w(*d.size[:2], 1, 1))),
    Case("SE without FC", wrong.squeeze_forward, wrong.squeeze_backward, lambda d: (d.x(),)),
    Case("residual sum", residual.forward, residual.backward, lambda d: (d.x(), d.x())),
)  # fmt: skip

BLOCKS = (
    Case("SE", se.forward, se.backward, lambda d: (d.x(), se.Params(*d.channel()))),
    Case("channel attention", channel.forward, channel.backward, lambda d: (d.x(), d.channel())),
    Case("spatial attention", spatial.forward, spatial.backward, lambda d: (d.x(), d.spatial())),
    Case("CBAM", cbam.forward, cbam.backward, lambda d: (d.x(), cbam.Params(d.channel(), d.spatial()))),
    Case("SE by convolution", wrong.conv_forward, wrong.conv_backward,
         lambda d: (d.x(), wrong.ConvParams(d.w(d.size[1], d.size[1], d.k, d.k)))),
    Case("SE's gate", wrong.gate_forward, wrong.gate_backward,
         lambda d: (d.x(), channel.Params(d.w(d.R, d.size[1]), d.w(d.size[1] + 1, d.R)))),
    Case("pool-and-concatenate channel attention", concat.forward, concat.backward,
         lambda d: (d.x(), concat.Params(d.w(d.R, 2 * d.size[1]), d.w(d.size[1], d.R)))),
    Case("point-wise spatial attention", psa.forward, psa.backward, lambda d: (d.x(), d.psa())),
)  # fmt: skip


def fused_twins() -> list[Case]:
    """The pairs of npattn.fused: those cases whose module and functions are there under the same names."""
    twins = []
    for case in (*OPS, *BLOCKS):
        name = case.forward.__module__.rpartition(".")[2]
        try:
            module = importlib.import_module(f"npattn.fused.{name}")
        except ModuleNotFoundError:
            continue
        forward = getattr(module, case.forward.__name__, None)
        backward = getattr(module, case.backward.__name__, None)
        if forward is None or backward is None:
            continue
        if case.backward is eval_backward:
            backward = with_none(backward)
        twins.append(case._replace(name=f"{case.name}, fused", forward=forward, backward=backward))
    return twins


LAYERS: tuple[Callable[[bool], Layer], ...] = (
    lambda fused: se.SELayer(8, reduction=4, rng=0, fused=fused),
    lambda fused: channel.ChannelAttention(8, ratio=4, rng=0, fused=fused),
    lambda fused: spatial.SpatialAttention(kernel_size=3, rng=0, fused=fused),
    lambda fused: cbam.CBAM(8, ratio=4, kernel_size=3, rng=0, fused=fused),
    lambda fused: activation.ReLU(fused=fused),
    lambda fused: activation.Sigmoid(fused=fused),
    lambda fused: pooling.GlobalAvgPool(fused=fused),
    lambda fused: pooling.GlobalMaxPool(fused=fused),
    lambda fused: pooling.AvgPool2x2(fused=fused),
    lambda fused: pooling.MaxPool2x2(fused=fused),
    lambda fused: conv2d.Conv2d(8, 3, 3, rng=0, fused=fused),
    lambda fused: batch_norm.BatchNorm2d(8, fused=fused),
    lambda fused: batch_norm.BatchNorm2d(8, fused=fused).eval(),
    lambda fused: gate.Gated(spatial.SpatialAttention(kernel_size=3, rng=0, fused=fused)),
    lambda fused: gate.Gated(channel.ChannelAttention(8, ratio=4, rng=0, fused=fused)),
    lambda fused: wrong.SqueezeScale(fused=fused),
    lambda fused: wrong.ConvGate(8, kernel_size=3, rng=0, fused=fused),
    lambda fused: wrong.ParallelSE(conv2d.Conv2d(8, 5, rng=0, fused=fused), wrong.SEGate(8, 5, 2, rng=1, fused=fused)),
    lambda fused: concat.ConcatAttention(8, ratio=4, rng=0, fused=fused),
    lambda fused: psa.PSA(8, 4, 3, rng=0, fused=fused),
    lambda fused: residual.Residual(se.SELayer(8, reduction=4, rng=0, fused=fused)),
    lambda fused: residual.Residual(
        Sequential(conv2d.Conv2d(8, 3, 3, rng=0, fused=fused), cbam.CBAM(3, ratio=1, rng=1, fused=fused)),
        skip=conv2d.Conv2d(8, 3, 1, rng=2, fused=fused),
    ),
)
"""Layers that take an image, textbook or fused. `path` says after a forward which it was."""
