"""Bottleneck attention (BAM): a number for each channel and one for each pixel, joined before the sigmoid.

    x (N, C, H, W)   R = C // reduction   d the dilation of the 3×3 kernels
    a stage   m (N, A, H, W)   w (R, A, k, k), k 1 or 3   norm: gamma, beta (R)   b (R) or none

    BAM.1    p = w ∗ m + b                     (N, R, H, W)   height and width stay
    BAM.2    u = batch norm of p               (N, R, H, W)
    BAM.3    f = relu(u)                       (N, R, H, W)

    BAM.4    s = mean over the pixels of x     (N, C, 1, 1)   a map of one pixel
    BAM.5    h = stage of s                    (N, R, 1, 1)   w (R, C, 1, 1); the norm is over the images alone
    BAM.6    a_c = w_c h + b_c                 (N, C, 1, 1)   what matters
    BAM.7    f_0 = stage of x                  (N, R, H, W)   w (R, C, 1, 1)
    BAM.8    f_1 = dilated stage of f_0        (N, R, H, W)   w (R, R, 3, 3)
    BAM.9    f_2 = dilated stage of f_1        (N, R, H, W)   w (R, R, 3, 3)
    BAM.10   a_s = w_s f_2 + b_s               (N, 1, H, W)   where it matters
    BAM.11   a = a_c · a_s, or a_c + a_s       (N, C, H, W)   the authors' code; their paper
    BAM.12   g = sigmoid(a)                    (N, C, H, W)
    BAM.13   y = x · (1 + g)                   (N, C, H, W)

x is used three times, in BAM.4, BAM.7 and BAM.13. Park, Woo, Lee and Kweon, BAM, BMVC 2018, section 3, as its authors
wrote it down in code. Derivation: docs/blocks/bam.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Form, Statistic, Weight
from npattn.checks import floating, hidden_width, one_of, same_shape, shaped_params, true_or_false, whole_number
from npattn.layer import Options
from npattn.ops import batch_norm, general_conv, relu, sigmoid
from npattn.ops.pooling import some_pixels

JOINED = ("product", "sum")


class Stage(NamedTuple):
    w: Array  # (R, A, k, k)
    norm: batch_norm.Params  # gamma, beta (R)
    b: Array | None = None  # (R)


class Params(NamedTuple):
    channel: Stage  # w (R, C, 1, 1)
    w_c: Array  # (C, R, 1, 1)
    b_c: Array  # (C)
    reduce: Stage  # w (R, C, 1, 1)
    first: Stage  # w (R, R, 3, 3)
    second: Stage  # w (R, R, 3, 3)
    w_s: Array  # (1, R, 1, 1)
    b_s: Array  # (1)


class StageRunning(NamedTuple):
    norm: batch_norm.Running  # mean, var (R)


class Running(NamedTuple):
    channel: StageRunning
    reduce: StageRunning
    first: StageRunning
    second: StageRunning


class StageCache(NamedTuple):
    conv: general_conv.Cache
    norm: batch_norm.Cache
    rectified: relu.Cache


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    a_c: Array  # (N, C, 1, 1)
    a_s: Array  # (N, 1, H, W)
    g: Array  # (N, C, H, W)
    joined: str
    channel: StageCache
    out_c: general_conv.Cache
    reduce: StageCache
    first: StageCache
    second: StageCache
    out_s: general_conv.Cache
    gate: sigmoid.Cache


def stage_forward(m: Array, params: Stage, running: StageRunning | None, dilation: int = 1) -> tuple[Array, StageCache]:
    """A convolution, a norm and a ReLU: m (N, A, H, W) to f (N, R, H, W)."""
    w, of_norm, b = params
    q = dilation * (w.shape[-1] // 2)

    p, conv = general_conv.forward(m, general_conv.Params(w, b), padding=q, dilation=dilation)  # BAM.1
    u, norm = batch_norm.forward(p, of_norm, None if running is None else running.norm)  # BAM.2
    f, rectified = relu.forward(u)  # BAM.3
    return f, StageCache(conv, norm, rectified)


def stage_backward(df: Array, cache: StageCache) -> tuple[Array, Stage]:
    """Return dm and the gradients (dw, dnorm, db) of one stage."""
    # BAM.3 let through what was positive
    du = relu.backward(df, cache.rectified)  # BAM.3

    # BAM.2 was a normalisation, by statistics that the whole batch had a hand in, or by constants
    dp, dnorm = batch_norm.backward(du, cache.norm)  # BAM.2

    # BAM.1 was p = w ∗ m + b
    dm, (dw, db) = general_conv.backward(dp, cache.conv)  # BAM.1
    return dm, Stage(dw, dnorm, db)


def forward(
    x: Array, params: Params, running: Running | None = None, dilation: int = 4, joined: str = "product"
) -> tuple[Array, Cache]:
    """Scale every pixel of every channel of x by one plus its gate.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        The stages channel and reduce with w (R, C, 1, 1), first and second with w (R, R, 3, 3), each with norm, gamma
        and beta (R), and b (R) or None; w_c (C, R, 1, 1), b_c (C), w_s (1, R, 1, 1), b_s (1).
    running
        The statistics to normalise by, a mean and a variance (R) for each stage, or None for those of the batch.
    dilation
        d, at least 1.
    joined
        "product" or "sum", of what channel and pixel say.

    Returns
    -------
    y : (N, C, H, W)
    cache : Cache

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape that does not match, another word for joined, or a single image in training.
    """
    channel, w_c, b_c, reduce, first, second, w_s, b_s = params
    xp = floating(x=x, w_c=w_c, b_c=b_c, w_s=w_s, b_s=b_s)
    one_of("joined", joined, JOINED)
    sizes = shaped_params(params, w_c="C R 1 1", b_c="C", w_s="1 R 1 1", b_s="1")
    for name, stage in (("channel", channel), ("reduce", reduce)):
        shaped_params(stage, sizes, name, w="R C 1 1", b="R")
    for name, stage in (("first", first), ("second", second)):
        shaped_params(stage, sizes, name, w="R R 3 3", b="R")
    some_pixels(x, **sizes)
    batch_norm.several_images(x, running)
    of = dict.fromkeys(Running._fields) if running is None else running._asdict()

    s = xp.mean(x, axis=(2, 3), keepdims=True)  # BAM.4
    h, of_channel = stage_forward(s, channel, of["channel"])  # BAM.5
    a_c, out_c = general_conv.forward(h, general_conv.Params(w_c, b_c))  # BAM.6
    f_0, of_reduce = stage_forward(x, reduce, of["reduce"])  # BAM.7
    f_1, of_first = stage_forward(f_0, first, of["first"], dilation)  # BAM.8
    f_2, of_second = stage_forward(f_1, second, of["second"], dilation)  # BAM.9
    a_s, out_s = general_conv.forward(f_2, general_conv.Params(w_s, b_s))  # BAM.10
    a = a_c * a_s if joined == "product" else a_c + a_s  # BAM.11
    g, gate = sigmoid.forward(a)  # BAM.12
    y = x * (1 + g)  # BAM.13
    stages = (of_channel, out_c, of_reduce, of_first, of_second, out_s)
    return y, Cache(x, a_c, a_s, g, joined, *stages, gate)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients of the four stages and of the two maps behind them.

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dchannel, dw_c, db_c, dreduce, dfirst, dsecond, dw_s and db_s.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x, a_c, a_s, g = cache[:4]
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, tuple(x.shape), "the output y")
    P = x.shape[2] * x.shape[3]

    # BAM.13 was y = x · (1 + g): each factor receives dy times the other. Nothing was broadcast
    dx_direct = dy * (1 + g)  # BAM.13
    dg = dy * x  # BAM.13

    # BAM.12 was g = sigmoid(a)
    da = sigmoid.backward(dg, cache.gate)  # BAM.12

    # BAM.11 broadcast a_c over the pixels and a_s over the channels: each receives a sum over these
    in_c, in_s = (da * a_s, da * a_c) if cache.joined == "product" else (da, da)
    da_c = xp.sum(in_c, axis=(2, 3), keepdims=True)  # BAM.11
    da_s = xp.sum(in_s, axis=1, keepdims=True)  # BAM.11

    # BAM.10 was a_s = w_s f_2 + b_s
    df_2, (dw_s, db_s) = general_conv.backward(da_s, cache.out_s)  # BAM.10

    # BAM.9, BAM.8 and BAM.7 were three stages, one after the other
    df_1, dsecond = stage_backward(df_2, cache.second)  # BAM.9
    df_0, dfirst = stage_backward(df_1, cache.first)  # BAM.8
    dx_spatial, dreduce = stage_backward(df_0, cache.reduce)  # BAM.7

    # BAM.6 was a_c = w_c h + b_c
    dh, (dw_c, db_c) = general_conv.backward(da_c, cache.out_c)  # BAM.6

    # BAM.5 was a stage on a map of one pixel
    ds, dchannel = stage_backward(dh, cache.channel)  # BAM.5

    # BAM.4 was a mean: every pixel has the same share in it
    dx_channel = ds / P  # BAM.4

    # x went three ways, so its gradient comes back from three; the plus broadcasts the mean's shares over the pixels
    dx = dx_direct + dx_spatial + dx_channel
    return dx, Params(dchannel, dw_c, db_c, dreduce, dfirst, dsecond, dw_s, db_s)


def updated(running: Running, cache: Cache, momentum: float = 0.1) -> Running:
    """The running statistics moved towards those of the batch, as `npattn.ops.batch_norm.updated` does."""
    seen = (cache.channel, cache.reduce, cache.first, cache.second)
    pairs = zip(running, seen, strict=True)
    return Running(*(StageRunning(batch_norm.updated(old.norm, stage.norm, momentum)) for old, stage in pairs))


def stage_declared(name: str, axes: str) -> tuple[Weight | Statistic, ...]:
    """What one stage declares; `axes` are those of its kernel."""
    return (
        Weight(f"{name}.conv.weight", f"{name}.w", axes),
        Weight(f"{name}.conv.bias", f"{name}.b", "R", fan_in=axes.partition(" ")[2]),
        *batch_norm.declared(f"{name}.bn", f"{name}.norm", "R"),
    )


class BAM(Block):
    """Bottleneck attention as a layer: x (N, C, H, W) to x times one plus its gate, the same shape.

    In training a batch needs two images or more.

    Parameters
    ----------
    channel
        C, at least 1.
    reduction
        r: the hidden width is C // r, so 1 ≤ r ≤ C.
    dilation
        d, at least 1, of the two 3×3 kernels.
    joined
        "product" of what channel and pixel say, as in the authors' code, or "sum", as in their paper.
    bias
        Whether the stages have one, before their norms, as in the authors' code. In training it changes nothing.
    momentum
        The share of a batch in the running statistics, in [0, 1].
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        Of the stages "channel" and "reduce" (R, C, 1, 1), "first" and "second" (R, R, 3, 3): "first.conv.weight",
        "first.conv.bias" (R,) if asked for, "first.bn.weight" and "first.bn.bias" (R,), and so on; "channel_out.weight"
        (C, R, 1, 1), "channel_out.bias" (C,), "spatial_out.weight" (1, R, 1, 1), "spatial_out.bias" (1,).
    buffers
        Of each stage, "first.bn.running_mean" and "first.bn.running_var" (R,), and so on.
    attention
        "pixel" (N, C, H, W).

    Raises
    ------
    TypeError, ValueError
        If a number is no whole number of at least 1, reduction > channel, joined another word, bias no bool, or
        momentum outside its range.
    """

    input_axes = "N C H W"
    state = (
        *stage_declared("channel", "R C 1 1"),
        Weight("channel_out.weight", "w_c", "C R 1 1"),
        Weight("channel_out.bias", "b_c", "C", fan_in="R"),
        *stage_declared("reduce", "R C 1 1"),
        *stage_declared("first", "R R 3 3"),
        *stage_declared("second", "R R 3 3"),
        Weight("spatial_out.weight", "w_s", "1 R 1 1"),
        Weight("spatial_out.bias", "b_s", "1", fan_in="R"),
    )
    gates = {"pixel": ("g", "N C H W")}
    arguments = {"channel": "C", "reduction": "r"}
    card = Card(
        "bam",
        "bottleneck attention (BAM)",
        asks="what and where, in one number for each?",
        gives="x · (1 + g)",
        source="Park et al., BMVC 2018, section 3",
        page="blocks/bam",
        size=(3, 2, 1, 5),
        seed=171,
        forms=(Form("bam-sum", "BAM with the sum of its paper", {"joined": "sum"}),),
    )

    def __init__(
        self,
        channel: int,
        reduction: int = 16,
        *,
        dilation: int = 4,
        joined: str = "product",
        bias: bool = False,
        momentum: float = 0.1,
        **options: Unpack[Options],
    ) -> None:
        C = whole_number("channel", channel)
        R = hidden_width("channel", C, "reduction", reduction)
        settings = {"dilation": whole_number("dilation", dilation), "joined": one_of("joined", joined, JOINED)}
        without = () if true_or_false("bias", bias) else tuple(f"{name}.b" for name in Running._fields)
        super().__init__({"C": C, "R": R}, without=without, settings=settings, momentum=momentum, **options)
