"""More ways to make one number of many: the root of the sum of squares, the log of the sum of exponentials, even ties.

    x (N, C, H, W)   sums and counts over the H·W pixels of a channel, or for CEVEN over the C channels of a pixel

    LP.1     q = Σ_pixels x²                                  (N, C)
    LP.2     y = √q                                           (N, C)         a length: not divided by H·W
    LSE.1    m = maximum over the pixels of x                 (N, C)         so that no exponential overflows
    LSE.2    e = exp(x − m)                                   (N, C, H, W)   in [0, 1], with a 1 in every channel
    LSE.3    y = m + log Σ_pixels e                           (N, C)         not divided by H·W
    GEVEN.1  y = maximum over the pixels of x                 (N, C)
    GEVEN.2  b = 1 where x is y, else 0                       (N, C, H, W)   for the way back
    CEVEN.1  y = maximum over the channels of x               (N, 1, H, W)
    CEVEN.2  b = 1 where x is y, else 0                       (N, C, H, W)

The even maxima give what `npattn.ops.pooling` gives; only backward do they differ, and only on ties, as PyTorch's amax
differs from its max(dim). Derivation: docs/variants.md
"""

from __future__ import annotations

from typing import NamedTuple

from npattn.backend import Array
from npattn.checks import floating, same_shape
from npattn.ops.pooling import some_pixels


class LpCache(NamedTuple):
    x: Array  # (N, C, H, W)
    y: Array  # (N, C)


class LseCache(NamedTuple):
    e: Array  # (N, C, H, W)
    total: Array  # (N, C)


class EvenCache(NamedTuple):
    b: Array  # bool, (N, C, H, W): the winners


def lp_pool_forward(x: Array) -> tuple[Array, LpCache]:
    """Global power-2 pooling, the length of a channel: (N, C, H, W) to (N, C).

    |x| must stay below the root of the largest number, 1e19 in float32 and 1e154 in float64, or q is infinite.
    Raises TypeError or ValueError if x is no float array of 4 axes with at least one pixel.
    Source: PyTorch's lp_pool2d with norm_type 2 over the whole map, as CBAM's authors use it.
    """
    xp = floating(x=x)
    some_pixels(x)
    q = xp.sum(x * x, axis=(2, 3))  # LP.1
    y = xp.sqrt(q)  # LP.2
    return y, LpCache(x, y + 0)  # y is the caller's; the cache keeps one of its own


def lp_pool_backward(dy: Array, cache: LpCache) -> Array:
    """Return dx (N, C, H, W), 0 where a channel is all zero. Raises TypeError or ValueError if dy does not match y."""
    x, y = cache
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, tuple(y.shape), "the output y")

    # LP.2 was y = √q, with the slope 1/(2y). A root has none at 0: there, as PyTorch does, we take 0
    nothing = y == 0
    half = xp.where(nothing, xp.zeros_like(dy), dy / xp.where(nothing, xp.ones_like(y), y))
    dq = half / 2  # LP.2
    # LP.1 was a sum of squares, each with the slope 2x
    dx = 2 * x * dq[:, :, None, None]  # LP.1
    return dx


def lse_pool_forward(x: Array) -> tuple[Array, LseCache]:
    """Global log-sum-exp pooling: (N, C, H, W) to (N, C). At least the maximum, at most log(H·W) above it.

    Raises TypeError or ValueError if x is no float array of 4 axes with at least one pixel.
    Source: the sum is not divided by H·W, as CBAM's authors have it.
    """
    xp = floating(x=x)
    some_pixels(x)
    m = xp.max(x, axis=(2, 3), keepdims=True)  # LSE.1
    e = xp.exp(x - m)  # LSE.2
    total = xp.sum(e, axis=(2, 3))
    y = m[:, :, 0, 0] + xp.log(total)  # LSE.3
    return y, LseCache(e, total)


def lse_pool_backward(dy: Array, cache: LseCache) -> Array:
    """Return dx (N, C, H, W): dy shared out by a softmax. Raises TypeError or ValueError if dy does not match y."""
    e, total = cache
    floating(dy=dy, e=e)
    same_shape("dy", dy, tuple(total.shape), "the output y")

    # LSE.3 was y = m + log Σ e: each e has the slope 1/Σe
    de = (dy / total)[:, :, None, None]  # LSE.3
    # LSE.2 was an exponential, its own slope: what x receives is dy times its share e/Σe in the sum
    dx = de * e  # LSE.2
    # LSE.1: m takes from every exponent what it adds outside. y does not depend on it, and nothing comes back
    return dx  # LSE.1


def share(dy: Array, b: Array, axis: int | tuple[int, ...]) -> Array:
    """dy, divided evenly among the winners b along `axis`, 0 elsewhere. dy has length 1 there."""
    xp = floating(dy=dy)
    count = xp.sum(xp.astype(b, dy.dtype), axis=axis, keepdims=True)
    return xp.where(b, dy / count, xp.zeros_like(dy))


def winners(x: Array, y: Array) -> Array:
    """Where x is its maximum y. A NaN counts as largest."""
    return (x == y) | (x != x)


def global_even_max_forward(x: Array) -> tuple[Array, EvenCache]:
    """Global max pooling with even ties: (N, C, H, W) to (N, C).

    Raises TypeError or ValueError if x is no float array of 4 axes with at least one pixel.
    """
    xp = floating(x=x)
    some_pixels(x)
    y = xp.max(x, axis=(2, 3), keepdims=True)  # GEVEN.1
    b = winners(x, y)  # GEVEN.2
    return y[:, :, 0, 0], EvenCache(b)


def global_even_max_backward(dy: Array, cache: EvenCache) -> Array:
    """Return dx (N, C, H, W): dy divided by the number of maxima, at each of them.

    Raises TypeError or ValueError if dy (N, C) does not match y.
    """
    floating(dy=dy)
    same_shape("dy", dy, tuple(cache.b.shape[:2]), "the output y")

    # GEVEN.2 found all maxima. GEVEN.1 could have read any of them: each receives the same part of dy
    dx = share(dy[:, :, None, None], cache.b, axis=(2, 3))  # GEVEN.2, GEVEN.1
    return dx


def channel_even_max_forward(x: Array) -> tuple[Array, EvenCache]:
    """Maximum over the channels with even ties: (N, C, H, W) to (N, 1, H, W).

    Raises TypeError or ValueError if x is no float array of 4 axes with at least one channel.
    """
    xp = floating(x=x)
    some_pixels(x)
    y = xp.max(x, axis=1, keepdims=True)  # CEVEN.1
    b = winners(x, y)  # CEVEN.2
    return y, EvenCache(b)


def channel_even_max_backward(dy: Array, cache: EvenCache) -> Array:
    """Return dx (N, C, H, W): dy divided by the number of maxima, at each of them.

    Raises TypeError or ValueError if dy (N, 1, H, W) does not match y.
    """
    floating(dy=dy)
    N, _, H, W = cache.b.shape
    same_shape("dy", dy, (N, 1, H, W), "the output y")

    # CEVEN.2 found all maxima. CEVEN.1 could have read any of them: each receives the same part of dy
    dx = share(dy, cache.b, axis=1)  # CEVEN.2, CEVEN.1
    return dx
