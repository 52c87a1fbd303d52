"""Does y depend on what was always 0? If it stays the same however these entries are changed, then 0 is right.

A column that an odd image's pooling leaves out, a word of an embedding that does not come up, a bias before a batch
norm: their gradient is 0 at every point, on both sides, and there is nothing to be tested. A dead unit is another
matter: other weights would wake it.
"""

from __future__ import annotations

import numpy as np

from npattn.checker.points import FREE, WITHIN, drawn
from npattn.checker.seen import FARTHEST, Seen, slices
from npattn.checker.state import Start, copies, rms
from npattn.grad_mode import no_grad

SIZES = (1, 10, 1, 100, 1, 1000, FARTHEST)
"""By how many times its own size a tensor is moved: a kink may lie far away."""
MOST = 32  # slices of a tensor that are asked one by one


def idle(given: Start, name: str, seen: Seen, rng: np.random.Generator) -> np.ndarray:
    """A mask of the entries of a tensor that have no influence, among the slices that were always 0."""
    found = np.zeros(given.values[name].shape, dtype=bool)
    parts = slices(~seen.masks[name])
    whole = np.logical_or.reduce(parts) if parts else found
    if not np.any(whole):
        return found
    others = {key: seen.never(key) for key in seen.left if key != name}
    if not influences(given, name, whole, others, rng):
        return whole
    for part in parts[:MOST]:
        if len(parts) > 1 and not influences(given, name, part, others, rng):
            found |= part
    return found


def influences(
    given: Start, name: str, mask: np.ndarray, others: dict[str, np.ndarray], rng: np.random.Generator
) -> bool:
    """Whether y changes where these entries do, by much. Two tensors may be dead by each other: `others` change too.

    By much is more than rounding, for each output by itself: beside one of 1e9 a small one counts as well.
    """
    moving = {key: given.values[key] for key in given.gradients}
    for k, times in enumerate(SIZES):
        at = {**given.values, **drawn(moving, (FREE, WITHIN)[k % 2], rng, {})} if k else copies(given.values)
        for key, dead in others.items():
            at[key] = np.where(dead, rms(given.values[key]) * rng.standard_normal(dead.shape), at[key])
        changed = copies(at)
        size = rms(given.values[name]) * times
        changed[name] = np.where(mask, size * rng.standard_normal(mask.shape), at[name])
        try:
            with np.errstate(all="ignore"), no_grad():
                before = np.asarray(given.form.forward(copies(at))[0], dtype=np.float64).copy()
                after = np.asarray(given.form.forward(changed)[0], dtype=np.float64)
        except Exception:  # outside of its domain: not known
            if times > 10:
                continue
            return True
        if before.shape != after.shape or not np.all(np.isfinite(before)):
            return True
        finite = np.isfinite(after)
        if times <= 10 and not np.all(finite):
            return True
        usual = float(np.quantile(np.abs(before[before != 0]), 0.1)) if np.any(before) else 0.0
        rounding = 1e-9 * max(1, times / 10) * np.maximum(np.abs(before), usual)
        if np.any(np.abs(after - before)[finite] > rounding[finite]):
            return True
    return False


def taken_out(given: Start, name: str) -> bool:
    """Whether the forward uses a tensor, and y still does not depend on it: it changes by rounding alone.

    So it is with a bias before a softmax, a normalisation or a difference. Of a tensor that the forward leaves aside,
    or that a mask hides, no change shows in y at all; behind a mask a large one shows in full.
    """
    rng = np.random.default_rng(0)
    everything = np.ones(given.values[name].shape, dtype=bool)
    return not influences(given, name, everything, {}, rng) and rounds(given, name, rng)


def rounds(given: Start, name: str, rng: np.random.Generator) -> bool:
    """Whether a single bit of y changes with the tensor."""
    size = rms(given.values[name])
    try:
        with np.errstate(all="ignore"), no_grad():
            before = np.asarray(given.form.forward(copies(given.values))[0]).copy()
            for times in SIZES:
                changed = copies(given.values)
                changed[name] = size * times * rng.standard_normal(changed[name].shape)
                if not np.array_equal(before, given.form.forward(changed)[0], equal_nan=True):
                    return True
    except Exception:  # outside of its domain: not known
        return False
    return False
