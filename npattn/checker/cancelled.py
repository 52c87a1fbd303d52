"""Causes of a gradient that says y moves where it cannot: what comes after takes out what all numbers share.

A softmax does not see a number that is added to all of its row, a normalisation takes the mean away, and a difference
or a margin is the same without it. The way back through each has a term for that, − y · Σ dy · y or − mean of dy:
without it the gradient of such a number is not 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from npattn.checker.facts import Facts

THROUGH = "a softmax, a normalisation or a difference"
TAKEN_OUT = (
    f"what all numbers share is taken out again, as {THROUGH} does. The way back through that is left out, lacks a "
    "term (the outer product in a softmax's Jacobian, a normalisation's mean, what is subtracted) or has it wrong; or "
    "what comes back through it is put in another order, scaled unevenly, or not whole (the one-hot labels of a "
    "cross-entropy)"
)
"""Of two numbers that add up to 0 any other two differ by each of these mistakes, so all are named."""


def cancelled(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    """y does not depend on the tensor, though the forward uses it."""
    if not np.any(a) or np.max(np.abs(n)) > 1e-6 * np.max(np.abs(a)) or not facts.taken_out():
        return ""
    return f"the forward uses it, and y does not depend on it: {TAKEN_OUT}"


def unbalanced(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    """The numeric gradient adds up to 0 along an axis, wherever one looks, and the analytic one nowhere.

    Where that one does along other numbers, the term for it is there, and they have been shuffled since.
    """
    size = float(np.max(np.abs(n)))
    if not facts.complete or not size:
        return ""
    for rows, where in rows_of(n.shape):
        there = np.any(n.reshape(rows) != 0, axis=1)
        wrong = np.abs(np.sum(a.reshape(rows), axis=1))[there]
        if not balanced(n, rows, size) or np.min(wrong) <= 1e-6 * size:
            continue
        for other, elsewhere in rows_of(n.shape):
            if balanced(a, other, size):
                return (
                    f"the numeric gradient adds up to 0 {where}, the analytic one {elsewhere}: what comes back through "
                    f"{THROUGH} is put in another order, or belongs to another axis"
                )
        return f"the numeric gradient adds up to 0 {where}, the analytic one does not: {TAKEN_OUT}"
    return ""


def balanced(g: np.ndarray, rows: tuple[int, int, int], size: float) -> bool:
    """Whether a gradient that is not 0 adds up to 0 along axis 1 when it is taken in that shape."""
    return bool(np.any(g) and np.max(np.abs(np.sum(g.reshape(rows), axis=1))) <= 1e-8 * size)


def rows_of(shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, int, int], str]]:
    """Which numbers may be the arguments of one softmax: the axis 1 of an array's shape for that, and in words.

    Those along an axis, or along a part of one that branches and channels share.
    """
    for axis, length in enumerate(shape):
        before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        for count in (k for k in range(2, length + 1) if length % k == 0):
            for apart in (k for k in range(1, length // count + 1) if length // count % k == 0):
                where = f"along axis {axis}"
                if count < length:
                    where = f"over each {count} numbers of axis {axis} that are {apart} apart"
                yield (before * length // count // apart, count, apart * after), where
