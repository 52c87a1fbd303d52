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

from typing import NamedTuple, Unpack

from npattn.attention import channel, spatial
from npattn.backend import Array
from npattn.block import Block, Card, within
from npattn.checks import floating, hidden_width, odd, same_shape, whole_number
from npattn.layer import Options


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

    Parameters
    ----------
    x : (N, C, H, W)
    params
        ca and sa.

    Returns
    -------
    y : (N, C, H, W)
    cache : Cache

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape that does not match.
    """
    floating(x=x, **params.ca._asdict(), **params.sa._asdict())

    g_c, ca = channel.forward(x, params.ca)  # CBAM.1
    u = x * g_c  # CBAM.2
    g_s, sa = spatial.forward(u, params.sa)  # CBAM.3
    y = u * g_s  # CBAM.4
    return y, Cache(x, g_c, u, g_s, ca, sa)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dca, dsa).

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dca and dsa.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
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


class CBAM(Block):
    """CBAM as a layer: x (N, C, H, W) to x times its channel gate times its spatial gate, the same shape.

    Parameters
    ----------
    in_planes
        C, at least 1.
    ratio
        r: the hidden width of the channel attention is C // r, so 1 ≤ r ≤ C.
    kernel_size
        k of the spatial attention, odd.
    dtype, rng, xp, fused
        As in `npattn.Layer`.

    Attributes
    ----------
    params
        "ca.fc1.weight" (C//r, C, 1, 1), "ca.fc2.weight" (C, C//r, 1, 1), "sa.conv1.weight" (1, 2, k, k).
    attention
        "channel" (N, C, 1, 1), "spatial" (N, 1, H, W).

    Raises
    ------
    TypeError, ValueError
        If a number is no whole number of at least 1, ratio > in_planes, or kernel_size is even.

    See Also
    --------
    npattn.variants.CBAM : In another order, with one gate alone, or with gates that have options of their own.
    """

    input_axes = "N C H W"
    state = within("ca", channel.ChannelAttention) + within("sa", spatial.SpatialAttention)
    gates = {"channel": ("g_c", "N C 1 1"), "spatial": ("g_s", "N 1 H W")}
    arguments = {"in_planes": "C", "ratio": "r", "kernel_size": "k"}
    card = Card(
        "cbam",
        "CBAM, the convolutional block attention module",
        asks="what matters, and where?",
        gives="x · g_c · g_s",
        source="Woo et al., ECCV 2018, equation 1",
        page="blocks/cbam",
        size=(1, 2, 3, 3),
        seed=930,
    )

    def __init__(self, in_planes: int, ratio: int = 16, kernel_size: int = 7, **options: Unpack[Options]) -> None:
        C, k = whole_number("in_planes", in_planes), odd("kernel_size", kernel_size)
        super().__init__({"C": C, "R": hidden_width("in_planes", C, "ratio", ratio), "k": k}, **options)
