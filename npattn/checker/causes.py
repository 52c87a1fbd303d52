"""From a wrong gradient to the mistake that probably made it: each mistake leaves its own pattern."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Facts:
    """What is known beside the analytic and the numeric gradient of one tensor."""

    direct: np.ndarray | None  # dy · y/x, if y has the tensor's shape: the direct path of y = x · gate
    earlier: np.ndarray | None  # the backward's gradient for an earlier forward, at other numbers
    sizes: Mapping[str, int]  # numbers that a factor may come from, "N" to 2 say
    images: int  # the length of the batch
    one_image: Callable[[int], np.ndarray | None]  # the numeric gradient when only one image of dy counts


def same(p: np.ndarray, q: np.ndarray) -> bool:
    """Whether two arrays agree to six digits of the larger one's largest entry."""
    if p.shape != q.shape:
        return False
    size = max(float(np.max(np.abs(p), initial=0)), float(np.max(np.abs(q), initial=0)))
    return bool(np.max(np.abs(p - q), initial=0) <= 1e-6 * size)


def likely_cause(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    """The likely cause why the analytic gradient a is not the numeric one n, both of the tensor's shape; or ""."""
    causes = (everywhere, order, border, mask, direct_path, factor, batch, term, slope, stale, shuffled)
    return next(filter(None, (cause(a, n, facts) for cause in causes)), "")


def everywhere(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    if not np.any(a):
        return "it is 0 everywhere: the way from it to y was not followed back"
    if not np.any(n):
        return "y does not depend on it: is it the array that the forward uses?"
    return ""


def direct_path(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    if facts.direct is not None and same(a, facts.direct):
        return "a missing term: it is dy · y/x, the direct path alone; the path through the gate is missing"
    return ""


def factor(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    c = float(np.sum(a * n) / np.sum(n * n))
    if a.size < 2 or c == 0 or not same(a, c * n):
        return ""
    if abs(c + 1) < 1e-6:
        return "the wrong sign"
    return f"a constant factor of {c:.6g}{named(abs(c), facts.sizes)}"


def named(c: float, sizes: Mapping[str, int]) -> str:
    """ ", which is N or 2", if the number is a product of sizes, or one over it."""
    for count in (1, 2, 3):
        found = []
        for chosen in itertools.combinations(sizes.items(), count):
            product = float(np.prod([size for _, size in chosen]))
            name = "·".join(letter for letter, _ in chosen)
            if product > 1 and abs(c - product) < 1e-6 * c:
                found.append(name)
            if product > 1 and abs(c * product - 1) < 1e-6:
                found.append(f"1/{name}" if count == 1 else f"1/({name})")
        if found:
            return ", which is " + " or ".join(found[:3])
    return ""


def order(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    if n.ndim >= 2:
        if same(a, np.swapaxes(n, -1, -2)):
            return "a transposed matrix: right with its last two axes swapped"
        if n.ndim == 4 and same(a, np.swapaxes(n, 0, 1)):
            return "a transposed matrix: right with its first two axes swapped"
        if same(a, n[..., ::-1, ::-1]):
            return "flipped along its last two axes: a kernel flipped where it should not be, or not where it should"
    for axis in range(n.ndim):
        if same(a, np.flip(n, axis)):
            return f"in reverse order along axis {axis}"
        for shift in (1, -1):
            if n.shape[axis] > 2 and same(a, np.roll(n, shift, axis)):
                return f"shifted by {shift} along axis {axis}: an index off by one"
    return ""


def batch(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    if facts.images < 2:
        return ""
    for image in (0, facts.images - 1):
        alone = facts.one_image(image)
        if alone is not None and np.any(alone) and same(a, alone):
            return f"a forgotten sum over the batch: it is what image {image} alone gives"
    return ""


def term(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    for axes in ((2, 3), (1,), (0,), (1, 2, 3)):
        if max(axes) < n.ndim and all(n.shape[axis] > 1 for axis in axes):
            missing = n - a
            constant = np.broadcast_to(np.mean(missing, axis=axes, keepdims=True), n.shape)
            if np.max(np.abs(missing - constant)) <= 1e-6 * np.max(np.abs(missing)):
                return (
                    f"a term that is the same along axes {axes}: a path through a mean or a sum over them is missing, "
                    "counted twice or scaled"
                )
    return ""


def slope(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    if n.ndim < 2 or not np.all(n):
        return ""
    ratio = a / n
    for axis in range(n.ndim):
        others = tuple(i for i in range(n.ndim) if i != axis)
        if all(n.shape[i] == 1 for i in others) or n.shape[axis] == 1:
            continue
        mean = np.broadcast_to(np.mean(ratio, axis=others, keepdims=True), n.shape)
        if same(ratio, mean):
            return f"a factor that varies along axis {axis} alone: a slope taken at the wrong value, or a gate left out"
    return ""


def wrong_entries(a: np.ndarray, n: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(a - n) > 1e-6 * np.max(np.abs(n)))


def border(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    if n.ndim == 4 and min(n.shape[2:]) > 2 and not np.any(wrong_entries(a, n)[:, :, 1:-1, 1:-1]):
        return "only at the border of the image: the padding, or an index off by one"
    return ""


def mask(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    wrong = wrong_entries(a, n)
    if not np.all(wrong) and not np.any(wrong & (a != 0) & (n != 0)):
        return "0 where it should not be, or not 0 where it should: a mask or an index from the wrong array"
    return ""


def stale(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    if facts.earlier is not None and same(a, facts.earlier):
        return "it is the gradient of an earlier forward: a stale cache"
    return ""


def shuffled(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    if same(np.sort(a, axis=None), np.sort(n, axis=None)):
        return "the right numbers in another order: an index, an axis or a reshape"
    return ""
