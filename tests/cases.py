"""One line for each pair of the library, so that a test can be written once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from npattn.gradcheck import cases as library
from npattn.gradcheck.cases import Draw
from npattn.ops import conv2d, linear

Tree = Any  # an array, None, or a (named) tuple of trees


class Case(NamedTuple):
    """A pair of the library's own table, and how its inputs are drawn: O(1) float64 numbers."""

    name: str
    forward: Callable[..., tuple[Any, Any]]
    backward: Callable[[Any, Any], Any]
    inputs: Callable[[Draw], tuple[Tree, ...]]
    smallest: int = 1  # least H and W

    def draw(self, rng: np.random.Generator, size: tuple[int, int, int, int], ratio: int, k: int) -> tuple[Tree, ...]:
        """Inputs for x of `size` (N, C, H, W), a hidden width of C // ratio and a k×k kernel."""
        if self.name.endswith("norm, train") and size[0] * size[2] * size[3] < 3:
            size = (3, *size[1:])  # two numbers are always at ±1: their x̂ has no slope to check
        return self.inputs(Draw(rng, size, min(ratio, size[1]), k))

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
    elif tree is not None and not isinstance(tree, str):  # a cache may hold the name of an option
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


OPS = [Case(*case, smallest=2 if case.name.startswith("2×2") else 1) for case in library.OPS] + [
    Case("linear without bias", linear.forward, linear.backward,
         lambda d: (d.x(), linear.Params(d.w(d.R + 1, d.size[3])))),
    Case("conv2d without bias", conv2d.forward, conv2d.backward,
         lambda d: (d.x(), conv2d.Params(d.w(d.R + 1, d.size[1], d.k, d.k)))),
]  # fmt: skip
BLOCKS = [Case(*case) for case in library.BLOCKS]
VARIANTS = [Case(*case) for case in library.VARIANTS]
CASES = OPS + BLOCKS + VARIANTS
