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


def through_some_outputs(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    """The share of some indices of an axis of y is missing: of a branch, a head, a step."""
    entries = np.arange(a.size)
    entries = entries[:: -(-len(entries) // facts.columns)]
    shares = facts.shares(entries)
    missing = (n - a).reshape(-1)[entries]
    if len(entries) < 3 or not np.any(missing):
        return ""
    for axis in range(1, shares.ndim):
        others = tuple(i for i in range(1, shares.ndim) if i != axis)
        along = np.sum(shares, axis=others) if others else shares
        count = along.shape[1]
        if not 2 <= count < len(entries) or np.linalg.matrix_rank(along) < count:
            continue
        parts = np.linalg.lstsq(along, missing, rcond=None)[0]
        gone = np.flatnonzero(parts > 0.5)
        if 0 < len(gone) < count and np.allclose(parts, parts > 0.5, atol=1e-6):
            kept = np.flatnonzero(parts < 0.5)
            if len(kept) == 1:
                return f"one path's share alone: what comes back from {at(kept)} along axis {axis - 1} of y"
            return f"another path's share is missing: what comes back from {at(gone)} along axis {axis - 1} of y"
    return ""


def at(indices: np.ndarray) -> str:
    """ "index 2", "indices 0 to 3", "indices 0, 2"."""
    if len(indices) == 1:
        return f"index {indices[0]}"
    if np.all(np.diff(indices) == 1):
        return f"indices {indices[0]} to {indices[-1]}"
    return "indices " + ", ".join(map(str, indices[:6])) + (", …" if len(indices) > 6 else "")
