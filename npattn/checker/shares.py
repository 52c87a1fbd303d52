"""Causes that show in what each output contributes to an entry: one is missing, or one alone is left."""

from __future__ import annotations

import numpy as np

from npattn.checker.facts import Facts, beyond, same


def overwritten(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    """An entry that serves several outputs has the share of one: it was assigned where it should be added."""
    entries = np.flatnonzero(beyond(a, n))
    if len(entries) < 2:
        return ""
    entries = entries[:: -(-len(entries) // facts.columns)]
    shares = facts.shares(entries)
    got = a.reshape(-1)[entries]
    groups: list[tuple[int, ...]] = [()] + [(axis,) for axis in range(1, shares.ndim) if shares.ndim > 2]
    for group in groups:
        steps = np.sum(shares, axis=group).reshape(len(entries), -1) if group else shares.reshape(len(entries), -1)
        there = np.abs(steps) > 1e-9 * np.max(np.abs(steps))
        if steps.shape[1] < 2 or np.any(np.sum(there, axis=1) < 2):
            continue
        last = steps.shape[1] - 1 - np.argmax(there[:, ::-1], axis=1)
        first = np.argmax(there, axis=1)
        rows = np.arange(len(entries))
        for which, word in ((last, "last"), (first, "first")):
            if same(got, steps[rows, which]):
                return f"= where += belongs: an entry that serves several outputs has the share of the {word} one alone"
    return ""


def through_one_output(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    """The share of one index of an axis of y is missing, or there is nothing else."""
    entries = np.arange(a.size)
    entries = entries[:: -(-len(entries) // facts.columns)]
    shares = facts.shares(entries)
    got = a.reshape(-1)[entries]
    missing = n.reshape(-1)[entries] - got
    if len(entries) < 3 or not np.any(missing):
        return ""
    for axis in range(1, shares.ndim):
        others = tuple(i for i in range(1, shares.ndim) if i != axis)
        along = np.sum(shares, axis=others) if others else shares
        if along.shape[1] < 2:
            continue
        for i in range(along.shape[1]):
            if np.sum(along[:, i] != 0) < 3:
                continue
            if same(missing, along[:, i]):
                return f"another path's share is missing: that of index {i} along axis {axis - 1} of y"
            if along.shape[1] > 2 and same(got, along[:, i]):
                return f"one path's share alone: that of index {i} along axis {axis - 1} of y"
    return ""
