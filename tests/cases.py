"""One line for each pair of the library, so that a test can be written once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from npattn.attention import cbam, channel, gate, se, spatial
from npattn.ops import activation, batch_norm, conv2d, linear, loss, pooling

Tree = Any  # an array, None, or a (named) tuple of trees


@dataclass(frozen=True)
class Case:
    """A pair, and how its inputs are drawn: O(1) float64 numbers for a size (N, C, H, W), a ratio and a kernel size."""

    name: str
    forward: Callable[..., tuple[Any, Any]]
    backward: Callable[[Any, Any], Any]
    draw: Callable[[np.random.Generator, tuple[int, int, int, int], int, int], tuple[Tree, ...]]
    smallest: int = 1  # least H and W

    def gradients(self, dy: Any, cache: Any) -> tuple[Tree, ...]:
        """The backward's answer as a tuple."""
        answer = self.backward(dy, cache)
        return answer if isinstance(answer, tuple) else (answer,)

    def __repr__(self) -> str:
        return self.name


def leaves(tree: Tree, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every array in the tree with its path."""
    if isinstance(tree, tuple):
        names = getattr(tree, "_fields", range(len(tree)))
        for key, part in zip(names, tree, strict=True):
            yield from leaves(part, f"{name}.{key}" if name else str(key))
    elif tree is not None:
        yield name, tree


def mapped(function: Callable[[Any], Any], tree: Tree) -> Tree:
    """The tree with the function applied to every array."""
    if isinstance(tree, tuple):
        parts = [mapped(function, part) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return None if tree is None else function(tree)


def arrays_of(cache: Any) -> list[tuple[str, Any]]:
    """The arrays in a cache, which holds shapes and flags too."""
    return [(name, leaf) for name, leaf in leaves(cache) if hasattr(leaf, "dtype")]


def image(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(size)


def hidden(C: int, ratio: int) -> int:
    return C // min(ratio, C)


def draw_x(rng, size, ratio, k):
    return (image(rng, size),)


def draw_linear(rng, size, ratio, k, bias=True):
    K, M = size[-1], ratio + 1
    return image(rng, size), linear.Params(rng.standard_normal((M, K)), rng.standard_normal(M) if bias else None)


def draw_conv2d(rng, size, ratio, k, bias=True):
    C, M = size[1], ratio
    return image(rng, size), conv2d.Params(rng.standard_normal((M, C, k, k)), rng.standard_normal(M) if bias else None)


def draw_batch_norm(rng, size, ratio, k):
    if size[0] * size[2] * size[3] < 3:  # two numbers are always at ±1: their x̂ has no slope to check
        size = (3, *size[1:])
    C = size[1]
    return image(rng, size), batch_norm.Params(rng.standard_normal(C), rng.standard_normal(C))


def draw_batch_norm_eval(rng, size, ratio, k):
    C = size[1]
    running = batch_norm.Running(rng.standard_normal(C), rng.uniform(0.5, 2, C))
    params = batch_norm.Params(rng.standard_normal(C), rng.standard_normal(C))
    return image(rng, size), params, running


def draw_channel(rng, size, ratio, k):
    C = size[1]
    R = hidden(C, ratio)
    return image(rng, size), channel.Params(rng.standard_normal((R, C)), rng.standard_normal((C, R)))


def draw_se(rng, size, ratio, k):
    x, params = draw_channel(rng, size, ratio, k)
    return x, se.Params(*params)


def draw_spatial(rng, size, ratio, k):
    return image(rng, size), spatial.Params(rng.standard_normal((1, 2, k, k)))


def draw_cbam(rng, size, ratio, k):
    x, ca = draw_channel(rng, size, ratio, k)
    return x, cbam.Params(ca, draw_spatial(rng, size, ratio, k)[1])


def draw_loss(rng, size, ratio, k):
    N, K = size[0], size[1] * size[2]
    return 3 * rng.standard_normal((N, K)), rng.integers(0, K, N)


OPS = [
    Case("relu", activation.relu_forward, activation.relu_backward, draw_x),
    Case("sigmoid", activation.sigmoid_forward, activation.sigmoid_backward, draw_x),
    Case("linear", linear.forward, linear.backward, draw_linear),
    Case("linear without bias", linear.forward, linear.backward, lambda *a: draw_linear(*a, bias=False)),
    Case("conv2d", conv2d.forward, conv2d.backward, draw_conv2d),
    Case("conv2d without bias", conv2d.forward, conv2d.backward, lambda *a: draw_conv2d(*a, bias=False)),
    Case("global average pool", pooling.global_avg_pool_forward, pooling.global_avg_pool_backward, draw_x),
    Case("global max pool", pooling.global_max_pool_forward, pooling.global_max_pool_backward, draw_x),
    Case("channel mean", pooling.channel_mean_forward, pooling.channel_mean_backward, draw_x),
    Case("channel max", pooling.channel_max_forward, pooling.channel_max_backward, draw_x),
    Case("2×2 average pool", pooling.avg_pool_2x2_forward, pooling.avg_pool_2x2_backward, draw_x, smallest=2),
    Case("2×2 max pool", pooling.max_pool_2x2_forward, pooling.max_pool_2x2_backward, draw_x, smallest=2),
    Case("batch norm, train", batch_norm.train_forward, batch_norm.train_backward, draw_batch_norm),
    Case("batch norm, eval", batch_norm.eval_forward, batch_norm.eval_backward, draw_batch_norm_eval),
    Case("cross-entropy", loss.forward, loss.backward, draw_loss),
    Case(
        "gate",
        gate.forward,
        gate.backward,
        lambda rng, size, ratio, k: (image(rng, size), image(rng, (*size[:2], 1, 1))),
    ),
]

BLOCKS = [
    Case("SE", se.forward, se.backward, draw_se),
    Case("channel attention", channel.forward, channel.backward, draw_channel),
    Case("spatial attention", spatial.forward, spatial.backward, draw_spatial),
    Case("CBAM", cbam.forward, cbam.backward, draw_cbam),
]

CASES = OPS + BLOCKS
