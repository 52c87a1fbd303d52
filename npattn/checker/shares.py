"""Causes that show in what each output contributes to an entry: one is missing, or one alone is left."""

from __future__ import annotations

import itertools

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


def an_output(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    """The share of one of several outputs is missing, or one alone is there."""
    if len(facts.outputs) < 2:
        return ""
    entries = np.arange(a.size)
    entries = entries[:: -(-len(entries) // facts.columns)]
    shares = facts.shares(entries)
    missing = (n - a).reshape(-1)[entries]
    if len(entries) < 3 or not np.any(missing) or sum(facts.outputs) != shares[0].size:
        return ""
    ends = np.cumsum([0, *facts.outputs])
    along = np.array([np.sum(shares[:, low:high], axis=1) for low, high in itertools.pairwise(ends)]).T
    return left_out(along, missing, "of y", "output")


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
        if found := left_out(along, missing, f"along axis {axis - 1} of y", "index"):
            return found
    return ""


def left_out(along: np.ndarray, missing: np.ndarray, where: str, what: str) -> str:
    """Which columns of shares add up to what is missing, in words; empty if none do."""
    count = along.shape[1]
    if not 2 <= count < len(missing) or np.linalg.matrix_rank(along) < count:
        return ""
    parts = np.linalg.lstsq(along, missing, rcond=None)[0]
    gone = np.flatnonzero(parts > 0.5)
    if not 0 < len(gone) < count or not np.allclose(parts, parts > 0.5, atol=1e-6):
        return ""
    kept = np.flatnonzero(parts < 0.5)
    if len(kept) == 1:
        return f"one path's share alone: what comes back from {at(kept, what)} {where}"
    return f"another path's share is missing: what comes back from {at(gone, what)} {where}"


def at(indices: np.ndarray, what: str = "index") -> str:
    """ "index 2", "indices 0 to 3", "indices 0, 2", "output 1", "outputs 0, 2"."""
    many = {"index": "indices"}.get(what, f"{what}s")
    if len(indices) == 1:
        return f"{what} {indices[0]}"
    if np.all(np.diff(indices) == 1):
        return f"{many} {indices[0]} to {indices[-1]}"
    return f"{many} " + ", ".join(map(str, indices[:6])) + (", …" if len(indices) > 6 else "")
