"""Pooling: many numbers become one, their mean or their maximum. A mean shares its gradient, a maximum routes it.

    x (N, C, H, W)   P = H·W pixels

    GAP.1   y = (1/P) Σ_pixels x          (N, C)             global average pooling, over space
    GMP.1   i = the first pixel where x is largest            (N, C)
    GMP.2   y = x at pixel i              (N, C)             global max pooling, over space
    CMEAN.1 y = (1/C) Σ_c x               (N, 1, H, W)       mean over channels
    CMAX.1  i = the first channel where x is largest          (N, 1, H, W)
    CMAX.2  y = x at channel i            (N, 1, H, W)       maximum over channels
    WIN.1   u = the four pixels of each 2×2 window            (N, C, H//2, W//2, 4)
    AVG2.1  y = mean of u                 (N, C, H//2, W//2) an odd last row or column is left out
    MAX2.1  i = the first of the four where u is largest
    MAX2.2  y = u at i                    (N, C, H//2, W//2)

"First" is in reading order. On a tie the first maximum receives the whole gradient, as in PyTorch: a maximum is one of
its inputs, not a blend of them. A NaN counts as largest. Derivation: docs/ops/pooling.md
"""

from __future__ import annotations

from typing import Any, NamedTuple

from npattn.backend import Array, device
from npattn.checks import floating, same_shape, shaped
from npattn.layer import Layer


class MeanCache(NamedTuple):
    shape: tuple[int, int, int, int]  # of x: a mean needs to remember nothing else


class MaxCache(NamedTuple):
    i: Array  # where the first maximum is; its axis kept, with length 1
    shape: tuple[int, ...]  # of x


def some_pixels(x: Array) -> tuple[int, int, int, int]:
    """The shape (N, C, H, W) of x, after checking that there is something to pool."""
    N, C, H, W = shaped("x", x, "N C H W")
    if 0 in (C, H, W):
        raise ValueError(f"x: expected C, H and W of at least 1, got {(N, C, H, W)}: there is nothing to pool")
    return N, C, H, W


def first_max(x: Array, axis: int) -> tuple[Array, Array]:
    """The first maximum along `axis` and its index, the axis kept with length 1."""
    xp = floating(x=x)
    i = xp.argmax(x, axis=axis, keepdims=True)
    return xp.take_along_axis(x, i, axis=axis), i


def route(dy: Array, i: Array, size: int, axis: int) -> Array:
    """An array of `size` along `axis`: dy at index i, 0 elsewhere. dy and i have length 1 there."""
    xp = floating(dy=dy)
    index_shape = [1] * dy.ndim
    index_shape[axis] = size
    winner = xp.reshape(xp.arange(size, device=device(dy)), tuple(index_shape)) == i
    return xp.where(winner, dy, xp.zeros_like(dy))


def global_avg_pool_forward(x: Array) -> tuple[Array, MeanCache]:
    """Global average pooling: (N, C, H, W) to (N, C). The squeeze of SE.

    Raises TypeError or ValueError if x is no float array of 4 axes with at least one pixel.
    Source: Hu et al. 2018, eq. 2.
    """
    xp = floating(x=x)
    shape = some_pixels(x)
    y = xp.mean(x, axis=(2, 3))  # GAP.1
    return y, MeanCache(shape)


def global_avg_pool_backward(dy: Array, cache: MeanCache) -> Array:
    """Return dx (N, C, H, W). Raises TypeError or ValueError if dy (N, C) does not match y."""
    xp = floating(dy=dy)
    N, C, H, W = cache.shape
    same_shape("dy", dy, (N, C), "the output y")

    # GAP.1 gave each of the P pixels the share 1/P in y: each receives that share of dy
    share = dy[:, :, None, None] / (H * W)
    dx = share * xp.ones(cache.shape, dtype=dy.dtype, device=device(dy))  # GAP.1
    return dx


def global_max_pool_forward(x: Array) -> tuple[Array, MaxCache]:
    """Global max pooling: (N, C, H, W) to (N, C).

    Raises TypeError or ValueError if x is no float array of 4 axes with at least one pixel.
    Source: Woo et al. 2018, section 3.1.
    """
    xp = floating(x=x)
    N, C, H, W = some_pixels(x)
    y, i = first_max(xp.reshape(x, (N, C, H * W)), axis=2)  # GMP.1, GMP.2
    return y[:, :, 0], MaxCache(i, (N, C, H, W))


def global_max_pool_backward(dy: Array, cache: MaxCache) -> Array:
    """Return dx (N, C, H, W), dy at the first maximum and 0 elsewhere.

    Raises TypeError or ValueError if dy (N, C) does not match y.
    """
    xp = floating(dy=dy)
    N, C, H, W = cache.shape
    same_shape("dy", dy, (N, C), "the output y")

    # GMP.2 read one pixel: that pixel receives dy. GMP.1 chose it; a choice has no slope
    dx = route(dy[:, :, None], cache.i, size=H * W, axis=2)  # GMP.2, GMP.1
    return xp.reshape(dx, cache.shape)


def channel_mean_forward(x: Array) -> tuple[Array, MeanCache]:
    """Mean over the channels: (N, C, H, W) to (N, 1, H, W).

    Raises TypeError or ValueError if x is no float array of 4 axes with at least one channel.
    Source: Woo et al. 2018, section 3.2.
    """
    xp = floating(x=x)
    shape = some_pixels(x)
    y = xp.mean(x, axis=1, keepdims=True)  # CMEAN.1
    return y, MeanCache(shape)


def channel_mean_backward(dy: Array, cache: MeanCache) -> Array:
    """Return dx (N, C, H, W). Raises TypeError or ValueError if dy (N, 1, H, W) does not match y."""
    xp = floating(dy=dy)
    N, C, H, W = cache.shape
    same_shape("dy", dy, (N, 1, H, W), "the output y")

    # CMEAN.1 gave each of the C channels the share 1/C in y: each receives that share of dy
    dx = dy / C * xp.ones(cache.shape, dtype=dy.dtype, device=device(dy))  # CMEAN.1
    return dx


def channel_max_forward(x: Array) -> tuple[Array, MaxCache]:
    """Maximum over the channels: (N, C, H, W) to (N, 1, H, W).

    Raises TypeError or ValueError if x is no float array of 4 axes with at least one channel.
    Source: Woo et al. 2018, section 3.2.
    """
    floating(x=x)
    shape = some_pixels(x)
    y, i = first_max(x, axis=1)  # CMAX.1, CMAX.2
    return y, MaxCache(i, shape)


def channel_max_backward(dy: Array, cache: MaxCache) -> Array:
    """Return dx (N, C, H, W), dy at the first maximum and 0 elsewhere.

    Raises TypeError or ValueError if dy (N, 1, H, W) does not match y.
    """
    floating(dy=dy)
    N, C, H, W = cache.shape
    same_shape("dy", dy, (N, 1, H, W), "the output y")

    # CMAX.2 read one channel at each pixel: that channel receives dy. CMAX.1 chose it; a choice has no slope
    dx = route(dy, cache.i, size=C, axis=1)  # CMAX.2, CMAX.1
    return dx


def windows(x: Array) -> Array:
    """The four pixels of each 2×2 window, in reading order along a new last axis: (N, C, H//2, W//2, 4)."""
    xp = floating(x=x)
    N, C, H, W = shaped("x", x, "N C H W")
    if H < 2 or W < 2:
        raise ValueError(f"x: expected H and W of at least 2 for a 2×2 window, got {(N, C, H, W)}")
    h, v = H // 2 * 2, W // 2 * 2  # an odd last row or column belongs to no window
    return xp.stack([x[:, :, i:h:2, j:v:2] for i in (0, 1) for j in (0, 1)], axis=4)


def unwindows(du: Array, shape: tuple[int, ...]) -> Array:
    """Put the gradients of the windows' pixels back into an image of `shape`; what belongs to no window gets 0."""
    xp = floating(du=du)
    h, v = shape[2] // 2 * 2, shape[3] // 2 * 2
    dx = xp.zeros(shape, dtype=du.dtype, device=device(du))
    for n, (i, j) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        dx[:, :, i:h:2, j:v:2] = du[..., n]
    return dx


def avg_pool_2x2_forward(x: Array) -> tuple[Array, MeanCache]:
    """Average over 2×2 windows, stride 2: (N, C, H, W) to (N, C, H//2, W//2).

    Raises TypeError or ValueError if x is no float array of 4 axes with H and W of at least 2.
    """
    xp = floating(x=x)
    u = windows(x)  # WIN.1
    y = xp.mean(u, axis=4)  # AVG2.1
    return y, MeanCache(tuple(x.shape))


def avg_pool_2x2_backward(dy: Array, cache: MeanCache) -> Array:
    """Return dx (N, C, H, W). Raises TypeError or ValueError if dy (N, C, H//2, W//2) does not match y."""
    xp = floating(dy=dy)
    N, C, H, W = cache.shape
    same_shape("dy", dy, (N, C, H // 2, W // 2), "the output y")

    # AVG2.1 gave each of four pixels a quarter share in y
    du = xp.stack([dy / 4] * 4, axis=4)  # AVG2.1
    # WIN.1 only moved pixels: their gradients move back
    dx = unwindows(du, cache.shape)  # WIN.1
    return dx


def max_pool_2x2_forward(x: Array) -> tuple[Array, MaxCache]:
    """Maximum over 2×2 windows, stride 2: (N, C, H, W) to (N, C, H//2, W//2).

    Raises TypeError or ValueError if x is no float array of 4 axes with H and W of at least 2.
    """
    u = windows(x)  # WIN.1
    y, i = first_max(u, axis=4)  # MAX2.1, MAX2.2
    return y[..., 0], MaxCache(i, tuple(x.shape))


def max_pool_2x2_backward(dy: Array, cache: MaxCache) -> Array:
    """Return dx (N, C, H, W). Raises TypeError or ValueError if dy (N, C, H//2, W//2) does not match y."""
    floating(dy=dy)
    N, C, H, W = cache.shape
    same_shape("dy", dy, (N, C, H // 2, W // 2), "the output y")

    # MAX2.2 read one of four pixels: that one receives dy. MAX2.1 chose it; a choice has no slope
    du = route(dy[..., None], cache.i, size=4, axis=4)  # MAX2.2, MAX2.1
    # WIN.1 only moved pixels: their gradients move back
    dx = unwindows(du, cache.shape)  # WIN.1
    return dx


class GlobalAvgPool(Layer):
    """Global average pooling as a layer: (N, C, H, W) to (N, C)."""

    input_axes = "N C H W"
    room = "ops.pooling"

    def run(self, x: Array) -> tuple[Array, Any]:
        y, cache = self.pair.global_avg_pool_forward(x)
        return y, cache

    def undo(self, dy: Array, cache: Any) -> tuple[Array, dict[str, Array]]:
        return self.pair.global_avg_pool_backward(dy, cache), {}


class GlobalMaxPool(Layer):
    """Global max pooling as a layer: (N, C, H, W) to (N, C). The first maximum gets the gradient."""

    input_axes = "N C H W"

    def run(self, x: Array) -> tuple[Array, MaxCache]:
        return global_max_pool_forward(x)

    def undo(self, dy: Array, cache: MaxCache) -> tuple[Array, dict[str, Array]]:
        return global_max_pool_backward(dy, cache), {}


class AvgPool2x2(Layer):
    """Average over 2×2 windows as a layer: (N, C, H, W) to (N, C, H//2, W//2)."""

    input_axes = "N C H W"

    def run(self, x: Array) -> tuple[Array, MeanCache]:
        return avg_pool_2x2_forward(x)

    def undo(self, dy: Array, cache: MeanCache) -> tuple[Array, dict[str, Array]]:
        return avg_pool_2x2_backward(dy, cache), {}


class MaxPool2x2(Layer):
    """Maximum over 2×2 windows as a layer: (N, C, H, W) to (N, C, H//2, W//2). The first maximum gets the gradient."""

    input_axes = "N C H W"
    room = "ops.pooling"

    def run(self, x: Array) -> tuple[Array, Any]:
        y, cache = self.pair.max_pool_2x2_forward(x)
        return y, cache

    def undo(self, dy: Array, cache: Any) -> tuple[Array, dict[str, Array]]:
        return self.pair.max_pool_2x2_backward(dy, cache), {}
