"""Pools over windows, resizing, concatenation and splitting, evaluated index by index as their pages have it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from npattn.ops import (
    avg_pool_2x2,
    concatenate,
    max_pool_2x2,
    resize,
    window_avg_pool,
    window_max_pool,
)
from tests.support.by_index import filled, random, same

SHAPES = [(2, 2, 5, 4), (1, 1, 1, 1), (1, 2, 1, 6), (2, 1, 7, 3)]
WINDOWS = [  # window, stride, padding
    ((3, 3), (2, 2), (1, 1)),
    ((2, 3), (1, 2), (1, 1)),
    ((1, 1), (3, 2), (0, 0)),
    ((5, 2), (2, 1), (2, 1)),
    ((3, 4), (1, 3), (1, 2)),
]


LAYERS = {window_avg_pool: window_avg_pool.WindowAvgPool, window_max_pool: window_max_pool.WindowMaxPool}


def under(x, h, v, window, stride, padding):
    """The pixels (row, column) of the image that window (h, v) sees, in reading order."""
    H, W = x.shape[2:]
    (k_h, k_w), (s_h, s_w), (q_h, q_w) = window, stride, padding
    places = [(s_h * h + i - q_h, s_w * v + j - q_w) for i in range(k_h) for j in range(k_w)]
    return [(e, f) for e, f in places if 0 <= e < H and 0 <= f < W]


def grid(x, window, stride, padding):
    return tuple((n + 2 * q - k) // s + 1 for n, k, s, q in zip(x.shape[2:], window, stride, padding, strict=True))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("window", "stride", "padding"), WINDOWS)
def test_pools_over_windows_index_by_index(shape, window, stride, padding):
    x = np.round(2 * random(*shape, seed=1))  # ties
    given = (window, stride, padding)
    A, B = grid(x, *given)
    dy = random(*shape[:2], A, B, seed=2)

    def backward(of_window):
        dx = np.zeros(shape)
        for n, c, h, v in np.ndindex(dy.shape):
            for (e, f), part in of_window(n, c, h, v):
                dx[n, c, e, f] += part * dy[n, c, h, v]
        return dx

    for counted in (True, False):

        def share(h, v, counted=counted):
            return 1 / (np.prod(window) if counted else len(under(x, h, v, *given)))

        def mean(n, c, h, v, share=share):
            return sum(x[n, c, e, f] for e, f in under(x, h, v, *given)) * share(h, v)

        def shares(n, c, h, v, share=share):
            return [(at, share(h, v)) for at in under(x, h, v, *given)]

        y, cache = window_avg_pool.forward(x, *given, counted)
        same(y, filled(dy.shape, mean), "WAVG.1")
        same(window_avg_pool.backward(dy, cache), backward(shares), "SLIDE.1")

    def first(n, c, h, v):
        return max(under(x, h, v, *given), key=lambda at: x[n, c, *at])  # the first of equal ones, as Python's max

    y, cache = window_max_pool.forward(x, *given)
    same(y, filled(dy.shape, lambda n, c, h, v: x[n, c, *first(n, c, h, v)]), "WMAX.2")
    same(window_max_pool.backward(dy, cache), backward(lambda *at: [(first(*at), 1)]), "WMAX.1")


def test_windows_of_2x2_are_those_of_the_fixed_pools():
    x, dy = np.round(2 * random(2, 3, 5, 7)), random(2, 3, 2, 3)
    for fixed, general in ((max_pool_2x2, window_max_pool), (avg_pool_2x2, window_avg_pool)):
        (y, cache), (y_there, cache_there) = fixed.forward(x), general.forward(x, 2)
        np.testing.assert_array_equal(y, y_there)
        np.testing.assert_array_equal(fixed.backward(dy, cache), general.backward(dy, cache_there))


def test_padding_is_never_a_maximum():
    """Where all of a window is −∞, or NaN, the first pixel of the image in it is taken."""
    for value in (-np.inf, np.nan, -1e300):
        x = np.full((1, 1, 2, 2), value)
        y, cache = window_max_pool.forward(x, 3, 1, 1)
        np.testing.assert_array_equal(y, np.full((1, 1, 2, 2), value))
        np.testing.assert_array_equal(window_max_pool.backward(np.ones_like(y), cache)[0, 0], [[4, 0], [0, 0]])


def test_a_pixel_that_no_window_sees_has_no_gradient():
    x = random(1, 1, 4, 5)
    for pool in (window_avg_pool, window_max_pool):
        y, cache = pool.forward(x, 1, 3)
        dx = pool.backward(np.ones_like(y), cache)
        assert dx.sum() == 4
        assert np.count_nonzero(dx) == 4


@pytest.mark.parametrize("pool", [window_avg_pool, window_max_pool])
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((3, 1, 2), ValueError, "padding: expected at most half the window, which is (3, 3), got (2, 2)"),
        (((3, 5), 1, (1, 3)), ValueError, "padding: expected at most half the window, which is (3, 5), got (1, 3)"),
        (
            (6,),
            ValueError,
            "x: expected at least as many rows and columns as the window spans, 6 × 6, got 5 × 7 with the padding",
        ),
        ((0,), ValueError, "window: expected a whole number of at least 1, got 0"),
        (((2, 2, 2),), ValueError, "window: expected a whole number or two, for rows and columns, got (2, 2, 2)"),
        ((2.5,), TypeError, "window: expected a whole number, got 2.5"),
        (("33",), TypeError, "window: expected a whole number, got '33'"),
        ((2, 0), ValueError, "stride: expected a whole number of at least 1, got 0"),
        ((2, True), TypeError, "stride: expected a whole number, got True"),
        ((2, 1, -1), ValueError, "padding: expected a whole number of at least 0, got -1"),
    ],
)
def test_windows_that_are_refused(pool, given, error, message):
    with pytest.raises(error, match=re.escape(message)):
        pool.forward(random(2, 3, 5, 7), *given)
    if len(given) > 1 or given[0] != 6:
        with pytest.raises(error, match=re.escape(message)):
            LAYERS[pool](*given)


@pytest.mark.parametrize("size", [(7, 3), (2, 5), (5, 4), (1, 1), (10, 8)], ids=str)
def test_resize_index_by_index(size):
    x, dy = random(2, 2, 5, 4), random(2, 2, *size, seed=1)
    (H, W), (A, B) = x.shape[2:], size
    y, cache = resize.forward(x, size)
    same(y, filled(dy.shape, lambda n, c, h, v: x[n, c, h * H // A, v * W // B]), "RESIZE.2")
    same(
        resize.backward(dy, cache),
        filled(x.shape, lambda n, c, e, f: sum(
            dy[n, c, h, v] for h in range(A) for v in range(B) if (h * H // A, v * W // B) == (e, f)
        )),
        "RESIZE.1",
    )  # fmt: skip


def test_where_float32_takes_another_row():
    """As the page says: of 14 rows made 46, row 23 is a copy of row 6 and not of row 7."""
    x = np.arange(14.0).reshape(1, 1, 14, 1)
    y, cache = resize.forward(x, (46, 1))
    assert [h for h in range(46) if y[0, 0, h, 0] != h * 14 // 46] == [23]
    assert y[0, 0, 23, 0] == 6
    assert resize.backward(np.ones_like(y), cache).sum() == 46
    different = {
        (old, new)
        for old in range(1, 131)
        for new in range(1, 131)
        if (np.asarray(resize.sources(old, new, x)) != np.arange(new) * old // new).any()
    }
    assert len(different) == 199
    assert min(max(sizes) for sizes in different if max(sizes) % min(sizes) == 0) == 82


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_concatenation_and_splitting_undo_each_other(axis):
    lengths = (2, 0, 3, 1)
    parts = []
    for number, length in enumerate(lengths):
        shape = [2, 3, 4]
        shape[axis] = length
        parts.append(random(*shape, seed=number))
    y, cache = concatenate.forward(parts, axis)
    along, start = np.moveaxis(y, axis, 0), 0
    for part in parts:
        for k, entries in enumerate(np.moveaxis(part, axis, 0)):
            np.testing.assert_array_equal(along[start + k], entries)
        start += part.shape[axis]
    assert len(along) == start
    back, cut = concatenate.split_forward(y, lengths, axis)
    for found in (back, concatenate.backward(y, cache)):
        for part, wanted in zip(found, parts, strict=True):
            np.testing.assert_array_equal(part, wanted)
            assert not np.shares_memory(part, y)
    np.testing.assert_array_equal(concatenate.split_backward(back, cut), y)


def test_what_cannot_be_laid_side_by_side_or_cut():
    x = random(2, 3, 4)
    for message, kind, parts in (
        ("parts: expected at least one array, got none", ValueError, ()),
        ("parts: expected a sequence of arrays, got ndarray", TypeError, x),
        ("parts[1]: expected shape (2, K, 4), as parts[0] has it, got (2, 5, 3)", ValueError,
         (x, random(2, 5, 3))),
        ("parts[1]: expected dtype float64, the same as parts[0], got float32", TypeError, (x, x.astype("float32"))),
        ("parts[0]: expected shape (..., K), got ()", ValueError, (np.array(1.0),)),
    ):  # fmt: skip
        with pytest.raises(kind, match=re.escape(message)):
            concatenate.forward(parts)
    with pytest.raises(ValueError, match="axis: expected a whole number of at most 2, got 3"):
        concatenate.forward((x,), 3)
    with pytest.raises(ValueError, match=r"lengths: expected a sum of 3, which x has along axis 1, got \(1, 1\)"):
        concatenate.split_forward(x, (1, 1))
    with pytest.raises(ValueError, match=r"dparts\[1\]: expected shape \(2, 2, 4\), that of that piece"):
        concatenate.split_backward((x[:, :1], x), concatenate.split_forward(x, (1, 2))[1])
    with pytest.raises(ValueError, match="dparts: expected a gradient for each of 2 pieces, got 1"):
        concatenate.split_backward((x,), concatenate.split_forward(x, (1, 2))[1])
    with pytest.raises(TypeError, match="lengths: expected 1 whole numbers, got 3"):
        concatenate.split_forward(x, 3)
    with pytest.raises(ValueError, match=r"lengths: expected 1 whole numbers, got \(\)"):
        concatenate.split_forward(x, ())
