"""Triplet attention: three spatial gates, each of another side of the block of numbers that an image is.

    x (N, C, H, W)   in each branch: w (1, 2, k, k)   b (1) or none   norm: gamma, beta (1)
    branch   ch: over the columns, for channels and rows   cw: over the rows   hw: over the channels

    TRI.1   v = x turned, the axis to pool over in front    (N, A, B, D)   A: columns, rows or channels
    TRI.2   m = [mean over A, maximum over A] of v          (N, 2, B, D)
    TRI.3   z = w ∗ m + b                                   (N, 1, B, D)
    TRI.4   u = batch norm of z                             (N, 1, B, D)
    TRI.5   r = relu(u), or u                               (N, 1, B, D)   the authors have no ReLU here
    TRI.6   g = sigmoid(r)                                  (N, 1, B, D)
    TRI.7   t = v · g, turned back                          (N, C, H, W)
    TRI.8   y = the mean of the three branches' t           (N, C, H, W)

hw is CBAM's spatial gate with a norm. In a branch v is used three times, in TRI.2 twice and in TRI.7, and x in three
branches: nine ways. Misra et al., Rotate to Attend, WACV 2021, equations 3 to 5. Derivation: docs/blocks/triplet.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Form, Statistic, Weight
from npattn.checks import floating, odd, odd_kernel, same_shape, shaped_params, true_or_false
from npattn.layer import Options
from npattn.ops import batch_norm, channel_max, channel_mean, conv2d, relu, sigmoid
from npattn.ops.pooling import some_pixels

TURNS = {"ch": (0, 3, 1, 2), "cw": (0, 2, 1, 3), "hw": (0, 1, 2, 3)}
BACK = {"ch": (0, 2, 3, 1), "cw": (0, 2, 1, 3), "hw": (0, 1, 2, 3)}


class Branch(NamedTuple):
    w: Array  # (1, 2, k, k)
    norm: batch_norm.Params  # gamma, beta (1)
    b: Array | None = None  # (1)


class Params(NamedTuple):
    ch: Branch
    cw: Branch
    hw: Branch


class BranchRunning(NamedTuple):
    norm: batch_norm.Running  # mean, var (1)


class Running(NamedTuple):
    ch: BranchRunning
    cw: BranchRunning
    hw: BranchRunning


class BranchCache(NamedTuple):
    v: Array  # (N, A, B, D)
    g: Array  # (N, B, D)
    mean: channel_mean.Cache
    max: channel_max.Cache
    conv: conv2d.Cache
    norm: batch_norm.Cache
    rectified: relu.Cache | None
    gate: sigmoid.Cache


class Cache(NamedTuple):
    ch: BranchCache
    cw: BranchCache
    hw: BranchCache


def branch_forward(
    x: Array, params: Branch, running: BranchRunning | None, name: str, rectify: bool
) -> tuple[Array, BranchCache]:
    """One branch: x (N, C, H, W) times its gate, the same shape."""
    w, of_norm, b = params
    xp = floating(x=x, w=w, b=b, **of_norm._asdict())
    odd_kernel("w", w, "1 2 k k")
    shaped_params(params, b="1")
    shaped_params(of_norm, gamma="1", beta="1")

    v = xp.permute_dims(x, TURNS[name])  # TRI.1
    m_avg, mean = channel_mean.forward(v)
    m_max, max_ = channel_max.forward(v)
    m = xp.concat([m_avg, m_max], axis=1)  # TRI.2
    z, conv = conv2d.forward(m, conv2d.Params(w, b))  # TRI.3
    u, norm = batch_norm.forward(z, of_norm, None if running is None else running.norm)  # TRI.4
    r, rectified = relu.forward(u) if rectify else (u, None)  # TRI.5
    g, gate = sigmoid.forward(r)  # TRI.6
    t = xp.permute_dims(v * g, BACK[name])  # TRI.7
    return t, BranchCache(v, g[:, 0, :, :], mean, max_, conv, norm, rectified, gate)


def branch_backward(dt: Array, cache: BranchCache, name: str) -> tuple[Array, Branch]:
    """Return the branch's part of dx, and the gradients (dw, dnorm, db)."""
    v, g, mean, max_, conv, norm, rectified, gate = cache
    xp = floating(v=v)  # dt was checked as dy

    # TRI.7 was t = v · g, turned back: both factors receive dt, turned as v was, times the other
    dturned = xp.permute_dims(dt, TURNS[name])
    dv_direct = dturned * g[:, None, :, :]  # TRI.7
    dg = xp.sum(dturned * v, axis=1, keepdims=True)  # TRI.7

    # TRI.6 was g = sigmoid(r)
    dr = sigmoid.backward(dg, gate)  # TRI.6

    # TRI.5 let through what was positive, if it was there
    du = dr if rectified is None else relu.backward(dr, rectified)  # TRI.5

    # TRI.4 was a normalisation, by statistics that the whole batch had a hand in, or by constants
    dz, dnorm = batch_norm.backward(du, norm)  # TRI.4

    # TRI.3 was z = w ∗ m + b
    dm, (dw, db) = conv2d.backward(dz, conv)  # TRI.3

    # TRI.2 laid two maps on each other: a maximum, of which one number receives everything, and a mean, in equal shares
    dv_max = channel_max.backward(dm[:, 1:2, :, :], max_)  # TRI.2
    dv_avg = channel_mean.backward(dm[:, 0:1, :, :], mean)  # TRI.2

    # v went three ways. TRI.1 only turned
    dx = xp.permute_dims(dv_direct + dv_max + dv_avg, BACK[name])  # TRI.1
    return dx, Branch(dw, dnorm, db)


def forward(x: Array, params: Params, running: Running | None = None, rectify: bool = False) -> tuple[Array, Cache]:
    """Scale x by a gate for each channel and row, channel and column, and row and column, and take the mean.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        In each branch w (1, 2, k, k) with k odd, b (1) or None, and norm with gamma and beta (1).
    running
        The statistics to normalise by, or None for those of the batch.
    rectify
        Whether a ReLU is before each gate.

    Returns
    -------
    y : (N, C, H, W)
    cache : Cache

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape that does not match or an even k.
    """
    floating(x=x)
    some_pixels(x)
    true_or_false("rectify", rectify)
    of = dict.fromkeys(TURNS) if running is None else running._asdict()

    t_ch, ch = branch_forward(x, params.ch, of["ch"], "ch", rectify)
    t_cw, cw = branch_forward(x, params.cw, of["cw"], "cw", rectify)
    t_hw, hw = branch_forward(x, params.hw, of["hw"], "hw", rectify)
    y = (t_ch + t_cw + t_hw) / 3  # TRI.8
    return y, Cache(ch, cw, hw)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients of the three branches.

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        Those of the three branches.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    floating(dy=dy, v=cache.hw.v)
    same_shape("dy", dy, tuple(cache.hw.v.shape), "the output y")

    # TRI.8 was a mean of three: each has the same share in it
    dt = dy / 3  # TRI.8
    dx_hw, dhw = branch_backward(dt, cache.hw, "hw")
    dx_cw, dcw = branch_backward(dt, cache.cw, "cw")
    dx_ch, dch = branch_backward(dt, cache.ch, "ch")

    # x went into three branches, so its gradient comes back from three
    dx = dx_ch + dx_cw + dx_hw
    return dx, Params(dch, dcw, dhw)


def updated(running: Running, cache: Cache, momentum: float = 0.1) -> Running:
    """The running statistics moved towards those of the batch, as `npattn.ops.batch_norm.updated` does."""
    pairs = zip(running, cache, strict=True)
    return Running(*(BranchRunning(batch_norm.updated(old.norm, seen.norm, momentum)) for old, seen in pairs))


def branch(name: str) -> tuple[Weight | Statistic, ...]:
    """What one branch declares."""
    return (
        Weight(f"{name}.conv.weight", f"{name}.w", "1 2 k k"),
        Weight(f"{name}.conv.bias", f"{name}.b", "1", fan_in="2 k k"),
        *batch_norm.declared(f"{name}.bn", f"{name}.norm", "1"),
    )


class TripletAttention(Block):
    """Triplet attention as a layer: x (N, C, H, W), any C, to the same shape.

    Parameters
    ----------
    kernel_size
        k, odd, of all three branches.
    bias
        Whether the convolutions have one.
    rectify
        Whether a ReLU stands before each gate: no gate is below one half then.
    momentum
        The share of a batch in the running statistics, in [0, 1]: 0.01 with the authors.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        of the branches "ch", "cw" and "hw", "ch.conv.weight" (1, 2, k, k), "ch.conv.bias" (1,) if asked for,
        "ch.bn.weight" and "ch.bn.bias" (1,), and so on.
    buffers
        "ch.bn.running_mean", "ch.bn.running_var" (1,), and so on.
    attention
        "channel_rows" (N, C, H), "channel_columns" (N, C, W) and "spatial" (N, 1, H, W).

    Raises
    ------
    TypeError, ValueError
        If kernel_size is no odd whole number, momentum outside its range, or an option no bool.
    """

    input_axes = "N C H W"
    state = (*branch("ch"), *branch("cw"), *branch("hw"))
    gates = {"channel_rows": ("ch.g", "N C H"), "channel_columns": ("cw.g", "N C W"), "spatial": ("hw.g", "N 1 H W")}
    arguments = {"kernel_size": "k"}
    card = Card(
        "triplet",
        "triplet attention",
        asks="where, seen from three sides?",
        gives="the mean of x · g_ch, x · g_cw, x · g_hw",
        source="Misra et al., WACV 2021, equations 3 to 5",
        page="blocks/triplet",
        size=(1, 2, 2, 3),
        seed=24,
        forms=(Form("triplet-relu", "triplet attention with ReLUs", {"rectify": True}),),
    )

    def __init__(
        self,
        kernel_size: int = 7,
        *,
        bias: bool = False,
        rectify: bool = False,
        momentum: float = 0.1,
        **options: Unpack[Options],
    ) -> None:
        without = () if true_or_false("bias", bias) else tuple(f"{name}.b" for name in TURNS)
        settings = {"rectify": true_or_false("rectify", rectify)}
        sizes = {"k": odd("kernel_size", kernel_size)}
        super().__init__(sizes, without=without, settings=settings, momentum=momentum, **options)
