"""Convolution, as the field says: cross-correlation, stride 1, zero padding k//2, so that H and W stay.

    x (N, C, H, W)   w (M, C, k, k), k odd   b (M) or None   y (N, M, H, W)
    q = k // 2       P = H·W pixels          K = C·k·k numbers under the kernel

    CONV.1   x̄ = x with q zeros on every side                                 (N, C, H + 2q, W + 2q)
    CONV.2   u[n, (c, i, j), (h, v)] = x̄[n, c, h + i, v + j]                  (N, K, P)   unfold: k² shifted copies
    CONV.3   y = w u                                                           (N, M, P)   w read as (M, K)
    CONV.4   y = y + b                                                         b is broadcast over images and pixels

Unfolding copies slices of x̄, so its backward adds to the same slices (scatter), and then cuts the zeros off (crop).
Seen from a pixel that is a convolution with the kernel flipped. Derivation: docs/ops/conv2d.md
"""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

from npattn.backend import Array, copied, device
from npattn.block import Block, Weight
from npattn.checks import floating, multiple_of, odd_kernel, same_shape, shaped, true_or_false, whole_number
from npattn.layer import Options
from npattn.ops import general_conv
from npattn.ops.sliding import Slide, half, rows_and_columns
from npattn.samples import Draw


class Params(NamedTuple):
    w: Array  # (M, C, k, k)
    b: Array | None = None  # (M)


class Cache(NamedTuple):
    u: Array  # (N, K, P)
    shape: tuple[int, int, int, int]  # of x
    params: Params


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """Slide the kernel over every image.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w (M, C, k, k) with k odd, and b (M) or None.

    Returns
    -------
    y : (N, M, H, W)
    cache : Cache

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape that does not match or an even k.
    """
    w, b = params
    xp = floating(x=x, w=w, b=b)
    M, C, k, _ = odd_kernel("w", w, "M C k k")
    N, C, H, W = shaped("x", x, "N C H W", C=C)
    q = k // 2

    padded = xp.zeros((N, C, H + 2 * q, W + 2 * q), dtype=x.dtype, device=device(x))
    padded[:, :, q : q + H, q : q + W] = x  # CONV.1
    shifts = [padded[:, :, i : i + H, j : j + W] for i in range(k) for j in range(k)]
    u = xp.reshape(xp.stack(shifts, axis=2), (N, C * k * k, H * W))  # CONV.2
    y = xp.reshape(w, (M, C * k * k)) @ u  # CONV.3
    if b is not None:
        shaped("b", b, "M", M=M)
        y = y + b[:, None]  # CONV.4
    return xp.reshape(y, (N, M, H, W)), Cache(u, (N, C, H, W), params)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx (N, C, H, W) and the gradients (dw, db), db None where b was.

    Parameters
    ----------
    dy : (N, M, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dw and db, None where b was.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    u, (N, C, H, W), (w, b) = cache
    xp = floating(dy=dy, u=u)
    M, _, k, _ = w.shape
    q = k // 2
    same_shape("dy", dy, (N, M, H, W), "the output y")
    dy = xp.reshape(dy, (N, M, H * W))

    # CONV.4 broadcast b over images and pixels: its gradient is the sum over both
    db = None if b is None else xp.sum(dy, axis=(0, 2))  # CONV.4

    # CONV.3 was y = w u for every image: each factor receives dy times the other, and w, in all images, the sum
    du = xp.reshape(w, (M, C * k * k)).T @ dy  # CONV.3
    dw = xp.sum(dy @ u.mT, axis=0)  # CONV.3

    # CONV.2 copied a slice of x̄ for each place in the kernel: its gradient is added to the same slice
    du = xp.reshape(du, (N, C, k, k, H, W))
    dpadded = xp.zeros((N, C, H + 2 * q, W + 2 * q), dtype=dy.dtype, device=device(dy))
    for i in range(k):
        for j in range(k):
            dpadded[:, :, i : i + H, j : j + W] += du[:, :, i, j, :, :]  # CONV.2

    # CONV.1 put zeros around x: they are constants, only the middle goes back
    dx = copied(dpadded[:, :, q : q + H, q : q + W])  # CONV.1
    return dx, Params(xp.reshape(dw, w.shape), db)


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    x, w, b = draw.x(), draw.w("M C k k"), draw.w("M")
    return {"conv2d": (x, Params(w, b)), "conv2d without bias": (x, Params(w))}


PAGE = {"N": 1, "C": 1, "H": 2, "W": 3, "M": 1, "k": 3}  # the sizes of the docs' worked example


class Conv2d(Block):
    """A convolution layer, (N, C, H, W) to (N, M, H', W'), with PyTorch's keys and initial distribution.

    With a stride, a dilation and groups of 1, an odd k×k kernel and k//2 zeros around, the pair is this file's, which
    has a fused form. With anything else it is that of `npattn.ops.general_conv`, which has none: `path` is "textbook".
    `params`: "weight" (M, C // groups, k, k) and "bias" (M,).

    Parameters
    ----------
    in_channels, out_channels
        C and M, at least 1; multiples of groups.
    kernel_size
        k, or a pair, rows and columns.
    stride
        At least 1: a number, or a pair.
    padding
        Zeros on each side, at least 0: a number, or a pair. None is half of what an odd kernel spans, with which height
        and width stay at stride 1; PyTorch's default is 0.
    dilation
        At least 1: a number, or a pair.
    groups
        Into how many groups the channels fall. C of them, with M = C, is a depthwise convolution.
    bias
        Whether there is a b.
    dtype, rng, xp, fused
        As in `npattn.Layer`.

    Raises
    ------
    TypeError, ValueError
        If a number is not whole or too small, k is even and there is no padding, C or M no multiple of groups, or bias
        no bool.
    """

    input_axes = "N C H W"
    state = (Weight("weight", "w", "M D k_h k_v"), Weight("bias", "b", "M", fan_in="D k_h k_v"))
    arguments = {"in_channels": "C", "out_channels": "C", "kernel_size": "k"}

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 3,
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | None = None,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        **options: Unpack[Options],
    ) -> None:
        C = whole_number("in_channels", in_channels)
        M = whole_number("out_channels", out_channels)
        G = whole_number("groups", groups)
        multiple_of("in_channels", C, "groups", G)
        multiple_of("out_channels", M, "groups", G)
        k_h, k_v = kernel = rows_and_columns("kernel_size", kernel_size)
        slide = Slide(
            kernel,
            rows_and_columns("stride", stride),
            half(kernel, dilation) if padding is None else rows_and_columns("padding", padding, least=0),
            rows_and_columns("dilation", dilation),
        )
        settings: dict[str, Any] = {}
        if slide != Slide((k_h, k_h), (1, 1), (k_h // 2, k_h // 2)) or k_h % 2 == 0 or G > 1:
            self.textbook = general_conv.__name__
            settings = {"stride": slide.stride, "padding": slide.padding, "dilation": slide.dilation, "groups": G}
        without = () if true_or_false("bias", bias) else ("b",)
        sizes = {"C": C, "M": M, "D": C // G, "k_h": k_h, "k_v": k_v}
        super().__init__(sizes, without=without, settings=settings, **options)
