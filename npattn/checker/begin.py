"""Before any number is compared: what forward and backward must not do, and what they give at a point [5]."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from npattn.checker.arguments import Settings
from npattn.checker.numeric import EPS
from npattn.checker.state import (
    EPS32,
    Arrays,
    Start,
    as_array,
    copies,
    equal,
    raised,
    shares,
    signed,
    usable_gradients,
)
from npattn.checker.target import Target
from npattn.grad_mode import no_grad


@dataclass
class Found:
    """What the first runs have shown."""

    start: Start | None = None  # None where nothing can be compared
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)  # against the house's rules, and not wrong
    no_verdict: str = ""
    rules: set[str] = field(default_factory=set)  # of the problems, those that are against these rules only

    def against_the_rules(self, texts: Sequence[str], strict: bool) -> None:
        """Of our own layers more is asked than a right gradient: there it is a problem."""
        told = self.problems if strict else self.remarks
        told += [text for text in texts if text not in told]
        self.rules.update(texts)


class Runs:
    """Runs of a target that watch what it does to what it is handed."""

    def __init__(self, form: Target, how: Settings, found: Found) -> None:
        self.form, self.how, self.found = form, how, found

    def wrong(self, text: str) -> None:
        if text not in self.found.problems:
            self.found.problems.append(text)

    def against_the_rules(self, text: str) -> None:
        self.found.against_the_rules([text], self.how.strict)

    def forward(self, values: Arrays) -> tuple[np.ndarray, Any, Arrays]:
        """y, the cache, and what was handed in."""
        given = copies(values)
        with np.errstate(all="ignore"):
            y, cache = self.form.forward(given)
        for name, value in given.items():
            if not equal(value, values[name]):
                self.against_the_rules(f"{name}: mutated by forward")
        return as_array("y", y), cache, given

    def backward(self, dy: np.ndarray, cache: Any, y: np.ndarray, given: Arrays) -> dict[str, Any]:
        """The gradients as they come; `given` is what forward was handed."""
        handed, before = dy.copy(), copies(given)
        with np.errstate(all="ignore"):
            gradients = self.form.backward(handed, cache)
        if not equal(handed, dy):
            self.against_the_rules("dy: mutated by backward")
        for name, value in given.items():
            if not equal(value, before[name]):
                self.against_the_rules(f"{name}: mutated by backward")
        if not self.how.allow_sharing:
            for name, g in gradients.items():
                for what, array in {"dy": handed, "y": y, **given}.items():
                    if isinstance(g, np.ndarray) and shares(g, array):
                        self.against_the_rules(f"gradient of {name}: shares memory with {what}")
        return gradients


def kept(gradients: dict[str, Any]) -> dict[str, Any]:
    """Copies, which no later call overwrites."""
    return {name: None if g is None else np.array(g) for name, g in gradients.items()}


def begin(form: Target, rng: np.random.Generator, how: Settings) -> Found:
    """Run forward and backward a few times, and say what they do that they must not."""
    found = Found()
    look(Runs(form, how, found), rng)
    if set(found.problems) - found.rules:  # what is written to is their cause, most likely, and no mere remark then
        written = [text for text in found.remarks if "mutated" in text]
        found.problems[:0] = written
        found.remarks = [text for text in found.remarks if text not in written]
    return found


def look(runs: Runs, rng: np.random.Generator) -> None:
    """Do these runs, and note what they show."""
    form, how, found = runs.form, runs.how, runs.found
    values = form.values

    # Another point first: what a layer keeps of it must be gone at the second forward
    other = {name: value * rng.uniform(0.8, 1.2, value.shape) for name, value in values.items()}
    try:
        old_y, old_cache, _ = runs.forward(other)
    except Exception:  # outside of its domain, perhaps; where the point itself is, its own error says so
        other = copies(values)
        old_y, old_cache, _ = runs.forward(other)
    old_y = old_y.copy()
    dy = signed(rng, old_y.shape)
    try:
        with np.errstate(all="ignore"):
            earlier = {name: g for name, g in kept(form.backward(dy.copy(), old_cache)).items() if g is not None}
        y, cache, given = runs.forward(values)
        if y.shape != dy.shape:
            dy, earlier = signed(rng, y.shape), {}
        if y.dtype != np.float64 and not how.single:
            found.no_verdict = (
                f"it computes in {y.dtype}, for y came so for inputs of float64, and no derivative can be measured in "
                'that; dtype="float32" checks it to float32\'s tolerance'
            )
            return
        if not np.all(np.isfinite(y)):
            found.problems.append(f"y: {int(np.sum(~np.isfinite(y)))} of {y.size} numbers are NaN or infinite")
            return
        for name, value in given.items():
            if not how.allow_sharing and shares(y, value):
                runs.against_the_rules(f"y: shares memory with {name}")
        first_y = y.copy()
        gradients = runs.backward(dy, cache, y, given)
        first = kept(gradients)
        if not gradients:
            found.problems.append("backward: gave no gradient at all")
            return
        faults, usable, rounded = usable_gradients(values, gradients, exact=how.strict and not how.single)
        apart(runs, usable)
        if not how.single:
            for name, eps in rounded.items():
                runs.against_the_rules(f"gradient of {name}: rounded to {dtype_of(eps)}, and compared only so far")
        once = Once(cache, y, given, dy, gradients, first, list(usable), rounded, earlier)
        again_and_again(runs, once, signed(rng, y.shape))

        # A later forward must change nothing of this one
        with no_grad() if form.stateful else contextlib.nullcontext():
            later_y = runs.forward(other)[0].copy()
        if not equal(y, first_y):
            runs.against_the_rules("y: overwritten by a later forward")
        if not form.stateful:
            late = runs.backward(dy, cache, y, given)
            for name in usable:
                if not equal(late[name], first[name]):
                    runs.wrong(
                        f"gradient of {name}: changed by a later forward, so something is kept outside of the cache"
                    )
        with no_grad():  # the last one, and no backward follows
            last_y = runs.forward(values)[0]
        if not equal(later_y, old_y) or not equal(last_y, first_y):
            runs.wrong(
                "forward: another y for the same input, so no derivative can be measured (seed_forward= seeds what it "
                "draws)"
            )
            return
    except Exception as error:
        found.problems.append(raised(error))
        return
    mutates = any("mutated by forward" in text for text in (*found.problems, *found.remarks))
    measured = {name: np.asarray(first[name], dtype=np.float64) for name in usable}
    found.start = Start(
        form, copies(values), np.asarray(first_y, dtype=np.float64), np.asarray(dy, dtype=np.float64), mutates,
        measured, faults, EPS32 if how.single else EPS, rounded, earlier, other,
    )  # fmt: skip


def dtype_of(eps: float) -> str:
    return {1.0 * 2**-10: "float16", EPS32: "float32"}.get(eps, f"a precision of {eps:.0e}")


def apart(runs: Runs, usable: Arrays) -> None:
    """No gradient shares memory with another."""
    names = list(usable)
    for i, name in enumerate(names):
        for second in names[i + 1 :]:
            if not runs.how.allow_sharing and shares(usable[name], usable[second]):
                runs.against_the_rules(f"gradient of {name}: shares memory with the gradient of {second}")


class Once(NamedTuple):
    """What the first run at the point gave."""

    cache: Any
    y: np.ndarray
    given: Arrays
    dy: np.ndarray
    gradients: dict[str, Any]  # as they came
    first: dict[str, Any]  # copies of them
    usable: list[str]
    rounded: dict[str, float]
    earlier: Arrays


def again_and_again(runs: Runs, once: Once, dy2: np.ndarray) -> None:
    """The same dy again, another one, a mixture of both, and zero: backward is a linear map, and has no memory."""
    dy, first, usable = once.dy, once.first, once.usable

    def backward(cotangent: np.ndarray) -> dict[str, Any]:
        return kept(runs.backward(cotangent, once.cache, once.y, once.given))

    again = backward(dy)
    for name in usable:
        if not equal(again[name], first[name]):
            how = grown(name, again, first, once.earlier)
            runs.wrong(f"gradient of {name}: another one the second time, for the same dy{how}")
    second = backward(dy2)
    mixed = backward(1.25 * dy - 0.75 * dy2)
    for name in usable:
        if not equal(once.gradients[name], first[name]):
            runs.against_the_rules(f"gradient of {name}: overwritten by a later backward")
    zero = backward(np.zeros_like(dy))
    if set(runs.found.problems) - runs.found.rules:
        return  # it is not even the same twice
    eps = EPS32 if runs.how.single else EPS
    floor = 5e3 * eps * float(np.linalg.norm(dy * once.y))  # where a gradient is 0 but for rounding
    least = float(np.finfo(np.float32 if runs.how.single else np.float64).tiny) / eps  # below, digits may be lost
    for name in usable:
        g, other = first[name], second[name]
        if other is None or mixed[name] is None or zero[name] is None:
            runs.wrong(f"gradient of {name}: None for another dy")
            continue
        size = float(np.max(np.abs(g), initial=0) + np.max(np.abs(other), initial=0))
        loose = max(1e-9, 100 * max(once.rounded.get(name, 0.0), eps if runs.how.single else 0.0))
        if size > max(floor, least) and np.max(np.abs(mixed[name] - (1.25 * g - 0.75 * other))) > loose * size + min(
            floor, 0.01 * size
        ):
            runs.wrong(f"gradient of {name}: not linear in dy")
        if np.any(zero[name]) or not np.all(np.isfinite(zero[name])):
            runs.wrong(f"gradient of {name}: not 0 for dy = 0")


def grown(name: str, again: dict[str, Any], first: dict[str, Any], earlier: Arrays) -> str:
    """Whether it grows by the same from call to call: then it adds up. It may have begun before the first."""
    if again[name] is None or first[name] is None:
        return ""
    step = again[name] - first[name]
    before = earlier.get(name, 0.0)
    for start in (0.0, before if np.shape(before) == step.shape else 0.0):
        if np.any(step) and np.max(np.abs(step - (first[name] - start))) <= 1e-6 * np.max(np.abs(step)):
            twice = "twice the first" if np.ndim(start) == 0 else "as much more as the first added"
            return f": {twice}, so it accumulates; before_backward= is for what empties it"
    return ""
