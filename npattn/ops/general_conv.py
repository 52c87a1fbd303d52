"""Convolution in general: any kernel, stride, padding, dilation and groups; so also depthwise, or along one axis.

    x (N, C, H, W)   w (M, D, k_h, k_v)   b (M) or None   y (N, M, H', W')
    G groups         D = C / G channels go into a group, E = M / G come out
    stride s, padding q, dilation d: each s_h for rows and s_v for columns, and so on
    H' = (H + 2·q_h − d_h·(k_h − 1) − 1) // s_h + 1, W' likewise          P = H'·W' outputs   K = D·k_h·k_v

    GCONV.1   x̄ = x with q_h rows and q_v columns of zeros on each side                    (N, C, H + 2·q_h, W + 2·q_v)
    GCONV.2   u[n, g, (c, i, j), (h, v)] = x̄[n, g·D + c, s_h·h + d_h·i, s_v·v + d_v·j]     (N, G, K, P)   unfold
    GCONV.3   y[n, g] = w[g] u[n, g]                                                       (N, G, E, P)   w as (G, E, K)
    GCONV.4   y = y + b                                                                    b is broadcast

With s = d = G = 1, k odd and q = k // 2 this is the convolution of conv2d.py. The place (i, j) of the kernel reads a
slice of x̄ that begins at d·(i, j) and goes in steps of s; backward adds to that slice.
Derivation: docs/ops/general_conv.md
"""

from __future__ import annotations

from typing import Any, NamedTuple

from npattn.backend import Array, copied, device
from npattn.checks import floating, multiple_of, same_shape, shaped, whole_number
from npattn.ops.sliding import Slide, rows_and_columns
from npattn.samples import Draw


class Params(NamedTuple):
    w: Array  # (M, D, k_h, k_v)
    b: Array | None = None  # (M)


class Cache(NamedTuple):
    u: Array  # (N, G, K, P)
    shape: tuple[int, int, int, int]  # of x
    slide: Slide
    params: Params


def forward(
    x: Array,
    params: Params,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> tuple[Array, Cache]:
    """Slide the kernel of every group over the channels of the group.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w (M, C // groups, k_h, k_v), and b (M) or None.
    stride
        s, at least 1: a number, or a pair for rows and columns.
    padding
        q, at least 0: a number, or a pair.
    dilation
        d, at least 1: a number, or a pair.
    groups
        G, which divides C and M.

    Returns
    -------
    y : (N, M, H', W')
    cache : Cache

    Raises
    ------
    TypeError
        For a dtype or library that does not match, or a number that is not whole.
    ValueError
        For a shape or a number that does not fit, or a kernel that spans more than x with its padding.
    """
    w, b = params
    xp = floating(x=x, w=w, b=b)
    groups = whole_number("groups", groups)
    M, D, k_h, k_v = shaped("w", w, "M D k_h k_v")
    multiple_of("w (its first axis)", M, "groups", groups)
    slide = Slide(
        (k_h, k_v),
        rows_and_columns("stride", stride),
        rows_and_columns("padding", padding, least=0),
        rows_and_columns("dilation", dilation),
    )
    N, C, H, W = shaped("x", x, "N C H W", C=groups * D)
    H_out, W_out = slide.outputs(H, W)
    q_h, q_v = slide.padding

    padded = xp.zeros((N, C, *slide.padded(H, W)), dtype=x.dtype, device=device(x))
    padded[:, :, q_h : q_h + H, q_v : q_v + W] = x  # GCONV.1
    shifts = [padded[:, :, rows, columns] for rows, columns in slide.reads(H, W)]
    u = xp.reshape(xp.stack(shifts, axis=2), (N, groups, D * k_h * k_v, H_out * W_out))  # GCONV.2
    y = xp.reshape(w, (groups, M // groups, D * k_h * k_v)) @ u  # GCONV.3
    y = xp.reshape(y, (N, M, H_out, W_out))
    if b is not None:
        shaped("b", b, "M", M=M)
        y = y + b[:, None, None]  # GCONV.4
    return y, Cache(u, (N, C, H, W), slide, params)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx (N, C, H, W) and the gradients (dw, db), db None where b was.

    Parameters
    ----------
    dy : (N, M, H', W')
    cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dw and db.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    u, (N, C, H, W), slide, (w, b) = cache
    xp = floating(dy=dy, u=u)
    (M, _, k_h, k_v), (_, G, K, P) = w.shape, u.shape
    H_out, W_out = slide.outputs(H, W)
    q_h, q_v = slide.padding
    same_shape("dy", dy, (N, M, H_out, W_out), "the output y")

    # GCONV.4 broadcast b over images and outputs: its gradient is the sum over both
    db = None if b is None else xp.sum(dy, axis=(0, 2, 3))  # GCONV.4

    # GCONV.3 was y = w u for every group of every image: each factor receives dy times the other, w from all images
    dy = xp.reshape(dy, (N, G, M // G, P))
    du = xp.reshape(w, (G, M // G, K)).mT @ dy  # GCONV.3
    dw = xp.reshape(xp.sum(dy @ u.mT, axis=0), w.shape)  # GCONV.3

    # GCONV.2 copied a slice of x̄ for each place in the kernel: its gradient is added to the same slice, with its steps
    du = xp.reshape(du, (N, C, k_h * k_v, H_out, W_out))
    dpadded = xp.zeros((N, C, *slide.padded(H, W)), dtype=dy.dtype, device=device(dy))
    for place, (rows, columns) in enumerate(slide.reads(H, W)):
        dpadded[:, :, rows, columns] += du[:, :, place, :, :]  # GCONV.2

    # GCONV.1 put zeros around x: they are constants, only the middle goes back
    dx = copied(dpadded[:, :, q_h : q_h + H, q_v : q_v + W])  # GCONV.1
    return dx, Params(dw, db)


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {
        "general convolution": (draw.x("N 2C H W"), Params(draw.w("2M C 3 2"), draw.w("2M"))),
        "convolution along the rows": (draw.x(), Params(draw.w("M C 3 1"))),
    }


SETTINGS = {
    "general convolution": {"stride": (2, 1), "padding": 1, "dilation": (1, 2), "groups": 2},
    "convolution along the rows": {"stride": 3, "padding": (2, 0), "dilation": (2, 1)},
}
"""What else `forward` is given there."""

PAGE = {"N": 1, "C": 1, "H": 3, "W": 3, "M": 1}  # the sizes of the docs' worked example
