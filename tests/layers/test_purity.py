"""Nothing is mutated, nothing is shared, and a backward can be run again."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from tests.support.cases import CASES, Case
from tests.support.trees import arrays_of, leaves, mapped


@pytest.fixture(params=CASES, ids=repr)
def run(request):
    """A case with its inputs, forward done, and a cotangent."""
    case: Case = request.param
    rng = np.random.default_rng(9)
    inputs = case.draw(rng, (3, 4, 3, 5), 2, 3)
    y, cache = case.forward(*inputs)
    return case, inputs, np.asarray(y), cache, np.asarray(rng.standard_normal(np.shape(y)))


def same(one, other) -> bool:
    """Whether two trees hold the same arrays, bit for bit."""
    pairs = zip(leaves(one), leaves(other), strict=True)
    return all(a == b and np.array_equal(x, y, equal_nan=True) for (a, x), (b, y) in pairs)


def test_inputs_and_cache_stay_as_they_were(run):
    case, inputs, _, cache, dy = run
    inputs_before, cache_before, dy_before = copy.deepcopy(inputs), copy.deepcopy(cache), dy.copy()
    case.forward(*inputs)
    case.backward(dy, cache)
    assert same(inputs, inputs_before)
    assert same(cache, cache_before)
    assert np.array_equal(dy, dy_before)


def test_nothing_is_written_into(run):
    """The same with every array read-only: writing into one would raise."""
    case, inputs, _, _, dy = run
    frozen = mapped(np.array, inputs)
    for _, array in leaves(frozen):
        array.setflags(write=False)
    _, cache = case.forward(*frozen)
    for _, array in arrays_of(cache):
        if isinstance(array, np.ndarray):
            array.setflags(write=False)
    dy.setflags(write=False)
    case.backward(dy, cache)


def test_outputs_share_no_memory(run):
    case, inputs, y, cache, dy = run
    gradients = list(leaves(case.gradients(dy, cache)))
    outputs = [("y", y), *gradients]
    others = [(f"input {name}", array) for name, array in leaves(inputs)] + [("dy", dy), *arrays_of(cache)]
    for i, (name, output) in enumerate(outputs):
        for other_name, other in others + outputs[:i]:
            if isinstance(other, np.ndarray):
                assert not np.shares_memory(output, other), f"{name} and {other_name}"


def test_outputs_can_be_written_into(run):
    """No output is a read-only broadcast, or one number seen from several places."""
    case, _, y, cache, dy = run
    for name, output in [("y", y), *leaves(case.gradients(dy, cache))]:
        assert output.flags.writeable, name
        assert 0 not in output.strides or 1 in output.shape or output.size < 2, name


def test_backward_twice_gives_the_same(run):
    case, _, y, cache, dy = run
    first = mapped(np.array, case.gradients(dy, cache))
    y[...] = np.nan  # y is the caller's: what happens to it must not reach the cache
    assert same(first, case.gradients(dy, cache))


def test_forwards_may_be_interleaved(run):
    case, inputs, _, cache, dy = run
    wanted = case.gradients(dy, cache)
    rng = np.random.default_rng(10)
    _, other = case.forward(*case.draw(rng, (2, 4, 4, 3), 2, 3))
    _, again = case.forward(*inputs)
    case.forward(*case.draw(rng, (3, 4, 3, 5), 2, 3))
    assert same(wanted, case.gradients(dy, again))
    assert other is not again


def test_backward_is_linear_in_dy(run):
    case, _, _, cache, dy = run
    rng = np.random.default_rng(12)
    other = np.asarray(rng.standard_normal(dy.shape))
    together = case.gradients(np.asarray(2 * dy - 3 * other), cache)
    for (name, t), (_, a), (_, b) in zip(
        leaves(together), leaves(case.gradients(dy, cache)), leaves(case.gradients(other, cache)), strict=True
    ):
        np.testing.assert_allclose(t, 2 * a - 3 * b, rtol=1e-9, atol=1e-10, err_msg=name)
