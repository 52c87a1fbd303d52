"""Selective kernel: two convolutions, one of which reaches farther, and a softmax that says how much each has in y.

    x (N, C, H, W)   J = 2 paths, each of M channels on H'·W' pixels   G groups   R hidden units
    in path j, near or far: w_j (M, D, k, k)   dilation d_j   norm_j: gamma, beta (M)
    w1 (R, M)   norm: gamma, beta (R)   w2 (JM, R)

    SK.1    x_j = x, or the j-th half of its channels    (N, C or C/2, H, W)
    SK.2    z_j = w_j ∗ x_j                              (N, M, H', W')        in G groups
    SK.3    n_j = batch norm of z_j                      (N, M, H', W')
    SK.4    v_j = relu(n_j)                              (N, M, H', W')
    SK.5    u = Σ_j v_j                                  (N, M, H', W')        fuse
    SK.6    s = mean over the pixels of u                (N, M)
    SK.7    q = w1 s                                     (N, R)
    SK.8    n = batch norm of q, over the images         (N, R)
    SK.9    h = relu(n)                                  (N, R)
    SK.10   a = w2 h                                     (N, JM)               read as (N, J, M)
    SK.11   g = softmax over the paths of a              (N, J, M)             select
    SK.12   y = Σ_j v_j · g_j                            (N, M, H', W')

v is used twice, in SK.5 and SK.12, and x once in each path. With dilation 2 a 3×3 kernel reaches as far as a 5×5.
Li et al., Selective Kernel Networks, CVPR 2019, equations 1 to 6. Derivation: docs/blocks/selective-kernel.md
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Further, Weight
from npattn.checks import (
    floating,
    hidden_width,
    multiple_of,
    odd,
    odd_kernel,
    same_shape,
    shaped,
    shaped_params,
    true_or_false,
    whole_number,
    whole_numbers,
)
from npattn.layer import Options
from npattn.ops import batch_norm, general_conv, global_avg_pool, linear, relu, softmax
from npattn.packing import fields


class Params(NamedTuple):
    w_near: Array  # (M, D, k, k), D = C/G or C/2G
    norm_near: batch_norm.Params  # gamma, beta (M)
    w_far: Array  # (M, D, k, k)
    norm_far: batch_norm.Params  # gamma, beta (M)
    w1: Array  # (R, M)
    norm: batch_norm.Params  # gamma, beta (R)
    w2: Array  # (JM, R)


class Running(NamedTuple):
    norm_near: batch_norm.Running  # mean, var (M)
    norm_far: batch_norm.Running  # mean, var (M)
    norm: batch_norm.Running  # mean, var (R)


class PathCache(NamedTuple):
    conv: general_conv.Cache
    norm: batch_norm.Cache
    rectified: relu.Cache


class Cache(NamedTuple):
    v: Array  # (N, J, M, H', W')
    g: Array  # (N, J, M)
    near: PathCache
    far: PathCache
    split: bool
    squeeze: global_avg_pool.Cache
    fc1: linear.Cache
    norm: batch_norm.Cache
    hidden: relu.Cache
    fc2: linear.Cache
    gate: softmax.Cache


def path_forward(
    x: Array,
    w: Array,
    of_norm: batch_norm.Params,
    running: batch_norm.Running | None,
    stride: int,
    dilation: int,
    groups: int,
) -> tuple[Array, PathCache]:
    """One path: x (N, its channels, H, W) to v (N, M, H', W')."""
    reach = dilation * (w.shape[-1] // 2)  # and as many zeros around, so that both paths have the same places

    z, conv = general_conv.forward(x, general_conv.Params(w), stride, reach, dilation, groups)  # SK.2
    n, norm = batch_norm.forward(z, of_norm, running)  # SK.3
    v, rectified = relu.forward(n)  # SK.4
    return v, PathCache(conv, norm, rectified)


def path_backward(dv: Array, cache: PathCache) -> tuple[Array, Array, batch_norm.Params]:
    """Return the path's part of dx, dw and dnorm."""
    conv, norm, rectified = cache

    # SK.4 let through what was positive
    dn = relu.backward(dv, rectified)  # SK.4

    # SK.3 was a normalisation, by statistics that the whole batch had a hand in, or by constants
    dz, dnorm = batch_norm.backward(dn, norm)  # SK.3

    # SK.2 was z = w ∗ x
    dx, (dw, _) = general_conv.backward(dz, conv)  # SK.2
    return dx, dw, dnorm


def forward(
    x: Array,
    params: Params,
    running: Running | None = None,
    stride: int = 1,
    dilations: tuple[int, int] = (1, 2),
    groups: int = 1,
    split: bool = False,
) -> tuple[Array, Cache]:
    """Convolve x by two kernels, and take of the results a sum, each channel of each with a weight of its own.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w_near and w_far (M, D, k, k), k odd, each one's own; norm_near and norm_far with gamma and beta (M); w1 (R, M);
        norm with gamma and beta (R); w2 (2M, R).
    running
        The statistics to normalise by, or None for those of the batch.
    stride
        Of both convolutions.
    dilations
        One of each.
    groups
        G, of both.
    split
        Whether each path sees half of the channels: D is C/G, or with split C/2G.

    Returns
    -------
    y : (N, M, H', W')
    cache : Cache

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape or a number that does not fit, or an even k.
    """
    w_near, norm_near, w_far, norm_far, w1, of_norm, w2 = params
    xp = floating(x=x, **dict(fields(params)))
    M, D, _, _ = odd_kernel("w_near", w_near, "M D k k")
    odd_kernel("w_far", w_far, "M D k k", M=M, D=D)
    sizes = shaped_params(params, {"M": M}, w1="R M", w2="2M R")
    for name, each, axis in (("norm_near", norm_near, "M"), ("norm_far", norm_far, "M"), ("norm", of_norm, "R")):
        shaped_params(each, sizes, name, gamma=axis, beta=axis)
    parts = 2 if true_or_false("split", split) else 1
    _, C, _, _ = shaped("x", x, "N C H W", C=parts * D * whole_number("groups", groups))
    d_near, d_far = whole_numbers("dilations", dilations, 2)
    batch_norm.several_images(x, running)
    of_near, of_far, of_gate = (None, None, None) if running is None else running

    x_near, x_far = (x[:, : C // 2, :, :], x[:, C // 2 :, :, :]) if split else (x, x)  # SK.1
    v_near, near = path_forward(x_near, w_near, norm_near, of_near, stride, d_near, groups)
    v_far, far = path_forward(x_far, w_far, norm_far, of_far, stride, d_far, groups)
    v = xp.stack([v_near, v_far], axis=1)  # SK.4
    u = xp.sum(v, axis=1)  # SK.5
    s, squeeze = global_avg_pool.forward(u)  # SK.6
    q, fc1 = linear.forward(s, linear.Params(w1))  # SK.7
    normed, norm = batch_norm.forward(q[:, :, None, None], of_norm, of_gate)  # SK.8
    h, hidden = relu.forward(normed[:, :, 0, 0])  # SK.9
    a, fc2 = linear.forward(h, linear.Params(w2))  # SK.10
    g, gate = softmax.forward(xp.reshape(a, (x.shape[0], 2, M)), axis=1)  # SK.11
    y = xp.sum(v * g[:, :, :, None, None], axis=1)  # SK.12
    return y, Cache(v, g, near, far, parts == 2, squeeze, fc1, norm, hidden, fc2, gate)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients of the params.

    Parameters
    ----------
    dy : (N, M, H', W')
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dw_near, dnorm_near, dw_far, dnorm_far, dw1, dnorm, dw2.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    v, g, near, far, split, squeeze, fc1, norm, hidden, fc2, gate = cache
    xp = floating(dy=dy, v=v)
    N, J, M, H, W = v.shape
    same_shape("dy", dy, (N, M, H, W), "the output y")

    # SK.12 was y = Σ_j v_j · g_j: a path receives dy times its gate, and a gate, broadcast over the pixels, their sum
    dv_direct = dy[:, None, :, :, :] * g[:, :, :, None, None]  # SK.12
    dg = xp.sum(dy[:, None, :, :, :] * v, axis=(3, 4))  # SK.12

    # SK.11 was a softmax over the paths: what the one gains, the other loses
    da = xp.reshape(softmax.backward(dg, gate), (N, J * M))  # SK.11

    # SK.10 was a = w2 h
    dh, (dw2, _) = linear.backward(da, fc2)  # SK.10

    # SK.9 let through what was positive
    dn = relu.backward(dh, hidden)  # SK.9

    # SK.8 was a normalisation of one number an image, by statistics of all images, or by constants
    dq, dnorm = batch_norm.backward(dn[:, :, None, None], norm)  # SK.8

    # SK.7 was q = w1 s
    ds, (dw1, _) = linear.backward(dq[:, :, 0, 0], fc1)  # SK.7

    # SK.6 was a mean: every pixel has the same share in it
    du = global_avg_pool.backward(ds, squeeze)  # SK.6

    # SK.5 was a sum over the paths: each receives all of du
    dv_gate = du[:, None, :, :, :]  # SK.5

    # v went two ways, so its gradient comes back from two; the plus broadcasts du over the paths
    dv = dv_direct + dv_gate

    # SK.4 to SK.2 are undone in each path by itself
    dv_near, dv_far = dv[:, 0, :, :, :], dv[:, 1, :, :, :]  # SK.4
    dx_far, dw_far, dnorm_far = path_backward(dv_far, far)
    dx_near, dw_near, dnorm_near = path_backward(dv_near, near)

    # SK.1 gave each path a half, whose gradients lie side by side again; or all of x to both, and then they add up
    dx = xp.concat([dx_near, dx_far], axis=1) if split else dx_near + dx_far  # SK.1
    return dx, Params(dw_near, dnorm_near, dw_far, dnorm_far, dw1, dnorm, dw2)


def updated(running: Running, cache: Cache, momentum: float = 0.1) -> Running:
    """The running statistics moved towards those of the batch, as `npattn.ops.batch_norm.updated` does."""
    seen = (cache.near.norm, cache.far.norm, cache.norm)
    return Running(*(batch_norm.updated(old, new, momentum) for old, new in zip(running, seen, strict=True)))


class SelectiveKernel(Block):
    """Selective kernel as a layer: x (N, C, H, W) to y (N, M, H', W'), two convolutions and the choice between them.

    In training a batch needs two images or more.

    Parameters
    ----------
    channel
        C.
    out_channels
        M; None for C.
    kernel_sizes, dilations
        Of the two, k odd. The second reaches as far as k = 5 with k = 3 and a dilation of 2, as the authors have it.
    stride
        Of both, at least 1. A stride of 1 keeps H and W.
    groups
        G, of both convolutions: divides the channels that go into a path, and M.
    split_input
        Whether each path sees half of the channels, which then are even in number, in place of all.
    reduction
        The hidden width is M // reduction, so 1 ≤ reduction ≤ M.
    hidden
        The hidden width itself. The reduction has no say then.
    momentum
        The share of a batch in the running statistics, in [0, 1].
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        "paths.0.conv.weight" (M, D, k, k), "paths.0.bn.weight" and "paths.0.bn.bias" (M,), the same of "paths.1",
        "attn.fc_reduce.weight" (R, M, 1, 1), "attn.bn.weight" and "attn.bn.bias" (R,), "attn.fc_select.weight"
        (2M, R, 1, 1), R the hidden width.
    buffers
        "paths.0.bn.running_mean", "paths.0.bn.running_var" (M,) and so on; `num_batches_tracked` counts their moves.
    attention
        "paths" (N, 2, M).

    Raises
    ------
    TypeError, ValueError
        If a number is outside its range or no multiple of what it has to be.
    """

    input_axes = "N C H W"
    state = (
        Weight("paths.0.conv.weight", "w_near", "M D k k"),
        *batch_norm.declared("paths.0.bn", "norm_near", "M"),
        Weight("paths.1.conv.weight", "w_far", "M D l l"),
        *batch_norm.declared("paths.1.bn", "norm_far", "M"),
        Weight("attn.fc_reduce.weight", "w1", "R M", stored="R M 1 1"),
        *batch_norm.declared("attn.bn", "norm", "R"),
        Weight("attn.fc_select.weight", "w2", "2M R", stored="2M R 1 1"),
    )
    gates = {"paths": ("g", "N 2 M")}
    arguments = {"channel": "C", "reduction": "r"}
    card = Card(
        "selective-kernel",
        "selective kernel",
        asks="which kernel, channel by channel?",
        gives="v_near · g_near + v_far · g_far, v of two convolutions",
        source="Li et al., CVPR 2019, equations 1 to 6",
        page="blocks/selective-kernel",
        size=(3, 2, 1, 3),
        seed=22,
        further=(Further({"groups": 2, "stride": 2, "dilations": (2, 1)}, 2),),
    )

    def __init__(
        self,
        channel: int,
        out_channels: int | None = None,
        kernel_sizes: Sequence[int] = (3, 3),
        *,
        dilations: Sequence[int] = (1, 2),
        stride: int = 1,
        groups: int = 1,
        split_input: bool = False,
        reduction: int = 16,
        hidden: int | None = None,
        momentum: float = 0.1,
        **options: Unpack[Options],
    ) -> None:
        C, G = whole_number("channel", channel), whole_number("groups", groups)
        M = C if out_channels is None else whole_number("out_channels", out_channels)
        near, far = (odd("kernel_sizes", k) for k in whole_numbers("kernel_sizes", kernel_sizes, 2))
        parts = 2 if true_or_false("split_input", split_input) else 1
        multiple_of("channel", C, "paths · groups" if parts == 2 else "groups", parts * G)
        multiple_of("out_channels", M, "groups", G)
        by_ratio = hidden_width("out_channels", M, "reduction", reduction) if hidden is None else hidden
        R = whole_number("hidden", by_ratio)
        sizes = {"C": C, "M": M, "D": C // (parts * G), "k": near, "l": far, "R": R}
        of_both = {"stride": whole_number("stride", stride), "groups": G, "split": parts == 2}
        settings = {"dilations": whole_numbers("dilations", dilations, 2), **of_both}
        super().__init__(sizes, settings=settings, momentum=momentum, **options)
