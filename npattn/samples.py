"""Numbers to try a pair with: random ones for checks, round ones for a page. What they are for, axes in letters say.

An op's `examples(draw)` and a block's declaration ask for arrays by their axes, "N C H W"; the draw knows how long each
axis is. So one line in an op's file serves the gradient checks, the tests and the worked examples of the docs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from npattn.packing import lengths


class Draw(Protocol):
    """What an op's `examples` can ask for."""

    def x(self, axes: str = "N C H W") -> np.ndarray:
        """An input of both signs."""
        ...

    def w(self, axes: str) -> np.ndarray:
        """Weights of both signs, none of them near 0 by much."""
        ...

    def positive(self, axes: str) -> np.ndarray:
        """Numbers above 0: variances."""
        ...

    def classes(self, axes: str, below: str) -> np.ndarray:
        """Whole numbers from 0 to that axis' length less 1."""
        ...


class Sized:
    """A draw's lengths of axes, by letter. "..." stands for one or several leading axes."""

    def __init__(self, rng: np.random.Generator, sizes: Mapping[str, int], leading: tuple[int, ...] = ()) -> None:
        self.rng, self.sizes, self.leading = rng, dict(sizes), leading

    def shape(self, axes: str) -> tuple[int, ...]:
        """The shape that the axes stand for."""
        _, dots, tail = axes.rpartition("...")
        return (self.leading if dots else ()) + lengths(tail if dots else axes, self.sizes)


class Random(Sized):
    """Normal numbers of order 1.

    Parameters
    ----------
    rng
        Where they come from.
    size
        (N, C, H, W).
    ratio
        R = C // ratio, but at least 1.
    k
        The kernel size.
    scale
        Of the weights.
    """

    def __init__(
        self, rng: np.random.Generator, size: tuple[int, int, int, int], ratio: int = 2, k: int = 3, scale: float = 1.0
    ) -> None:
        N, C, H, W = size
        R = max(1, C // ratio)
        sizes = {"N": N, "C": C, "H": H, "W": W, "P": H * W, "R": R, "M": R + 1, "k": k, "K": C}
        super().__init__(rng, sizes, (N, C, H))
        self.size, self.ratio, self.k, self.scale = size, ratio, k, scale

    def x(self, axes: str = "N C H W") -> np.ndarray:
        return self.rng.standard_normal(self.shape(axes))

    def w(self, axes: str) -> np.ndarray:
        return self.scale * self.rng.standard_normal(self.shape(axes))

    def positive(self, axes: str) -> np.ndarray:
        return self.rng.uniform(0.5, 2, self.shape(axes))

    def classes(self, axes: str, below: str) -> np.ndarray:
        (count,) = self.shape(below)
        return self.rng.integers(0, count, self.shape(axes))


class Round(Sized):
    """Numbers that the head can multiply by: x in halves, all of them different and none of them 0: no kink, no tie."""

    def x(self, axes: str = "N C H W") -> np.ndarray:
        shape = self.shape(axes)
        count = int(np.prod(shape))
        numbers = np.arange(count) - count // 2
        return self.rng.permutation(np.where(numbers < 0, numbers, numbers + 1) / 2).reshape(shape)

    def w(self, axes: str) -> np.ndarray:
        return self.rng.choice([-2.0, -1.0, -0.5, 0.5, 1.0, 2.0], self.shape(axes))

    def positive(self, axes: str) -> np.ndarray:
        return self.rng.choice([0.5, 1.0, 2.0], self.shape(axes))

    def classes(self, axes: str, below: str) -> np.ndarray:
        (count,) = self.shape(below)
        shape: Any = self.shape(axes)
        return self.rng.permutation(count)[: int(np.prod(shape))].reshape(shape)
