"""Analytic against numeric: how each number is measured, and which difference is too large.

The rule is told in the package's docstring; the numbers in brackets are its points.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from npattn.checker.arguments import Settings
from npattn.checker.noise import TIMES, floors, largest, least_noise, rounding_noise, scaled, spread
from npattn.checker.numeric import TELLING, Slope, complex_step, differences
from npattn.checker.shown import Shown
from npattn.checker.state import Start, line_of, rms
from npattn.checker.verdict import Verdict
from npattn.grad_mode import no_grad

TINY = 1e-250
"""What no gradient is asked to be exact beyond: the complex step's product with its step underflows."""

FINE = 2.0**-16
"""How much smaller the steps are that tell whether the usual ones have misled."""

TOLD, TOLD32 = 1e-4, 0.05
"""What is measured more coarsely than this, as a share of the gradient's largest entry, is not called right."""

ALIKE = 1e-7
"""The share of a slope up to which the complex step and differences are taken to tell the same."""

Direction = np.ndarray | int
"""A direction in a tensor, of its shape; or the number of one entry, counted in reading order."""


class Refused(Exception):
    """A forward raises where the inputs are moved by little."""

    def __init__(self, error: Exception) -> None:
        where = line_of(error)
        super().__init__(
            f"the forward raises {type(error).__name__} where the inputs are moved by little, so no derivative can be "
            f"measured: {error}" + (f" ({where})" if where else "")
        )
        self.error = error


class Comparison:
    """Everything measured at one point θ = `start.values`, for one dy."""

    def __init__(self, start: Start, rng: np.random.Generator, how: Settings, shown: Shown) -> None:
        self.start, self.rng, self.how, self.shown = start, rng, how, shown
        self.rtol = max(how.rtol, 1e-4) if how.single else how.rtol
        self.noise, self.floor = least_noise(start), floors(start)
        self.measured: set[str] = set()
        self.shrunk = dict.fromkeys(start.values, 1.0)  # the first step of the ladder, as a share of the usual one
        self.complex = False  # the method in use
        self.scale = {name: rms(value) for name, value in start.values.items()}

    def measure(self, name: str, along: Sequence[Direction]) -> None:
        """Find out how large rounding is here, in the gradient and in the numbers that it is compared with."""
        if name not in self.measured:
            self.measured.add(name)
            self.noise[name] = max(self.noise[name], rounding_noise(self.start, name))
        for v in along:
            with np.errstate(all="ignore"):
                seen = [self.slope(name, v, at=scaled(self.start, k)).middle for k in range(1, 8)]
            share = 3 * float(np.sqrt(v.size)) if isinstance(v, np.ndarray) else 1.0  # as `decided` multiplies it
            self.noise[name] = max(self.noise[name], TIMES * float(spread(seen)) / share)

    @functools.cached_property
    def noise_of_y(self) -> np.ndarray:
        """How far each output is off by the forward's own rounding."""
        try:
            seen = [self.forward(scaled(self.start, k)) for k in range(1, 8)]
        except Refused:
            return np.zeros(self.start.y.shape)
        return np.asarray(2 * spread(seen, axis=0))

    def hidden(self, name: str) -> float:
        """What hides a gradient that is no plain 0: the rounding of the loss, where that is larger; else 0."""
        return self.floor[name] if 0 < largest(self.start.gradients[name]) <= self.floor[name] else 0.0

    def lit(self, name: str, along: Verdict) -> np.ndarray:
        """A mask of the entries of a gradient that are different from 0, by more than rounding, as directions tell."""
        g = self.start.gradients[name]
        if along.dark or along.coarse.any() or largest(g) <= self.floor[name]:
            return np.zeros(g.shape, dtype=bool)
        return np.asarray(np.abs(g) > self.noise[name] + self.how.atol)

    @property
    def method(self) -> str:
        return "complex step" if self.complex else "differences"

    def forward(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        if self.start.mutates:
            values = {name: value.copy() for name, value in values.items()}
        try:
            with np.errstate(all="ignore"), no_grad():  # no backward follows
                y = np.asarray(self.start.form.forward(values)[0])
        except Exception as error:
            raise Refused(error) from error
        return y if y.dtype.kind == "c" else y.astype(np.float64, copy=False)

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
        self, name: str, v: Direction, dy: np.ndarray, at: Mapping[str, np.ndarray] | None = None,
        rests: np.ndarray | None = None, share: float | None = None, goal: float | None = None,
    ) -> Slope:  # fmt: skip
        """By differences, until the error is `goal`, or this `share` of the slope: by default what decides it.

        `rests` has outputs that are known not to depend on it, unless they are seen to move.
        """
        f = self.line(name, v, at)
        y = self.start.y if at is None else f(0.0)
        if isinstance(v, np.ndarray):
            h = self.scale[name] / float(np.max(np.abs(v)))
        else:
            h = max(self.scale[name], abs(float(self.start.values[name].reshape(-1)[v])))
        size = float(np.linalg.norm(self.start.gradients[name])) if name in self.start.gradients else 0.0
        share = self.rtol / 30 if share is None else share
        goal = share * size if goal is None else goal
        first = 4 if self.how.single else 32  # large steps drown a coarse rounding
        unit = float(np.max(np.abs(v))) if isinstance(v, np.ndarray) else 1.0
        least = 2**8 * self.start.eps * largest(self.start.values[name]) / unit
        h = 2.0 ** float(
            np.round(np.log2(h * self.shrunk[name] / first))
        )  # so that an entry moves by no other step than this
        return differences(f, dy, y, h, goal, share, self.start.eps, least, lambda: self.noise_of_y, rests)

    def choose_method(self) -> list[str]:
        """Use the complex step if it can be trusted: off kinks, where both can speak, differences agree with it [1]."""
        form, values = self.start.form, self.start.values
        path = form.path
        if self.how.single:
            return ["differences: in float32"]
        if "complex128" not in form.dtypes:
            return ["differences: the target holds real parameters"]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", np.exceptions.ComplexWarning)
                y = self.forward({name: value.astype(complex) for name, value in values.items()})
            other_path = form.path
            if y.dtype.kind != "c":
                return ["differences: the forward makes real numbers of complex ones"]
            if not np.allclose(y.real, self.start.y, rtol=1e-9, atol=1e-12 * float(np.max(np.abs(y.real), initial=0))):
                return ["differences: the forward gives other values on complex numbers"]
            beside = {**values, **{name: self.off_ties(name) for name in self.start.gradients}}
            for name in self.start.gradients:
                for v in self.gaussian(values[name].shape, 2 if values[name].size else 0):
                    one = complex_step(self.line(name, v, beside), self.start.dy)
                    other = self.differences(name, v, self.start.dy, beside, share=ALIKE / 10)
                    if other.kink:
                        continue  # so close to one that differences cannot step between
                    size = float(np.sum(np.abs(other.right) + np.abs(other.left)))
                    allowed = 10 * other.error + ALIKE * size + self.noise[name] * values[name].size
                    if abs(one.middle - other.middle) > allowed:
                        return [
                            f"differences: the complex step disagrees with them along {name}, so the forward is not "
                            "analytic in complex numbers (abs, real and conj are not)"
                        ]
        except Refused as refused:  # whatever a forward says to complex numbers, it does not take them
            if not isinstance(refused.error, np.exceptions.ComplexWarning):
                return [f"differences: the forward takes no complex numbers ({type(refused.error).__name__})"]
            where = line_of(refused.error)
            return [
                "differences: the forward writes complex numbers into a real array" + (f" ({where})" if where else "")
                + "; with np.zeros_like(x), or dtype=x.dtype, instead the check is sharper and several times as fast"
            ]  # fmt: skip
        self.complex = True
        if other_path != path:
            return [f"the complex step took the {other_path} forward; its y and its slopes are those of the {path} one"]
        return []

    def gaussian(self, shape: tuple[int, ...], count: int) -> Sequence[np.ndarray]:
        """Random directions. They are drawn when they are asked for: many of a large tensor would fill the memory."""
        return Gaussian(shape, count, int(self.rng.integers(2**62)))

    def off_ties(self, name: str) -> np.ndarray:
        """The tensor moved by up to a tenth, each entry by another share, so that nothing is tied."""
        value = self.start.values[name]
        shift = np.where(value == 0, 0.1 * self.scale[name], 0.1 * value)
        return np.asarray(value + shift * self.rng.uniform(-1, 1, value.shape))

    def compare(self, name: str, along: Sequence[Direction]) -> Verdict:
        """Judge the gradient of one tensor along each. Nothing is rejected on the complex step's word alone [1].

        Nor is it before rounding has been measured [3].
        """
        slopes = [self.slope(name, v) for v in self.shown.over(along)]
        verdict = self.decided(name, along, slopes)
        if self.complex and verdict.wrong.any():
            worst = [int(i) for i in np.argsort(-verdict.excess)[:3]]
            others = [
                self.differences(name, along[i], self.start.dy, rests=slopes[i].without, goal=verdict.excess[i] / 100)
                for i in worst
            ]  # as exact as it takes to say the same
            if not self.decided(name, [along[i] for i in worst], others).wrong.any():
                self.complex = False
                slopes = [self.slope(name, v) for v in along]
                verdict = self.decided(name, along, slopes)
        smooth = [int(i) for i in np.argsort(-verdict.excess) if verdict.wrong[i] and not verdict.kink[i]]
        if smooth and not self.complex and self.misled(name, [(along[i], slopes[i]) for i in smooth[:2]]):
            slopes = [self.slope(name, v) for v in along]
            verdict = self.decided(name, along, slopes)
        if smooth and verdict.wrong.any():
            self.measure(name, [along[i] for i in smooth[:2] if np.isfinite(verdict.error[i])])
            verdict = self.decided(name, along, slopes)
        return verdict

    def misled(self, name: str, found: Sequence[tuple[Direction, Slope]]) -> bool:
        """Whether small steps tell another slope: the usual ones reach beyond the waves of a sin(10⁷x).

        They are the usual ones from then on.
        """
        if self.shrunk[name] < 1:
            return False
        self.shrunk[name] = FINE
        g = self.start.gradients[name]
        for v, before in found:
            again = self.slope(name, v)
            if abs(again.middle - before.middle) > 10 * (again.error + before.error):
                return True
            a = float(np.sum(g * v)) if isinstance(v, np.ndarray) else float(g.reshape(-1)[v])
            hazy = again.error > TOLD * max(abs(again.middle), abs(a)) and abs(a - again.middle) <= 10 * again.error
            if hazy and before.error > TELLING * (abs(before.low) + abs(before.high)) / 2:
                return True  # the usual ones say no more than that it may be 0, and small ones that it need not
        self.shrunk[name] = 1.0
        return False

    def judge(self, name: str, along: Sequence[Direction]) -> Verdict:
        """Analytic against numeric, by what is known of rounding so far."""
        return self.decided(name, along, [self.slope(name, v) for v in self.shown.over(along)])

    def decided(self, name: str, along: Sequence[Direction], slopes: Sequence[Slope]) -> Verdict:
        """Analytic against numeric, with the tolerance of [3] and the kinks of [4]."""
        g = self.start.gradients[name]
        a = np.array([np.sum(g * v) if isinstance(v, np.ndarray) else g.reshape(-1)[v] for v in along])
        numeric, error = np.array([q.middle for q in slopes]), np.array([q.error for q in slopes])
        low, high = np.array([q.low for q in slopes]), np.array([q.high for q in slopes])
        kink = np.array([q.kink for q in slopes], dtype=bool)

        noise, floor = self.noise[name], self.floor[name]
        if len(along) and isinstance(along[0], np.ndarray):  # a direction adds up what all entries are off by
            noise, floor = 3 * np.sqrt(g.size) * noise, 3 * np.sqrt(g.size) * floor
            scale = float(np.sqrt(np.mean(np.square(numeric)))) if len(along) > 1 else float(np.linalg.norm(g))
        else:
            scale = float(np.max(np.abs(numeric[~kink]), initial=0) or np.max(np.abs(numeric), initial=0))
        measured = np.isfinite(error)
        size = max(largest(a), largest(numeric[measured]))
        dark = size <= floor
        rounding = max(noise, 2 * floor if dark else 0.0) + 3 * np.where(measured, error, 0)
        tolerance = TINY + self.how.atol + self.rtol * scale + rounding
        outside = np.where(kink, np.maximum(low - a, a - high), np.abs(a - numeric))
        excess = np.where(measured, outside - tolerance, np.inf)
        meeting = np.zeros(len(along), dtype=bool)
        for i in np.flatnonzero((excess > 0) & kink)[:500]:
            least, most = self.beside(name, along[i])
            slack = 1e-4 * (abs(least) + abs(most)) + float(tolerance[i])
            meeting[i] = least - slack <= a[i] <= most + slack
        excess = np.where(meeting, 0, excess)
        coarse = (excess <= 0) & ~kink & (rounding > (TOLD32 if self.how.single else TOLD) * max(size, scale))
        return Verdict(
            a, numeric, error, low, high, kink, meeting, excess, tolerance, scale, bool(dark), coarse & (not dark)
        )

    def beside(
        self, name: str, v: Direction, dy: np.ndarray | None = None, nudges: Sequence[np.ndarray] = ()
    ) -> tuple[float, float]:
        """A bound where several kinks meet, from the derivatives at points beside [4].

        Beside one kink there are two derivatives, and they are the bound. Beside several there are more, not all are
        seen, and the bound is widened once by the range of those that are. To the points that are drawn come those of
        `nudges` of the tensor.
        """
        seen = []
        for k in range(12 + len(nudges)):
            size = 1e-7 if self.complex else 1e-3
            at = {}
            for key, value in self.start.values.items():
                nudge = self.rng.standard_normal(value.shape)
                if k < 2:  # first or last of a tie wins
                    nudge = np.linspace(2, 1, value.size).reshape(value.shape) * (1, -1)[k]
                if k >= 12 and key == name:
                    nudge = nudges[k - 12]
                at[key] = value + size * self.scale[key] * nudge
            slope = self.slope(name, v, dy, at)
            seen += [slope.right, slope.left]
        low, high = np.min(seen, axis=0), np.max(seen, axis=0)
        alike = 1e-2 * float(np.sum(high - low))
        kinds: list[np.ndarray] = []
        for side in seen:
            if all(float(np.sum(np.abs(side - kind))) > alike for kind in kinds):
                kinds.append(side)
        widened = high - low if len(kinds) > 2 else 0.0 * low
        return float(np.sum(low - widened)), float(np.sum(high + widened))


class Gaussian(Sequence[np.ndarray]):
    """Random directions, each drawn anew from its own seed when it is asked for."""

    def __init__(self, shape: tuple[int, ...], count: int, seed: int) -> None:
        self.shape, self.length, self.seed = shape, count, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self.length:
            raise IndexError(index)
        return np.random.default_rng([self.seed, int(index)]).standard_normal(self.shape)
