"""From a wrong gradient to the mistake that probably made it: each mistake leaves its own pattern.

A wrong guess misleads more than none. So each of them asks for the whole pattern, and says nothing where a part of it
is missing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from npattn.checker.cancelled import cancelled, unbalanced
from npattn.checker.facts import Facts, beyond, same
from npattn.checker.shares import an_output, overwritten, through_some_outputs
from npattn.checker.statistics import normalised, softmax, term

CONSTANTS = {"π": math.pi, "2π": 2 * math.pi, "√2": math.sqrt(2), "√π": math.sqrt(math.pi),
             "√(2π)": math.sqrt(2 * math.pi), "√(2/π)": math.sqrt(2 / math.pi), "ln 2": math.log(2),
             "ln 10": math.log(10), "e": math.e}  # fmt: skip
PLAIN = (2, 3, 4, 8, 9, 10, 16, 100, 255)
"""Whole numbers that speak for themselves."""


Point = tuple[np.ndarray, np.ndarray, Facts]


def likely_cause(
    a: np.ndarray, n: np.ndarray, facts: Facts, elsewhere: Callable[[], Sequence[Point]] = tuple
) -> str:  # fmt: skip
    """The likely cause why the analytic gradient a is not the numeric one n, both of the tensor's shape; or "".

    `elsewhere` gives the same at other points where the gradient is wrong. A pattern that does not show there too has
    come about by chance: in a small network one unit may be open, and for one image alone.
    """
    causes = (
        cancelled, zero, without_effect, accumulated, stale, factor, direct_path, nearly, exchanged, softmax, order,
        border, batch, last_step, an_output, overwritten, mask, handed_on, through_some_outputs, normalised, term,
        slope, shuffled, unbalanced,
    )  # fmt: skip
    for cause in causes:
        told = cause(a, n, facts)
        if told and (cause in OF_ONE_POINT or confirmed(cause, told, elsewhere())):
            return told
    return ""


def confirmed(cause: Callable[..., str], told: str, points: Sequence[Point]) -> bool:
    """Whether a cause is named at the other points as well, and in the same words.

    Of `nearly` one point is enough, whatever the number there: an epsilon counts for much where a number is near 0.
    """
    with np.errstate(all="ignore"):  # at a point where y does not depend on it, nothing is a share of 0
        again = [cause(*point) for point in points]
    return not again or (any(again) if cause is nearly else all(words == told for words in again))


def zero(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    if np.any(a) or not facts.zero_elsewhere():
        return ""
    return "it is 0 everywhere: the way from it to y was not followed back"


def without_effect(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    if np.any(n):
        return ""
    return "y does not depend on it here: a mask is missing, or it is not the array that the forward uses"


def nearly(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    off = float(np.max(np.abs(a - n)) / np.max(np.abs(n)))
    if off > 1e-4:
        return ""
    told = "an epsilon or a rounded constant that stands on one side only"
    signs = np.sign((a - n)[beyond_rounding(a, n)] * n[beyond_rounding(a, n)])
    if off < 4e-7 and np.any(signs > 0) and np.any(signs < 0):
        told = "numbers were kept in float32 on the way"
    return f"right but for {off:.0e} of it: {told}"


def beyond_rounding(a: np.ndarray, n: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(a - n) > 1e-9 * np.max(np.abs(n)))


def accumulated(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    if facts.earlier is not None and np.any(facts.earlier) and same(a - n, facts.earlier):
        return "it accumulates: this is the gradient and that of an earlier backward; empty it before each"
    return ""


def stale(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    if facts.earlier is not None and same(a, facts.earlier) and same(a, facts.numeric_earlier()):
        return "it is the gradient of an earlier forward: a stale cache"
    return ""


def exchanged(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    for name, other in facts.others().items():
        if np.any(other) and same(a, other):
            return f"it is the gradient of {name}: the two are exchanged"
    return ""


def handed_on(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    if facts.dy is None:
        return ""
    if same(a, facts.dy):
        return "it is dy itself, handed on: the rest of the way, or the function's slope, was left out"
    if same(n - a, facts.dy):
        return "a missing term: dy itself, which a skip connection hands on"
    return ""


def direct_path(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    if facts.value is None or facts.y is None or facts.dy is None or not np.all(facts.value):
        return ""
    direct = facts.dy * facts.y / facts.value
    if same(a, direct) and np.max(np.abs(a - direct)) < 1e-3 * np.max(np.abs(a - n)):
        return "a missing term: it is dy · y/x, the direct path alone; the path through the gate is missing"
    if same(n - a, direct):
        return "a missing term: dy · y/x, the direct path; only the path through the gate is there"
    return ""


def factor(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    c = float(np.sum(a * n) / np.sum(n * n))
    if abs(c) < 1e-12 or abs(c - 1) < 1e-4 or not same(a, c * n):
        return ""
    if abs(c + 1) < 1e-6:
        return "the wrong sign"
    told = named(abs(c), facts.sizes)
    return f"a constant factor of {written(c)}{told}" if told is not None else ""


def named(c: float, sizes: Mapping[str, int]) -> str | None:
    """ ", which is H·W or 1/N" for a product of sizes, one over it, or the root of either; "" for a plain number.

    None if the number is nothing that one knows.
    """
    found: list[str] = []
    plain = any(math.isclose(c, value, rel_tol=1e-6) for number in PLAIN for value in (number, 1 / number))
    plain = plain or fraction(c)[0] > 0
    for count in (1, 2, 3):
        for chosen in itertools.combinations(sizes.items(), count):
            product = math.prod(size for _, size in chosen)
            if product < 2:
                continue
            name = "·".join(letter for letter, _ in chosen)
            inside = name if count == 1 and " " not in name and "·" not in name else f"({name})"
            root = math.sqrt(product)
            ways = {name: product, f"1/{inside}": 1 / product, f"√{inside}": root, f"1/√{inside}": 1 / root}
            for text, value in list(ways.items())[: 2 if plain else 4]:
                if math.isclose(c, value, rel_tol=1e-6):
                    found.append(text)
        if found:
            told = " or ".join(dict.fromkeys(found[:3]))
            return f": the number itself, or {told}" if plain else f", which is {told}"
    if plain:
        return ""
    for name, constant in CONSTANTS.items():
        for value, text in ((constant, name), (1 / constant, f"1/{name}")):
            if math.isclose(c, value, rel_tol=1e-6):
                return f", which is {text}"
    return None


def fraction(c: float) -> tuple[int, int]:
    """The fraction of small whole numbers, or the decimal of two digits, that it is: 3/2, 2/3, 105/100; or (0, 1)."""
    for below in (*range(1, 13), 20, 100):
        above = round(c * below)
        if 0 < above < 10 * below and math.isclose(c, above / below, rel_tol=1e-7):
            return above, below
    return 0, 1


def written(c: float) -> str:
    """The number; as a fraction where six digits are not all of it."""
    above, below = fraction(abs(c))
    return (
        f"{c:.6g}"
        if not above or float(f"{c:.6g}") == c or below in (1, 20, 100) or 100 % below == 0
        else (f"{'-' * (c < 0)}{above}/{below}")
    )


def order(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    if not facts.complete:
        return ""
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


def border(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    if n.ndim != 4 or min(n.shape[2:]) < 3:
        return ""
    wrong = np.any(beyond(a, n), axis=(0, 1))
    sides = wrong[0], wrong[-1], wrong[:, 0], wrong[:, -1]
    inside = wrong[1:-1, 1:-1]
    by_chance = (1 - inside.size / wrong.size) ** int(np.sum(wrong))  # that places drawn at random lie there
    if not np.any(inside) and (by_chance < 1e-3 or any(map(np.all, sides))):
        return "only at the border of the image: the padding, or an index off by one"
    return ""


def batch(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    if facts.images < 2:
        return ""
    for image in (0, facts.images - 1):
        alone = facts.one_image(image)
        if np.any(alone) and same(a, alone):
            return f"a forgotten sum over the batch: it is what image {image} alone gives"
    return ""


def last_step(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    wrong = beyond(a, n)
    for axis in range(min(n.ndim, 2) if n.ndim > 1 and facts.complete else 0):
        bad = np.any(wrong, axis=tuple(i for i in range(n.ndim) if i != axis))
        if np.mean(wrong) < 0.9 * np.mean(bad) or facts.y_shape[axis : axis + 1] != n.shape[axis : axis + 1]:
            continue  # a step is wrong as a whole, and there in y too
        if len(bad) > 2 and not bad[-1] and np.all(bad[:-1]):
            return (
                f"right at the last step along axis {axis} only: what comes back from later steps is missing or wrong"
            )
        if len(bad) > 2 and not bad[0] and np.all(bad[1:]):
            return (
                f"right at the first step along axis {axis} only: what the steps hand on is not followed back rightly"
            )
    return ""


def mask(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    wrong = beyond(a, n)
    if np.any(wrong) and not np.all(wrong) and not np.any(wrong & (a != 0) & (n != 0)):
        return "0 where it should not be, or not 0 where it should: a mask or an index from the wrong array"
    return ""


def slope(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    if n.ndim < 2 or not np.all(n):
        return ""
    ratio = a / n
    if same(ratio, np.full_like(ratio, np.mean(ratio))):
        return ""  # it does not vary
    for axis in range(n.ndim):
        others = tuple(i for i in range(n.ndim) if i != axis)
        if all(n.shape[i] == 1 for i in others) or n.shape[axis] == 1:
            continue
        mean = np.broadcast_to(np.mean(ratio, axis=others, keepdims=True), n.shape)
        if same(ratio, mean):
            return (
                f"a factor that varies along axis {axis} alone: what differs along it is left out, or taken at the "
                "wrong value"
            )
    return ""


def shuffled(a: np.ndarray, n: np.ndarray, facts: Facts) -> str:
    if a.size > 2 and np.any(beyond(a, n)) and same(np.sort(a, axis=None), np.sort(n, axis=None)):
        return "the right numbers in another order: an index, an axis or a reshape"
    return ""


OF_ONE_POINT = (accumulated, stale, zero, without_effect, cancelled)
"""What is said of one point, or was measured at several."""
