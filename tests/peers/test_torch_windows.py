"""Pools over windows and resizing beside PyTorch's: many windows, ties, and every size up to 60."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from npattn.ops import resize, window_avg_pool, window_max_pool
from tests.support.numerical import distance

torch = pytest.importorskip("torch", reason="torch is not installed")
F = torch.nn.functional

GIVEN = [
    (window, stride, padding)
    for window, stride in itertools.product([(1, 1), (2, 3), (3, 3), (5, 2)], [(1, 1), (2, 2), (3, 1)])
    for padding in {(0, 0), (window[0] // 2, window[1] // 2), (0, window[1] // 2)}
]


def compared(pair, there, x, *given):
    y, cache = pair.forward(x, *given)
    x_there = torch.tensor(x, requires_grad=True)
    y_there = there(x_there)
    dy = np.random.default_rng(1).standard_normal(y.shape)
    y_there.backward(torch.tensor(dy))
    assert distance(y, y_there.detach().numpy()) < 1e-13, given
    assert distance(pair.backward(dy, cache), x_there.grad.numpy()) < 1e-13, given


@pytest.mark.parametrize("ties", [False, True], ids=["dense", "ties"])
@pytest.mark.parametrize("shape", [(2, 3, 6, 5), (1, 2, 5, 9)], ids=str)
def test_pools(shape: tuple[int, ...], ties: bool):
    x = np.random.default_rng(2).standard_normal(shape)
    if ties:
        x = np.maximum(np.round(2 * x) / 2, 0)
    for window, stride, padding in GIVEN:
        compared(window_max_pool, lambda t: F.max_pool2d(t, window, stride, padding), x, window, stride, padding)  # noqa: B023
        for counted in (True, False):
            compared(
                window_avg_pool,
                lambda t: F.avg_pool2d(t, window, stride, padding, count_include_pad=counted),  # noqa: B023
                x, window, stride, padding, counted,
            )  # fmt: skip


def test_a_window_of_nothing_but_minus_infinity():
    x = np.full((1, 1, 3, 3), -np.inf)
    x_there = torch.tensor(x, requires_grad=True)
    y_there = F.max_pool2d(x_there, 3, 2, 1)
    y_there.backward(torch.ones_like(y_there))
    y, cache = window_max_pool.forward(x, 3, 2, 1)
    np.testing.assert_array_equal(window_max_pool.backward(np.ones_like(y), cache), x_there.grad.numpy())


def test_every_size_is_resized_as_there():
    for old, new in itertools.product(range(1, 61), range(1, 61)):
        x = torch.arange(old, dtype=torch.float64).reshape(1, 1, old, 1)
        wanted = F.interpolate(x, size=(new, 1))[0, 0, :, 0].numpy()
        np.testing.assert_array_equal(resize.forward(x.numpy(), (new, 1))[0][0, 0, :, 0], wanted, f"{old} made {new}")


@pytest.mark.parametrize("size", [(8, 6), (3, 7), (12, 12), (2, 1), (46, 5)], ids=str)
def test_resizing(size: tuple[int, int]):
    x = np.random.default_rng(3).standard_normal((2, 3, 4, 6))
    compared(resize, lambda t: F.interpolate(t, size=size), x, size)
