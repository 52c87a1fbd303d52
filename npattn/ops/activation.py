"""ReLU and sigmoid: functions of one element, so a gradient is multiplied by the slope at that element.

    x (any shape)

    RELU.1   y = max(x, 0)             slope  1 where x > 0, else 0   (0 at x = 0, by convention)
    SIG.1    e = exp(−|x|)             in (0, 1]: nothing can overflow
    SIG.2    y = 1 / (1 + exp(−x))     slope  y (1 − y)

Derivation: docs/ops/activation.md
"""

from __future__ import annotations

from typing import Any, NamedTuple

from npattn.backend import Array, copied
from npattn.checks import floating, same_shape
from npattn.layer import Layer


class ReluCache(NamedTuple):
    blocked: Array  # bool, the shape of x: where nothing passes


def relu_forward(x: Array) -> tuple[Array, ReluCache]:
    """Rectify: what is positive passes, the rest becomes 0. NaN passes, as in PyTorch.

    Parameters: x, any shape. Returns: y, the shape of x, and the cache.
    Raises TypeError if x is no float array. Source: Nair & Hinton 2010, section 2.
    """
    xp = floating(x=x)
    blocked = x <= 0
    y = xp.where(blocked, xp.zeros_like(x), x)  # RELU.1
    return y, ReluCache(blocked)


def relu_backward(dy: Array, cache: ReluCache) -> Array:
    """Return dx: dy where x was positive, else 0. Raises TypeError or ValueError if dy does not match y."""
    xp = floating(dy=dy)
    same_shape("dy", dy, cache.blocked.shape, "the output y")

    # RELU.1 let through what was positive; where it wrote a 0, x no longer had a say
    dx = xp.where(cache.blocked, xp.zeros_like(dy), dy)  # RELU.1
    return dx


class SigmoidCache(NamedTuple):
    y: Array  # the output itself: the slope needs nothing else


def sigmoid_forward(x: Array) -> tuple[Array, SigmoidCache]:
    """Squash to a gate between 0 and 1. Never overflows, and keeps its digits far out on both sides.

    Parameters: x, any shape. Returns: y in [0, 1], the shape of x, and the cache.
    Raises TypeError if x is no float array. Source: the logistic function; Hu et al. 2018, equation 3.
    """
    xp = floating(x=x)
    negative = x < 0
    e = xp.exp(xp.where(negative, x, -x))  # SIG.1
    y = xp.where(negative, e, xp.ones_like(e)) / (1 + e)  # SIG.2, with both sides multiplied by e where x < 0
    return y, SigmoidCache(copied(y))  # a copy: y belongs to the caller, who may write into it


def sigmoid_backward(dy: Array, cache: SigmoidCache) -> Array:
    """Return dx = dy · y (1 − y). Raises TypeError or ValueError if dy does not match y."""
    y = cache.y
    floating(dy=dy, y=y)
    same_shape("dy", dy, y.shape, "the output y")

    # SIG.2 was y = 1 / (1 + exp(−x)), and dy/dx = exp(−x) / (1 + exp(−x))² = y (1 − y); SIG.1 is inside that slope
    dx = dy * y * (1 - y)  # SIG.2, SIG.1
    return dx


class ReLU(Layer):
    """`relu_forward` and `relu_backward` as a layer. Input and output: any shape."""

    room = "ops.activation"

    def run(self, x: Array) -> tuple[Array, Any]:
        y, cache = self.pair.relu_forward(x)
        return y, cache

    def undo(self, dy: Array, cache: Any) -> tuple[Array, dict[str, Array]]:
        return self.pair.relu_backward(dy, cache), {}


class Sigmoid(Layer):
    """`sigmoid_forward` and `sigmoid_backward` as a layer. Input and output: any shape."""

    def run(self, x: Array) -> tuple[Array, SigmoidCache]:
        return sigmoid_forward(x)

    def undo(self, dy: Array, cache: SigmoidCache) -> tuple[Array, dict[str, Array]]:
        return sigmoid_backward(dy, cache), {}
