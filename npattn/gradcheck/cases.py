"""Every pair and every layer of the library, with random inputs: one table for the command and the tests."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from npattn.attention import cbam, channel, concat, gate, psa, residual, se, spatial, wrong
from npattn.attention.options import CbamForm, ChannelForm, SpatialForm
from npattn.layer import Layer
from npattn.nested import Sequential
from npattn.ops import activation, batch_norm, conv2d, linear, loss, pooling
from npattn.variants import cbam as any_cbam
from npattn.variants import channel as any_channel
from npattn.variants import eca, gates
from npattn.variants import pooling as more_pooling
from npattn.variants import se as any_se
from npattn.variants import spatial as any_spatial


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


def with_form(name: str, module: Any, form: Any, draw: Callable[[Draw], Any]) -> Case:
    """A pair of npattn.variants in one of its forms."""
    return Case(name, functools.wraps(module.forward)(lambda x, params: module.forward(x, params, form)),
                module.backward, lambda d: (d.x(), draw(d)))  # fmt: skip


def fc(d: Draw, *, wide: int = 1, bias: bool = False, layers: int = 2) -> any_channel.Params:
    """Weights of a channel gate; `wide` descriptors side by side."""
    C, R = d.size[1], d.R if layers == 2 else d.size[1]
    b1, b2 = (d.w(R), d.w(C)) if bias else (None, None)
    w2, b2 = (d.w(C, R), b2) if layers == 2 else (None, None)
    return any_channel.Params(d.w(R, wide * C), b1, w2, b2)


def kernel(d: Draw, *, maps: int = 2, bias: bool = False, norm: bool = False) -> any_spatial.Params:
    """Weights of a spatial gate."""
    of_norm = batch_norm.Params(d.w(1), d.w(1)) if norm else None
    return any_spatial.Params(d.w(1, maps, d.k, d.k), d.w(1) if bias else None, of_norm)


def evaluated(x: Any, params: any_spatial.Params, running: batch_norm.Running) -> Any:
    """The spatial gate normalised by running statistics."""
    return any_spatial.forward(x, params, SpatialForm(), running)


FOUR = ("avg", "max", "lp", "lse")

VARIANTS = (
    Case("lp pool", more_pooling.lp_pool_forward, more_pooling.lp_pool_backward, lambda d: (d.x(),)),
    Case("lse pool", more_pooling.lse_pool_forward, more_pooling.lse_pool_backward, lambda d: (d.x(),)),
    Case("global max pool, even ties", more_pooling.global_even_max_forward, more_pooling.global_even_max_backward,
         lambda d: (d.x(),)),
    Case("channel max, even ties", more_pooling.channel_even_max_forward, more_pooling.channel_even_max_backward,
         lambda d: (d.x(),)),
    Case("hard sigmoid", gates.hard_sigmoid_forward, gates.hard_sigmoid_backward, lambda d: (3 * d.x(),)),
    with_form("SE, one FC with bias, hard sigmoid", any_se, ChannelForm(("avg",), gate="hard_sigmoid"),
              lambda d: fc(d, bias=True, layers=1)),
    with_form("channel attention, bias", any_channel, ChannelForm(), lambda d: fc(d, bias=True)),
    with_form("channel attention, lp", any_channel, ChannelForm(("lp",)), fc),
    with_form("channel attention, lse", any_channel, ChannelForm(("lse",)), fc),
    with_form("channel attention, four pools, before", any_channel, ChannelForm(FOUR, "before"), fc),
    with_form("channel attention, four pools, concat", any_channel, ChannelForm(FOUR, "concat"),
              lambda d: fc(d, wide=4)),
    with_form("channel attention, even ties", any_channel, ChannelForm(max_tie="even"), fc),
    with_form("spatial attention, max first, bias", any_spatial, SpatialForm(("max", "mean")),
              lambda d: kernel(d, bias=True)),
    with_form("spatial attention, mean alone, hard sigmoid", any_spatial, SpatialForm(("mean",), gate="hard_sigmoid"),
              lambda d: kernel(d, maps=1)),
    with_form("spatial attention, max alone, even ties", any_spatial, SpatialForm(("max",), max_tie="even"),
              lambda d: kernel(d, maps=1)),
    with_form("spatial attention, mean of the maps", any_spatial, SpatialForm(mix="mean"), lambda d: kernel(d, maps=1)),
    with_form("spatial attention, norm, train", any_spatial, SpatialForm(), lambda d: kernel(d, norm=True)),
    Case("spatial attention, norm, eval", evaluated, with_none(any_spatial.backward),
         lambda d: (d.x(), kernel(d, norm=True),
                    batch_norm.Running(d.rng.standard_normal(1), d.rng.uniform(0.5, 2, 1)))),
    with_form("CBAM, spatial first", any_cbam, CbamForm("spatial-first"), lambda d: any_cbam.Params(fc(d), kernel(d))),
    with_form("CBAM, parallel", any_cbam, CbamForm("parallel"), lambda d: any_cbam.Params(fc(d), kernel(d))),
    with_form("CBAM, residual", any_cbam, CbamForm(residual=True), lambda d: any_cbam.Params(fc(d), kernel(d))),
    with_form("CBAM, channel alone", any_cbam, CbamForm(), lambda d: any_cbam.Params(fc(d), None)),
    with_form("CBAM, spatial alone", any_cbam, CbamForm(), lambda d: any_cbam.Params(None, kernel(d))),
    Case("ECA", eca.forward, eca.backward, lambda d: (d.x(), eca.Params(d.w(d.k)))),
)  # fmt: skip
"""The pairs of npattn.variants, a row for each value of an option."""


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
    lambda fused: se.SELayer(8, layers=1, bias=True, gate="hard_sigmoid", rng=0, fused=fused),
    lambda fused: channel.ChannelAttention(8, ratio=4, bias=True, pools=FOUR, rng=0, fused=fused),
    lambda fused: spatial.SpatialAttention(3, maps=("max", "mean"), bias=True, norm=True, rng=0, fused=fused),
    lambda fused: gate.Gated(spatial.SpatialAttention(3, mix="mean", norm=True, rng=0, fused=fused)).eval(),
    lambda fused: cbam.CBAM(8, 4, 3, order="spatial-first", spatial={"norm": True}, rng=0, fused=fused),
    lambda fused: cbam.CBAM(8, 4, 3, order="parallel", residual=True, channel={"bias": True}, rng=0, fused=fused),
    lambda fused: eca.ECA(8, rng=0, fused=fused),
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
