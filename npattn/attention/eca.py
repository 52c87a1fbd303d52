"""ECA, efficient channel attention: a channel's gate is decided by its neighbours, by one small convolution.

    x (N, C, H, W)   w (k), k odd   q = k // 2

    ECA.1   s = mean over the pixels of x              (N, C)
    ECA.2   s̄ = s with q zeros at both ends            (N, C + 2q)
    ECA.3   a_c = Σ_j w_j s̄_{c + j}                    (N, C)         j = 0 … k − 1
    ECA.4   g = gate(a)                                (N, C)
    ECA.5   y = x · g                                  (N, C, H, W)

There is no bottleneck, and k numbers take the place of two matrices. x is used twice, in ECA.1 and in ECA.5.
Wang et al., ECA-Net, CVPR 2020, equations 9 and 12. Derivation: docs/variants.md
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Unpack

from npattn.backend import Array, copied, device
from npattn.block import Block, Card, Form, Weight
from npattn.checks import floating, odd, one_of, real_number, same_shape, shaped, whole_number
from npattn.layer import Options
from npattn.ops import global_avg_pool
from npattn.ops.gate_functions import GATES


class Params(NamedTuple):
    w: Array  # (k)


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    g: Array  # (N, C)
    squeeze: global_avg_pool.Cache
    shifts: Array  # (N, C, k)
    w: Array  # (k)
    gate: str  # which gate
    gated: Any  # its cache


def forward(x: Array, params: Params, gate: str = "sigmoid") -> tuple[Array, Cache]:
    """Scale every channel of x by a gate that its neighbours decide.

    Parameters: x (N, C, H, W); params, w (k) with k odd; gate, "sigmoid" or "hard_sigmoid".
    Returns: y (N, C, H, W) and the cache.
    Raises TypeError for a dtype or library that does not match, ValueError for a shape that does not or an even k.
    """
    (w,) = params
    xp = floating(x=x, w=w)
    one_of("gate", gate, tuple(GATES))
    (k,) = shaped("w", w, "k")
    odd("w (its length)", k)
    N, C, _, _ = shaped("x", x, "N C H W")
    q = k // 2

    s, squeeze = global_avg_pool.forward(x)  # ECA.1
    ends = xp.zeros((N, q), dtype=s.dtype, device=device(s))
    padded = xp.concat([ends, s, ends], axis=1)  # ECA.2
    shifts = xp.stack([padded[:, j : j + C] for j in range(k)], axis=2)
    a = shifts @ w  # ECA.3
    g, gated = GATES[gate].forward(a)  # ECA.4
    y = x * g[:, :, None, None]  # ECA.5
    return y, Cache(x, g, squeeze, shifts, w, gate, gated)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradient (dw,). Raises TypeError or ValueError if dy (N, C, H, W) does not match y."""
    x, g, squeeze, shifts, w, gate, gated = cache
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, tuple(x.shape), "the output y")
    N, C, k = shifts.shape
    q = k // 2

    # ECA.5 was y = x · g: each factor receives dy times the other, and g, broadcast over the pixels, their sum
    dx_direct = dy * g[:, :, None, None]  # ECA.5
    dg = xp.sum(dy * x, axis=(2, 3))  # ECA.5

    # ECA.4 was g = gate(a)
    da = GATES[gate].backward(dg, gated)  # ECA.4

    # ECA.3 read every number of s̄ up to k times, each time with another weight: what comes back adds
    dw = xp.sum(shifts * da[:, :, None], axis=(0, 1))  # ECA.3
    dpadded = xp.zeros((N, C + 2 * q), dtype=dy.dtype, device=device(dy))
    for j in range(k):
        dpadded[:, j : j + C] += da * w[j]  # ECA.3

    # ECA.2 put zeros at the ends: they are constants, only the middle goes back
    ds = copied(dpadded[:, q : q + C])  # ECA.2

    # ECA.1 was a mean: every pixel has the same share in it
    dx_gate = global_avg_pool.backward(ds, squeeze)  # ECA.1

    # x went two ways, so its gradient comes back from both
    dx = dx_direct + dx_gate
    return dx, Params(dw)


def adaptive_kernel(channel: int, gamma: float = 2, beta: float = 1) -> int:
    """The kernel size for C channels, |log2(C)/γ + β/γ| cut to a whole number, and one more if that is even.

    Source: Wang et al. 2020, equation 12, rounded as the authors' code does.
    """
    t = int(abs(math.log2(channel) + beta) / gamma)
    return t if t % 2 else t + 1


class ECA(Block):
    """Efficient channel attention as a layer: x (N, C, H, W) to x times its channel gate, the same shape.

    Parameters
    ----------
    channel
        C, at least 1; it decides the kernel size where that is None. None with a kernel size takes any C.
    kernel_size
        k, odd, or None for `adaptive_kernel(channel, gamma, beta)`.
    gamma, beta
        γ > 0 and β of that rule: 2 and 1 in the paper.
    gate
        "sigmoid", or "hard_sigmoid": a/6 + 1/2 between 0 and 1.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    `params`: "conv.weight" (1, 1, k). `attention`: "channel" (N, C, 1, 1).

    Raises
    ------
    TypeError, ValueError
        If a number is outside its range, the kernel size even, or both channel and kernel_size None.
    """

    input_axes = "N C H W"
    state = (Weight("conv.weight", "w", "k", stored="1 1 k"),)
    gates = {"channel": ("g", "N C 1 1")}
    arguments = {"channel": "C"}
    card = Card(
        "eca",
        "efficient channel attention (ECA)",
        asks="what matters?",
        gives="x · g",
        source="Wang et al., CVPR 2020, equations 9 and 12",
        page="variants",
        what="efficient channel attention",
        forms=(
            Form("eca-hard-sigmoid", "efficient channel attention, hard sigmoid", {"gate": "hard_sigmoid"}),
            Form("eca-k5", "efficient channel attention of five neighbours", {"kernel_size": 5}),
        ),
    )

    def __init__(
        self,
        channel: int | None = None,
        kernel_size: int | None = None,
        *,
        gamma: float = 2,
        beta: float = 1,
        gate: str = "sigmoid",
        **options: Unpack[Options],
    ) -> None:
        if channel is None and kernel_size is None:
            raise ValueError("channel, kernel_size: expected at least one of them, got None twice")
        sizes = {} if channel is None else {"C": whole_number("channel", channel)}
        gamma, beta = real_number("gamma", gamma, least=1e-6), real_number("beta", beta)
        sizes["k"] = (
            adaptive_kernel(sizes["C"], gamma, beta) if kernel_size is None else odd("kernel_size", kernel_size)
        )
        super().__init__(sizes, settings={"gate": one_of("gate", gate, tuple(GATES))}, **options)
