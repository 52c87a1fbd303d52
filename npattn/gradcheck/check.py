"""The check itself. The rule is told in the package's docstring; the numbers in brackets are its points."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from npattn.gradcheck.causes import Facts, likely_cause
from npattn.gradcheck.numeric import EPS, Slope, complex_step, differences
from npattn.gradcheck.report import GradcheckError, GradcheckReport, Row
from npattn.gradcheck.state import Start, begin, rounding_noise
from npattn.gradcheck.target import as_target


def gradcheck(
    target: Any,
    *inputs: Any,
    seed: int = 0,
    rtol: float = 1e-9,
    atol: float = 0.0,
    raise_exception: bool = True,
    entries: int = 2000,
    directions: int = 8,
    allow_sharing: bool = False,
) -> GradcheckReport:
    """Check a backward against its forward, in float64.

    Parameters
    ----------
    target
        An `npattn.Layer`; an object with `forward(*inputs) -> y`, `backward(dy) -> dx`, and dicts `params` and `grads`;
        or a pair of functions `(forward, backward)`, or anything that has the two, with `forward(*inputs) -> (y, cache)`
        and `backward(dy, cache)` giving one gradient, or a tuple aligned with the inputs (None where there is none).
        It is copied: the caller's stays as it is.
    *inputs
        Arrays, or NamedTuples, dicts and tuples of arrays. Float arrays are converted to float64 and get a gradient;
        integers, numbers and None are passed on as they are.
    seed
        Of the random dy and directions.
    rtol, atol
        What an entry may be off by, relative to its tensor's largest numeric entry, and absolutely; above what
        rounding and the numeric derivative's own error already account for.
    raise_exception
        Whether a failure raises.
    entries
        Tensors of more numbers than this are checked along random directions.
    directions
        How many of them.
    allow_sharing
        Accept an output or a gradient that shares memory, as a reshape's does.

    Returns
    -------
    GradcheckReport
        True if everything is right; `print` shows a table.

    Raises
    ------
    GradcheckError
        If something is wrong. It names the tensor, the worst index, both values, and where it can tell the cause.
    TypeError, ValueError
        If target or inputs are not of this form.
    """
    form = as_target(target, inputs)
    rng = np.random.default_rng(seed)
    start, problems = begin(form, rng, allow_sharing)
    rows: list[Row] = []
    notes: list[str] = []
    if start is not None:
        run = Run(start, rng, rtol, atol, entries, directions)
        notes = run.choose_method()
        for name in start.values:
            row, more = run.row(name)
            rows.append(row)
            notes += more
    report = GradcheckReport(form.name, tuple(rows), tuple(problems), tuple(notes))
    if raise_exception and not report:
        raise GradcheckError(report)
    return report


class Measured(NamedTuple):
    """Numeric derivatives along several directions, or of several entries, one number each."""

    numeric: np.ndarray
    error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    kink: np.ndarray


Direction = np.ndarray | int
"""A direction in a tensor, of its shape; or the number of one entry, counted in reading order."""


class Run:
    """One check at one point θ = `start.values`, for one dy."""

    def __init__(
        self, start: Start, rng: np.random.Generator, rtol: float, atol: float, entries: int, directions: int
    ) -> None:
        self.start, self.rng, self.rtol, self.atol = start, rng, rtol, atol
        self.entries, self.directions = entries, directions
        self.noise = rounding_noise(start)
        self.complex = False
        self.scale = {
            name: float(np.sqrt(np.mean(np.square(value)))) or 1.0 if value.size else 1.0
            for name, value in start.values.items()
        }

    # The numeric side

    def forward(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        if self.start.mutates:
            values = {name: value.copy() for name, value in values.items()}
        with np.errstate(all="ignore"):
            return np.asarray(self.start.form.forward(values)[0])

    def line(
        self, name: str, v: Direction, at: Mapping[str, np.ndarray] | None = None
    ) -> Callable[[complex], np.ndarray]:
        """f(t): y where the tensor has moved by t along v, and complex if t is."""
        base = self.start.values if at is None else at

        def f(t: complex) -> np.ndarray:
            kind = complex if isinstance(t, complex) else float
            values = {key: value.astype(kind, copy=False) for key, value in base.items()}
            if isinstance(v, np.ndarray):
                values[name] = values[name] + t * v
            else:
                values[name] = moved = np.array(values[name])
                moved[np.unravel_index(v, moved.shape)] += t
            return self.forward(values)

        return f

    def slope(
        self, name: str, v: Direction, dy: np.ndarray | None = None, at: Mapping[str, np.ndarray] | None = None
    ) -> Slope:
        """The numeric derivative along v, by the method in use [1]."""
        dy = self.start.dy if dy is None else dy
        if self.complex:
            return complex_step(self.line(name, v, at), dy)
        return self.differences(name, v, dy, at)

    def differences(
        self, name: str, v: Direction, dy: np.ndarray, at: Mapping[str, np.ndarray] | None = None
    ) -> Slope:
        f = self.line(name, v, at)
        y = self.start.y if at is None else f(0.0)
        if isinstance(v, np.ndarray):
            h = self.scale[name] / float(np.max(np.abs(v)))
        else:
            h = max(self.scale[name], abs(float(self.start.values[name].reshape(-1)[v])))
        size = float(np.linalg.norm(self.start.gradients[name]))
        return differences(f, dy, y, h / 32, goal=self.rtol / 30 * size)

    def choose_method(self) -> list[str]:
        """Use the complex step if it can be trusted: where it and differences can both speak, they agree [1]."""
        form, values = self.start.form, self.start.values
        if "complex128" not in form.dtypes:
            return ["differences: the target holds real parameters"]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", np.exceptions.ComplexWarning)
                y = self.forward({name: value.astype(complex) for name, value in values.items()})
            if y.dtype.kind != "c":
                return ["differences: the forward makes real numbers of complex ones"]
            if not np.allclose(y.real, self.start.y, rtol=1e-9, atol=1e-12 * float(np.max(np.abs(y.real), initial=0))):
                return ["differences: the forward gives other values on complex numbers"]
            for name, value in values.items():
                for v in self.gaussian(value.shape, 2 if value.size else 0):
                    one = complex_step(self.line(name, v), self.start.dy)
                    other = self.differences(name, v, self.start.dy)
                    if other.kink and not one.kink:
                        continue  # a kink so close that differences cannot step between
                    size = float(np.sum(np.abs(other.right) + np.abs(other.left)))
                    apart = one.middle - other.middle, float(np.sum(one.right - other.right)) * other.kink
                    if max(map(abs, apart)) > 10 * other.error + 1e-7 * size:
                        return [
                            f"differences: the complex step disagrees with them along {name}, so the forward is not "
                            "analytic in complex numbers (abs, real and conj are not)"
                        ]
        except Exception as error:  # whatever a forward says to complex numbers, it does not take them
            return [f"differences: the forward takes no complex numbers ({type(error).__name__})"]
        self.complex = True
        return []

    # One tensor

    def gaussian(self, shape: tuple[int, ...], count: int) -> list[np.ndarray]:
        return [self.rng.standard_normal(shape) for _ in range(count)]

    def measure(self, name: str, along: list[Direction]) -> Measured:
        table = [(s.middle, s.error, s.low, s.high, s.kink) for s in (self.slope(name, v) for v in along)]
        columns = np.array(table, dtype=np.float64).reshape(-1, 5).T
        return Measured(*columns[:4], columns[4] > 0)

    def analytic(self, name: str, along: list[Direction]) -> np.ndarray:
        g = self.start.gradients[name]
        return np.array([np.sum(g * v) if isinstance(v, np.ndarray) else g.reshape(-1)[v] for v in along])

    def row(self, name: str) -> tuple[Row, list[str]]:
        """Check the gradient of one tensor [2]."""
        value = self.start.values[name]
        if name in self.start.faults:
            return Row(name, value.shape, "", "", None, wrong=self.start.faults[name]), []
        if name not in self.start.gradients:
            return Row(name, value.shape, "", "no gradient given", None), []
        notes: list[str] = []
        checked = f"all {value.size} entries"
        chosen = np.arange(value.size)
        found: Verdict | None = None
        if value.size > self.entries:
            found = self.compare(name, list(self.gaussian(value.shape, self.directions)))
            checked = f"{self.directions} directions"
            notes.append(f"{name}: {self.sureness(found)}")
            if found.wrong.any() or found.kinks or found.meeting:
                chosen = self.entries_to_look_at(name, found)
                checked += f", {len(chosen)} of {value.size} entries"
            else:
                chosen = chosen[:0]
        wrong, cause = "", ""
        error = found.worst if found else 0.0
        kinks = meeting = 0
        if len(chosen) or not found:
            single = self.compare(name, [int(i) for i in chosen])
            error, kinks, meeting = max(error, single.worst), single.kinks, single.meeting
            if single.wrong.any():
                wrong, cause = self.told(name, chosen, single)
            elif kinks + meeting > 1:
                wrong, cause = self.together(name, chosen[single.at_kink])
        if found and found.wrong.any() and not wrong:
            worst = int(np.argmax(found.excess))
            wrong = (
                f"along {int(found.wrong.sum())} of {self.directions} random directions it is wrong (analytic "
                f"{found.analytic[worst]:.9g}, numeric {found.numeric[worst]:.9g}), at none of the {len(chosen)} "
                "entries looked at"
            )
        if kinks:
            notes.append(f"{name}: {kinks} entries at a kink, each within its one-sided derivatives; no more is certain there")
        if meeting:
            notes.append(f"{name}: {meeting} entries where several kinks meet, skipped but for a bound from points beside")
        method = "complex step" if self.complex else "differences"
        return Row(name, value.shape, method, checked, error, kinks, meeting, wrong, cause), notes

    def compare(self, name: str, along: list[Direction]) -> Verdict:
        """Analytic against numeric along each, with the tolerance of [3] and the kinks of [4]."""
        a, m = self.analytic(name, along), self.measure(name, along)
        verdict = self.judge(name, along, a, m)
        if self.complex and verdict.wrong.any():  # nothing is rejected on one method's word
            worst = [along[i] for i in np.argsort(-verdict.excess)[:3]]
            self.complex = False
            by_differences = self.judge(name, worst, self.analytic(name, worst), self.measure(name, worst))
            if by_differences.wrong.any():
                self.complex = True
            else:
                verdict = self.judge(name, along, a, self.measure(name, along))
        return verdict

    def judge(self, name: str, along: list[Direction], a: np.ndarray, m: Measured) -> Verdict:
        entrywise = not along or not isinstance(along[0], np.ndarray)
        smooth = np.abs(np.where(m.kink, 0, m.numeric))
        scale = float(np.max(smooth, initial=0) if entrywise else np.sqrt(np.mean(np.square(m.numeric))))
        scale = scale or float(np.max(np.abs(m.numeric), initial=0))
        noise = self.noise[name] * (1 if entrywise else 3 * np.sqrt(self.start.values[name].size))
        tolerance = self.atol + self.rtol * scale + noise + 3 * np.nan_to_num(m.error, nan=0, posinf=0)
        outside = np.where(m.kink, np.maximum(m.low - a, a - m.high), np.abs(a - m.numeric))
        outside = np.where(np.isfinite(m.error), outside, np.inf)
        excess = outside - tolerance
        wrong = excess > 0
        meeting = np.zeros(len(along), dtype=bool)
        for i in np.flatnonzero(wrong & m.kink)[:500]:
            low, high = self.beside(name, along[i])
            slack = 1e-4 * (abs(low) + abs(high)) + float(tolerance[i])
            meeting[i] = low - slack <= a[i] <= high + slack
        wrong = wrong & ~meeting
        errors = np.where(m.kink, 0, np.abs(a - m.numeric)) / scale if scale else np.abs(a - m.numeric)
        return Verdict(a, m.numeric, np.where(wrong, excess, -np.inf), wrong, m.kink & ~wrong, int(np.sum(m.kink & ~wrong & ~meeting)),
                       int(np.sum(meeting)), float(np.max(errors, initial=0)), float(np.max(tolerance, initial=0)), scale, m)  # fmt: skip

    def beside(self, name: str, v: Direction) -> tuple[float, float]:
        """A bound where several kinks meet: the derivatives at points beside, widened once by their range [4]."""
        seen = []
        for k in range(12):
            size = 1e-7 if self.complex else 1e-3
            at = {}
            for key, value in self.start.values.items():
                nudge = self.rng.standard_normal(value.shape)
                if k < 2:  # first or last of a tie wins
                    nudge = np.linspace(2, 1, value.size).reshape(value.shape) * (1, -1)[k]
                at[key] = value + size * self.scale[key] * nudge
            slope = self.slope(name, v, at=at)
            seen += [slope.right, slope.left]
        low, high = np.min(seen, axis=0), np.max(seen, axis=0)
        return float(np.sum(low - (high - low))), float(np.sum(high + (high - low)))

    def together(self, name: str, at_kink: np.ndarray) -> tuple[str, str]:
        """All entries at kinks moved by the same: a tied maximum is smooth along that, whoever wins [4]."""
        v = np.zeros(self.start.values[name].shape)
        v.reshape(-1)[at_kink] = 1
        verdict = self.compare(name, [v])
        if not verdict.wrong.any():
            return "", ""
        return (
            f"with the {len(at_kink)} entries at kinks moved together, analytic {verdict.analytic[0]:.9g}, "
            f"numeric {verdict.numeric[0]:.9g}, error {abs(verdict.analytic[0] - verdict.numeric[0]):.3g}",
            "a gradient on all ties, where one of them should get it",
        )

    def entries_to_look_at(self, name: str, found: Verdict) -> np.ndarray:
        """Where to look after a direction has failed: some entries at random, and one that halving finds."""
        size = self.start.values[name].size
        chosen = self.rng.choice(size, min(size, 400), replace=False)
        inside = np.arange(size)
        while found.wrong.any() and len(inside) > 1:
            halves = []
            for half in (inside[: len(inside) // 2], inside[len(inside) // 2 :]):
                v = np.zeros(self.start.values[name].shape)
                v.reshape(-1)[half] = self.rng.standard_normal(len(half))
                slope = self.slope(name, v)
                halves.append((abs(float(np.sum(self.start.gradients[name] * v)) - slope.middle), half))
            inside = max(halves, key=lambda pair: pair[0])[1]
        return np.unique(np.concatenate([chosen, inside[:1]]))

    def sureness(self, found: Verdict) -> str:
        """What a gradient error of one part in 10⁵ would need to pass all directions [2]."""
        odds = min(1.0, 0.8 * found.tolerance / (1e-5 * found.scale)) if found.scale else 1.0
        return (
            f"along {self.directions} random directions; an error of 1e-5 of the gradient's norm would pass with "
            f"probability {odds**self.directions:.0e}"
        )

    def told(self, name: str, chosen: np.ndarray, verdict: Verdict) -> tuple[str, str]:
        """What is wrong with these entries, and the likely cause."""
        shape = self.start.values[name].shape
        worst = int(np.argmax(verdict.excess))
        index = [int(i) for i in np.unravel_index(int(chosen[worst]), shape)]
        a, n = verdict.analytic[worst], verdict.numeric[worst]
        if verdict.measured.kink[worst]:
            m = verdict.measured
            expected = f"one-sided derivatives {m.low[worst]:.9g} to {m.high[worst]:.9g}"
        elif not np.isfinite(verdict.measured.error[worst]):
            expected = "no numeric derivative: y is not finite nearby"
        else:
            expected = f"numeric {n:.9g}, error {abs(a - n):.3g}"
        text = (
            f"{int(verdict.wrong.sum())} of {len(chosen)} entries are wrong, the worst at {index}: analytic {a:.9g}, {expected}"
        )
        if len(chosen) < np.prod(shape):
            text = text.replace(" entries are", " entries looked at are")
            cause = self.guess(name, verdict.analytic, verdict.numeric, chosen)
        else:
            cause = self.guess(name, verdict.analytic.reshape(shape), verdict.numeric.reshape(shape), None)
        return text, cause

    def guess(self, name: str, a: np.ndarray, n: np.ndarray, chosen: np.ndarray | None) -> str:
        if not np.all(np.isfinite(n)):
            return ""
        start = self.start

        def part(array: np.ndarray | None) -> np.ndarray | None:
            if array is None or chosen is None or array.shape != start.values[name].shape:
                return array
            return array.reshape(-1)[chosen]

        def one_image(image: int) -> np.ndarray | None:
            dy = np.zeros_like(start.dy)
            dy[image] = start.dy[image]
            flat = range(a.size) if chosen is None else chosen
            return np.array([self.slope(name, int(i), dy).middle for i in flat]).reshape(a.shape)

        value, y, dy, earlier = (part(q) for q in (start.values[name], start.y, start.dy, start.earlier.get(name)))
        assert value is not None
        facts = Facts(value, y, dy, earlier, start.sizes, one_image)  # type: ignore[arg-type]
        if chosen is not None and start.dy.shape != start.values[name].shape:
            facts = Facts(value, np.zeros(0), np.zeros(0), earlier, start.sizes, one_image)
        return likely_cause(a, n, facts)


class Verdict(NamedTuple):
    """What a comparison along several directions or entries came to."""

    analytic: np.ndarray
    numeric: np.ndarray
    excess: np.ndarray  # how far outside what is allowed
    wrong: np.ndarray  # bool
    at_kink: np.ndarray  # bool, and not wrong
    kinks: int
    meeting: int
    worst: float  # relative error
    tolerance: float
    scale: float
    measured: Measured


__all__ = ["EPS", "gradcheck"]
