"""What to say of entries that are wrong: where, by how much, the likely cause, and where to look."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from npattn.checker.causes import Point, likely_cause
from npattn.checker.compare import Comparison, Refused
from npattn.checker.facts import Facts, beyond
from npattn.checker.influence import taken_out
from npattn.checker.points import FREE, WITHIN, at, drawn
from npattn.checker.report import Row
from npattn.checker.state import Start
from npattn.checker.verdict import Verdict

COLUMNS = 60  # entries of which the share of every output is looked at


def explained(
    on: Comparison, name: str, chosen: np.ndarray, verdict: Verdict, causes: bool = True
) -> tuple[str, str]:  # fmt: skip
    """What is wrong with these entries, and the likely cause if it is asked for."""
    shape = on.start.values[name].shape
    complete = len(chosen) == on.start.values[name].size
    worst = int(np.argmax(verdict.excess))
    index = [int(i) for i in np.unravel_index(int(chosen[worst]), shape)]
    a, n = verdict.analytic[worst], verdict.numeric[worst]
    if not np.isfinite(verdict.error[worst]):
        against = "no numeric derivative, since y is not finite nearby"
    elif verdict.kink[worst]:
        against = f"one-sided derivatives {verdict.low[worst]:.9g} to {verdict.high[worst]:.9g}"
    else:
        against = f"numeric {n:.9g}, error {abs(a - n):.3g}"
    count = f"{int(verdict.wrong.sum())} of {len(chosen)} entries " + ("are" if complete else "looked at are")
    wrong = f"{count} wrong, the worst at {index}: analytic {a:.9g}, {against}"
    if not causes or not np.all(np.isfinite(verdict.numeric)):
        return wrong, ""
    form = shape if complete else (len(chosen),)
    a, n = verdict.analytic.reshape(form), verdict.numeric.reshape(form)
    elsewhere = functools.cache(lambda: other_points(on, name, chosen, form))
    return wrong, likely_cause(a, n, facts_of(on, name, chosen, form), elsewhere)


def starts_elsewhere(given: Start, name: str, rng: np.random.Generator) -> Iterator[Start]:
    """The check's start at points drawn anew, as far as there is one with this gradient."""
    moving = {key: given.values[key] for key in given.gradients}
    for way in (FREE, WITHIN, FREE, WITHIN):
        start = at(given, {**given.values, **drawn(moving, way, rng, {})}, rng)
        if not isinstance(start, str) and name in start.gradients:
            yield start


def other_points(on: Comparison, name: str, chosen: np.ndarray, form: tuple[int, ...]) -> list[Point]:
    """Both gradients and the facts at points drawn anew where they differ: two, or fewer if no more were found.

    Of entries that are not the whole tensor, some are enough: their places tell nothing.
    """
    rng, found = np.random.default_rng(0), list[Point]()
    if form != on.start.values[name].shape:
        chosen = chosen[:: -(-len(chosen) // COLUMNS)]
        form = (len(chosen),)
    for start in starts_elsewhere(on.start, name, rng):
        there = Comparison(start, rng, on.how, on.shown)
        there.complex = on.complex
        a = start.gradients[name].reshape(-1)[chosen].reshape(form)
        with contextlib.suppress(Refused):  # at the edge of what it takes
            n = np.array([there.slope(name, i).middle for i in on.shown.over(chosen.tolist())]).reshape(form)
            if np.all(np.isfinite(n)) and np.any(beyond(a, n)):
                found.append((a, n, facts_of(there, name, chosen, form)))
        if len(found) == 2:
            break
    return found


def facts_of(on: Comparison, name: str, chosen: np.ndarray, form: tuple[int, ...]) -> Facts:
    """What is known beside the gradient, for the chosen entries; what costs time is measured when it is asked for."""
    start = on.start
    shape = start.values[name].shape

    def part(array: np.ndarray | None) -> np.ndarray | None:
        """The chosen entries of an array that has the tensor's shape."""
        return None if array is None or array.shape != shape else np.asarray(array.reshape(-1)[chosen]).reshape(form)

    def numeric(dy: np.ndarray | None = None, at: dict[str, np.ndarray] | None = None, of: str = name) -> np.ndarray:
        return np.array([on.slope(of, int(i), dy, at).middle for i in chosen]).reshape(form)

    def one_image(image: int) -> np.ndarray:
        dy = np.zeros_like(start.dy)
        dy[image] = start.dy[image]
        return numeric(dy)

    def shares(entries: np.ndarray) -> np.ndarray:
        slopes = [on.slope(name, int(chosen[i])) for i in entries]
        return np.array([(one.right + one.left) / 2 for one in slopes])

    def others() -> dict[str, np.ndarray]:
        same_shape = [key for key in start.gradients if key != name and start.values[key].shape == shape]
        return {key: numeric(of=key) for key in same_shape[:4]}

    return Facts(
        value=part(start.values[name]),
        y=part(start.y),
        dy=part(start.dy),
        y_shape=start.y.shape,
        outputs=list(getattr(start.form, "lengths", [])),
        y_whole=start.y if start.y.shape == shape and form == shape else None,
        earlier=part(start.earlier.get(name)),
        numeric_earlier=lambda: numeric(at=start.earlier_values),
        sizes=start.sizes,
        images=start.dy.shape[0] if start.dy.ndim > 1 else 0,
        one_image=one_image,
        shares=shares,
        columns=COLUMNS,
        others=others,
        zero_elsewhere=lambda: (
            not any(np.any(one.gradients[name]) for one in starts_elsewhere(start, name, np.random.default_rng(0)))
        ),
        taken_out=lambda: taken_out(start, name),
        complete=form == shape,
    )


def where_to_look(rows: Sequence[Row]) -> str:
    """What it tells that some gradients are right and others wrong; empty where it tells nothing."""
    right = [row.name for row in rows if row.verdict == "ok"]
    wrong = [row.name for row in rows if row.wrong]
    if not right or not wrong:
        return ""
    return (
        f"{listed(right)} {'is' if len(right) == 1 else 'are'} right, {listed(wrong)} "
        f"{'is' if len(wrong) == 1 else 'are'} wrong: the fault lies on the way back to {listed(wrong)}, after it has "
        f"left the way to {listed(right)}"
    )


def listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
