"""Point-wise spatial attention: every pixel looks at every pixel, by weights that depend on how far apart they are.

    x (N, C, H, W)   i, j pixels, P = H·W   Δ(i, j) = the place of j as seen from i, one of D = (2H − 1)(2W − 1)
    w_c, w_d (D, C)   w (C, 3C)

    PSA.1   t = x, a pixel a row               (N, P, C)
    PSA.2   m_c = t w_cᵀ,  m_d = t w_dᵀ        (N, P, D)    at every pixel, a weight for every Δ
    PSA.3   a_c[i, j] = m_c[i, Δ(i, j)]        (N, P, P)    what i says about j: i collects
    PSA.4   a_d[i, j] = m_d[j, Δ(j, i)]        (N, P, P)    what j says about i: j distributes
    PSA.5   z_c = a_c t / P                    (N, P, C)    z_c[i] = (1/P) Σ_j a_c[i, j] t[j]
    PSA.6   z_d = a_d t / P                    (N, P, C)
    PSA.7   v = [t, z_c, z_d]                  (N, P, 3C)   in this order
    PSA.8   y = v wᵀ, back in rows and columns (N, C, H, W) a 1×1 convolution

t is used five times: in two weights, in two sums, and by itself. m_c and m_d are over-completed, as the paper says: D
numbers at a pixel, of which the image's H·W are read, each once. Zhao et al., PSANet, ECCV 2018, section 3.
Derivation: docs/blocks/psa.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array, device
from npattn.block import Block, Card, Weight
from npattn.checks import floating, same_shape, shaped, whole_number
from npattn.layer import Options
from npattn.ops import linear


class Params(NamedTuple):
    w_c: Array  # (D, C)
    w_d: Array  # (D, C)
    w: Array  # (C, 3C)


class Cache(NamedTuple):
    t: Array  # (N, P, C)
    a_c: Array  # (N, P, P)
    a_d: Array  # (N, P, P)
    collect: linear.Cache
    distribute: linear.Cache
    fuse: linear.Cache
    shape: tuple[int, int, int, int]  # of x


def places(H: int, W: int, like: Array) -> Array:
    """Δ(i, j) of all pairs of pixels as a number, (P, P): rows down and columns right from i to j, counted from 0."""
    xp = floating(like=like)
    i = xp.arange(H * W, device=device(like))
    row, col = i // W, i % W
    down = row[None, :] - row[:, None] + (H - 1)
    right = col[None, :] - col[:, None] + (W - 1)
    return down * (2 * W - 1) + right


def read(m: Array, H: int, W: int) -> Array:
    """The map's numbers that lie in the image: m (N, P, D) to a (N, P, P), a[n, i, j] = m[n, i, Δ(i, j)]."""
    xp = floating(m=m)
    N, P, _ = m.shape
    index = xp.broadcast_to(places(H, W, m)[None, :, :], (N, P, P))
    return xp.take_along_axis(m, index, axis=2)


def unread(da: Array, H: int, W: int) -> Array:
    """The way back: every number of m was read once, by one pixel j, or lies outside of the image and gets 0."""
    xp = floating(da=da)
    N, P, _ = da.shape
    D = (2 * H - 1) * (2 * W - 1)
    i, place = xp.arange(P, device=device(da))[:, None], xp.arange(D, device=device(da))[None, :]
    row = i // W + place // (2 * W - 1) - (H - 1)  # of the pixel at that place as seen from i
    col = i % W + place % (2 * W - 1) - (W - 1)
    inside = (row >= 0) & (row < H) & (col >= 0) & (col < W)
    j = xp.where(inside, row * W + col, xp.zeros_like(row))
    dm = xp.take_along_axis(da, xp.broadcast_to(j[None, :, :], (N, P, D)), axis=2)
    return xp.where(inside[None, :, :], dm, xp.zeros_like(dm))


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """Give every pixel what it collects from all pixels and what all pixels distribute to it.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w_c and w_d (D, C), D = (2H − 1)(2W − 1), and w (C, 3C).

    Returns
    -------
    y : (N, C, H, W)
    cache : Cache
        Holds the weights of all pairs: 2 N (H W)² numbers.

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape that does not match.
    """
    w_c, w_d, w = params
    xp = floating(x=x, w_c=w_c, w_d=w_d, w=w)
    N, C, H, W = shaped("x", x, "N C H W")
    P, D = H * W, (2 * H - 1) * (2 * W - 1)
    shaped("w_c", w_c, "(2H-1)(2W-1) C", **{"(2H-1)(2W-1)": D, "C": C})
    shaped("w_d", w_d, "(2H-1)(2W-1) C", **{"(2H-1)(2W-1)": D, "C": C})
    shaped("w", w, "C 3C", C=C)

    t = xp.reshape(x, (N, C, P)).mT  # PSA.1
    m_c, collect = linear.forward(t, linear.Params(w_c))  # PSA.2
    m_d, distribute = linear.forward(t, linear.Params(w_d))  # PSA.2
    a_c = read(m_c, H, W)  # PSA.3
    a_d = read(m_d, H, W).mT  # PSA.4
    z_c = a_c @ t / P  # PSA.5
    z_d = a_d @ t / P  # PSA.6
    v = xp.concat([t, z_c, z_d], axis=2)  # PSA.7
    rows, fuse = linear.forward(v, linear.Params(w))  # PSA.8
    y = xp.reshape(rows.mT, (N, C, H, W))  # PSA.8
    return y, Cache(t, a_c, a_d, collect, distribute, fuse, (N, C, H, W))


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dw_c, dw_d, dw).

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dw_c, dw_d and dw.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    t, a_c, a_d, collect, distribute, fuse, (N, C, H, W) = cache
    xp = floating(dy=dy)  # linear.backward compares it with what the cache holds
    same_shape("dy", dy, (N, C, H, W), "the output y")
    P = H * W

    # PSA.8 was y = v wᵀ
    dv, (dw, _) = linear.backward(xp.reshape(dy, (N, C, P)).mT, fuse)  # PSA.8

    # PSA.7 laid three side by side: each takes its own part back
    dt_self, dz_c, dz_d = dv[:, :, :C], dv[:, :, C : 2 * C], dv[:, :, 2 * C :]  # PSA.7

    # PSA.6 was z_d = a_d t / P: each factor receives dz_d times the other
    da_d = dz_d @ t.mT / P  # PSA.6
    dt_d = a_d.mT @ dz_d / P  # PSA.6

    # PSA.5 was z_c = a_c t / P: the same again
    da_c = dz_c @ t.mT / P  # PSA.5
    dt_c = a_c.mT @ dz_c / P  # PSA.5

    # PSA.4 and PSA.3 read numbers of the two maps; PSA.4 turned the pair round
    dm_d = unread(da_d.mT, H, W)  # PSA.4
    dm_c = unread(da_c, H, W)  # PSA.3

    # PSA.2 made each map from t
    dt_md, (dw_d, _) = linear.backward(dm_d, distribute)  # PSA.2
    dt_mc, (dw_c, _) = linear.backward(dm_c, collect)  # PSA.2

    # t was used five times, so its gradient comes back from five
    dt = dt_self + dt_c + dt_d + dt_mc + dt_md

    # PSA.1 only moved numbers
    dx = xp.reshape(dt.mT, (N, C, H, W))  # PSA.1
    return dx, Params(dw_c, dw_d, dw)


class PSA(Block):
    """Point-wise spatial attention as a layer, for maps of one size: x (N, C, H, W) to y, the same shape.

    Parameters
    ----------
    in_planes
        C, at least 1.
    height, width
        H and W, at least 1. The weights belong to this size, and memory grows with (H W)²: small maps only.
    dtype, rng, xp, fused
        As in `npattn.Layer`.

    Attributes
    ----------
    params
        "collect.weight" and "distribute.weight" ((2H−1)(2W−1), C, 1, 1), "fuse.weight" (C, 3C, 1, 1).
    attention
        "collect" and "distribute" (N, H, W, H, W): the weight that the first pixel gives the second one when it
        collects, and the weight that the first pixel receives from the second one. No gates: any sign, any size.

    Raises
    ------
    TypeError, ValueError
        If a number is no whole number of at least 1; in forward, if the maps have another size.
    """

    input_axes = "N C H W"
    state = (
        Weight("collect.weight", "w_c", "D C", stored="D C 1 1"),
        Weight("distribute.weight", "w_d", "D C", stored="D C 1 1"),
        Weight("fuse.weight", "w", "C 3C", stored="C 3C 1 1"),
    )
    gates = {"collect": ("a_c", "N H W H W"), "distribute": ("a_d", "N H W H W")}
    arguments = {"in_planes": "C", "height": "H", "width": "W"}
    card = Card(
        "psa",
        "point-wise spatial attention",
        asks="which pixel matters to which?",
        gives="w [x, a_c x / P, a_d x / P]",
        source="Zhao et al., PSANet, ECCV 2018, section 3",
        page="blocks/psa",
        size=(1, 2, 2, 2),
        most_pixels=49,  # the weights of all pairs grow with the square of it
        what="point-wise spatial attention, in the 7×7 stage only",
    )

    def __init__(self, in_planes: int, height: int, width: int, **options: Unpack[Options]) -> None:
        H, W = whole_number("height", height), whole_number("width", width)
        sizes = {"C": whole_number("in_planes", in_planes), "H": H, "W": W, "D": (2 * H - 1) * (2 * W - 1)}
        super().__init__(sizes, **options)
