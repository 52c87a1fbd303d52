"""Causes that lie in a mean, a variance or a sum over axes: their terms have the same form wherever they are."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from npattn.checker.facts import Facts, same

AXES = ((0, 2, 3), (1, 2, 3), (2, 3), (-2, -1), (-1,), (0,), (1,))
"""What normalisations go over: batch, layer or instance of images; matrices, rows, columns. Most axes first."""


def softmax(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    """y is a softmax of the tensor: rows of positive numbers of sum 1. dx = y · (dy − Σ dy · y)."""
    y, dy = facts.y_whole, facts.dy
    if y is None or dy is None or np.any(y < 0):
        return ""
    for axis in range(y.ndim):
        if y.shape[axis] < 2 or not np.allclose(np.sum(y, axis=axis), 1, rtol=0, atol=1e-9):
            continue
        inner = np.sum(dy * y, axis=axis, keepdims=True)
        if same(a, y * dy):
            return "a softmax without the outer product of its Jacobian: dy · y, and − y · Σ dy · y is missing"
        if same(a, y * (dy + inner)):
            return "a softmax whose outer product has the wrong sign: dx = y · (dy − Σ dy · y)"
        if same(a, dy * y * (1 - y)):
            return "a softmax of whose Jacobian only the diagonal is there: dx = y · (dy − Σ dy · y)"
        if same(a, dy - inner) or same(a, y * (dy - np.sum(dy, axis=axis, keepdims=True))):
            return "a softmax whose Jacobian lacks a factor y: dx = y · (dy − Σ dy · y)"
    return ""


def normalised(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    """What is missing goes with x̂ = (x − mean) / std: the term of the variance."""
    x, missing = facts.value, n - a
    if x is None or not facts.complete or x.ndim < 1:
        return ""
    for shape, over, where in rows_of(x.shape):
        x, missing = x.reshape(shape), missing.reshape(shape)
        centred = x - np.mean(x, axis=over, keepdims=True)
        spread = np.sum(centred**2, axis=over, keepdims=True)
        if not np.all(spread):
            continue
        by = np.sum(missing * centred, axis=over, keepdims=True) / spread
        rest = missing - by * centred
        size = 1e-6 * np.max(np.abs(missing))
        if not np.any(np.abs(by * centred) > size):
            continue
        if np.max(np.abs(rest)) <= size:
            return f"the term of a variance over {where} is missing or wrong: the error goes with x̂"
        if along_x(missing, x, over):
            continue  # with x itself, not with x̂
        level = np.mean(rest, axis=over, keepdims=True)
        if np.max(np.abs(rest - level)) <= size:
            return (
                f"the terms of a mean and a variance over {where} are missing, as if they were constants, or wrong, or "
                "what comes back to the two is; or they are there, and the two are constants"
            )
    return ""


def rows_of(shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], str]]:
    """Which numbers of an array may be normalised together, four or more: its shape for that, its axes, in words."""
    for axes in AXES:
        if axes == (2, 3) and len(shape) == 4:
            N, C, H, W = shape
            for G in range(2, C):
                if C % G == 0 and C // G * H * W >= 4:
                    yield (N, G, C // G, H, W), (2, 3, 4), f"the pixels and channels of each of {G} groups"
        if all(-len(shape) <= axis < len(shape) for axis in axes):
            over = tuple(sorted({axis % len(shape) for axis in axes}))
            if math.prod(shape[axis] for axis in over) >= 4:
                yield shape, over, f"axes {over}"


def along_x(missing: np.ndarray, x: np.ndarray, over: tuple[int, ...]) -> bool:
    """Whether what is missing is x times a number for each group."""
    by = np.sum(missing * x, axis=over, keepdims=True) / np.sum(x * x, axis=over, keepdims=True)
    return bool(np.max(np.abs(missing - by * x)) <= 1e-6 * np.max(np.abs(missing)))


def term(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    if n.size > 2 and np.ptp(n - a) <= 1e-6 * np.max(np.abs(n - a)):
        return "the same number is added to every entry, or missing in it"
    for axes in ((2, 3), (1,), (0,), (1, 2, 3)):
        if max(axes) < n.ndim and all(n.shape[axis] > 1 for axis in axes) and facts.complete:
            missing = n - a
            constant = np.broadcast_to(np.mean(missing, axis=axes, keepdims=True), n.shape)
            if np.max(np.abs(missing - constant)) <= 1e-6 * np.max(np.abs(missing)):
                return (
                    f"a term that is the same along axes {axes}: the path through a mean or a sum over them is "
                    "missing, counted twice, scaled or wrong in itself"
                )
    return ""
