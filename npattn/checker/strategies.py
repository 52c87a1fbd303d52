"""Hypothesis strategies for gradient checks: shapes, inputs with kinks and ties, weights of every size.

Hypothesis is needed here and nowhere else: `pip install hypothesis`. ::

    @given(images(ties=True))
    def test_my_layer(x):
        npattn.gradcheck.assert_right(MyLayer(x.shape[1]), x)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

Shape = tuple[int, ...]


def shapes(axes: str = "NCHW", most: int = 5, least: int = 1, entries: int = 200) -> st.SearchStrategy[Shape]:
    """Shapes with one length a letter, lengths of 1 among them.

    Parameters
    ----------
    axes
        A letter for each axis.
    most, least
        Bounds of each length.
    entries
        How many numbers an array of that shape has at most: a check of all entries takes its time.
    """
    lengths = st.tuples(*[st.integers(least, most) for _ in axes])
    return lengths.filter(lambda shape: int(np.prod(shape)) <= entries)


def arrays(shape: Shape | st.SearchStrategy[Shape], scale: float | None = None) -> st.SearchStrategy[np.ndarray]:
    """Normal numbers in float64 with no two alike, from a seed: nothing is at a kink.

    Parameters
    ----------
    shape
        The shape, or a strategy for it.
    scale
        Their standard deviation; drawn between 1e-3 and 1e2 if None.
    """
    scales = st.sampled_from([1.0, 1e-3, 1e-2, 10.0, 1e2]) if scale is None else st.just(scale)
    return st.builds(_normal, _shape(shape), st.integers(0, 2**32 - 1), scales)


def ties(shape: Shape | st.SearchStrategy[Shape], kinds: int = 3) -> st.SearchStrategy[np.ndarray]:
    """Small whole numbers, so that maxima are tied: `kinds` different ones from 0 up, or all alike."""
    return _shape(shape).flatmap(
        lambda known: st.one_of(
            hnp.arrays(np.float64, known, elements=st.integers(0, kinds - 1).map(float)),
            st.integers(0, kinds - 1).map(lambda number: np.full(known, float(number))),
        )
    )


def kinks(shape: Shape | st.SearchStrategy[Shape], at: float = 0.0) -> st.SearchStrategy[np.ndarray]:
    """Numbers of which some are exactly at `at`, where a ReLU has its kink, and some close beside it."""
    beside = st.sampled_from([0.0, 0.0, 1e-8, -1e-8, 1e-4, -1e-4, 0.25, -0.25, 1.5, -1.5])
    return _shape(shape).flatmap(lambda known: hnp.arrays(np.float64, known, elements=beside.map(lambda t: at + t)))


def images(
    axes: str = "NCHW", most: int = 5, *, with_ties: bool = False, with_kinks: bool = False
) -> st.SearchStrategy[np.ndarray]:
    """Inputs for a layer: of any shape with these axes, normal, and where asked for tied or at kinks too."""
    shape = st.shared(shapes(axes, most), key=f"shape of {axes} up to {most}")
    kinds: list[Any] = [arrays(shape)]
    if with_ties:
        kinds.append(ties(shape))
    if with_kinks:
        kinds.append(kinks(shape))
    return st.one_of(kinds)


def labels(count: int, classes: int) -> st.SearchStrategy[np.ndarray]:
    """Class labels: whole numbers, which have no gradient."""
    return hnp.arrays(np.int64, (count,), elements=st.integers(0, classes - 1))


def _shape(shape: Shape | st.SearchStrategy[Shape]) -> st.SearchStrategy[Shape]:
    return shape if isinstance(shape, st.SearchStrategy) else st.just(shape)


def _normal(shape: Shape, seed: int, scale: float) -> np.ndarray:
    return np.asarray(scale * np.random.default_rng(seed).standard_normal(shape))
