"""CBAM, the convolutional block attention module: first what matters, then where.

    x (N, C, H, W)   ca: channel.Params   sa: spatial.Params

    CBAM.1   g_c = channel attention of x     (N, C, 1, 1)
    CBAM.2   u = x · g_c                      (N, C, H, W)
    CBAM.3   g_s = spatial attention of u     (N, 1, H, W)   of u, not of x
    CBAM.4   y = u · g_s                      (N, C, H, W)

u is used twice, and x is used twice: at each of the two a direct path and a path through a gate meet in a `+`.
A backward that forgets a gate's path returns dy · g_c · g_s, which looks right and is not.
Woo et al., CBAM, ECCV 2018, equation 1. Derivation: docs/blocks/cbam.md
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Unpack

from npattn.attention import channel, spatial
from npattn.attention.options import ChannelOptions, SpatialOptions, cbam_plan
from npattn.backend import Array
from npattn.checks import floating, same_shape
from npattn.layer import Layer, Options


class Params(NamedTuple):
    ca: channel.Params
    sa: spatial.Params


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    g_c: Array  # (N, C, 1, 1)
    u: Array  # (N, C, H, W)
    g_s: Array  # (N, 1, H, W)
    ca: channel.Cache
    sa: spatial.Cache


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """Scale x by its channel gate, and that by its spatial gate.

    Parameters: x (N, C, H, W); params, ca and sa. Returns: y (N, C, H, W) and the cache.
    Raises TypeError for a dtype or library that does not match, ValueError for a shape that does not.
    """
    floating(x=x, **params.ca._asdict(), **params.sa._asdict())

    g_c, ca = channel.forward(x, params.ca)  # CBAM.1
    u = x * g_c  # CBAM.2
    g_s, sa = spatial.forward(u, params.sa)  # CBAM.3
    y = u * g_s  # CBAM.4
    return y, Cache(x, g_c, u, g_s, ca, sa)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dca, dsa). Raises TypeError or ValueError if dy (N, C, H, W) does not match y."""
    x, g_c, u, g_s, ca, sa = cache
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, x.shape, "the output y")

    # CBAM.4 was y = u · g_s: each factor receives dy times the other, and g_s, broadcast over the channels, their sum
    du_direct = dy * g_s  # CBAM.4
    dg_s = xp.sum(dy * u, axis=1, keepdims=True)  # CBAM.4

    # CBAM.3 made g_s from u, the second way on which u reached y
    du_gate, dsa = spatial.backward(dg_s, sa)  # CBAM.3
    du = du_direct + du_gate

    # CBAM.2 was u = x · g_c: the same again, with g_c broadcast over the pixels
    dx_direct = du * g_c  # CBAM.2
    dg_c = xp.sum(du * x, axis=(2, 3), keepdims=True)  # CBAM.2

    # CBAM.1 made g_c from x, the second way on which x reached u
    dx_gate, dca = channel.backward(dg_c, ca)  # CBAM.1
    dx = dx_direct + dx_gate
    return dx, Params(dca, dsa)


class CBAM(Layer):
    """CBAM as a layer: x (N, C, H, W) to x times its channel gate times its spatial gate, the same shape.

    Parameters
    ----------
    in_planes
        C, at least 1.
    ratio
        r: the hidden width of the channel attention is C // r, so 1 ≤ r ≤ C.
    kernel_size
        k of the spatial attention, odd.
    order
        "channel-first", "spatial-first", or "parallel": both gates are made from the same x, y = x · g_c · g_s.
    residual
        Whether x is added at the end.
    channel, spatial
        Dicts of the options of `npattn.ChannelAttention` and `npattn.SpatialAttention`, None for the article's, or
        False for no such gate. One of the two must be there.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form with options, other than `hidden`.

    `params`: "ca.fc1.weight" (C//r, C, 1, 1), "ca.fc2.weight" (C, C//r, 1, 1), "sa.conv1.weight" (1, 2, k, k), and what
    the options of the two bring, as in their own layers; `buffers` and `num_batches_tracked` likewise.
    `attention`: "channel" (N, C, 1, 1), "spatial" (N, 1, H, W). Derivation of the options: docs/variants.md

    Raises
    ------
    TypeError, ValueError
        If a number is no whole number of at least 1, ratio > in_planes, kernel_size is even, an option is not among
        those named, both gates are left out, or an order is asked for with one gate left out.
    """

    input_axes = "N C H W"
    room = "attention.cbam"

    def __init__(
        self,
        in_planes: int,
        ratio: int = 16,
        kernel_size: int = 7,
        *,
        order: str = "channel-first",
        residual: bool = False,
        channel: ChannelOptions | Literal[False] | None = None,
        spatial: SpatialOptions | Literal[False] | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**options)
        plan = cbam_plan(self.rng, in_planes, ratio, kernel_size, order, residual, channel, spatial)
        C = self.channels = in_planes
        self.form, self.momentum, self.num_batches_tracked = plan.form, plan.momentum, 0
        self.signature = f"{C}, ratio={ratio}, kernel_size={kernel_size}{plan.shown}"
        self.params.update({name: self.own(value) for name, value in plan.params.items()})
        self.buffers.update({name: self.own(value) for name, value in plan.buffers.items()})
        if not plan.article:
            self.room = "variants.cbam"

    def run(self, x: Array) -> tuple[Array, Any]:
        w1, w2, w = self.params.values()
        y, cache = self.pair.forward(x, Params(channel.Params(w1[:, :, 0, 0], w2[:, :, 0, 0]), spatial.Params(w)))
        self._gates = {"channel": cache.g_c, "spatial": cache.g_s}
        return y, cache

    def undo(self, dy: Array, cache: Any) -> tuple[Array, dict[str, Array]]:
        dx, (dca, dsa) = self.pair.backward(dy, cache)
        return dx, {
            "ca.fc1.weight": dca.w1[:, :, None, None],
            "ca.fc2.weight": dca.w2[:, :, None, None],
            "sa.conv1.weight": dsa.w,
        }
