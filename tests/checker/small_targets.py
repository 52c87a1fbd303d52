"""Targets that several tests of the checker ask about."""

from __future__ import annotations

import numpy as np


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


X = normal(4, 3)


def verdicts(report):
    return {row.name: row.verdict for row in report.rows}


class Scale:
    def __init__(self, w=None):
        self.w = normal(3, seed=1) if w is None else w
        self.dw = np.zeros(3)

    def forward(self, x):
        self.x = x
        return x * self.w

    def backward(self, dy):
        self.dw = (self.x * dy).sum(axis=0)
        return dy * self.w


def product(x, mask, w):
    return x * mask * w, (x, mask, w)


def product_backward(dy, cache):
    x, mask, w = cache
    return dy * mask * w, (dy * x * mask).sum(0)


MASK = (normal(4, 3, seed=2) > 0).astype(np.float32)
