"""What came of comparing a gradient with numbers: what is wrong, what was seen, and what was measured too coarsely."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from npattn.checker.noise import largest


@dataclass(frozen=True)
class Verdict:
    """What came of comparing along several directions, or at several entries: arrays with one number for each."""

    analytic: np.ndarray
    numeric: np.ndarray
    error: np.ndarray  # of numeric
    low: np.ndarray  # with its outputs' one-sided derivatives, the least that numeric can be
    high: np.ndarray
    kink: np.ndarray  # bool
    meeting: np.ndarray  # bool: outside of low and high, but within what the points beside allow
    excess: np.ndarray  # how far outside what is allowed: wrong if positive
    tolerance: np.ndarray
    scale: float  # of the numeric derivatives
    dark: bool  # nothing here is larger than the rounding of the loss: it is 0, as far as can be told
    coarse: np.ndarray  # bool: not wrong, and measured too coarsely to be called right

    @property
    def wrong(self) -> np.ndarray:
        return np.asarray(self.excess > 0)

    @property
    def seen(self) -> np.ndarray:
        """Which are different from 0 on one side at least, by more than what any gradient would pass."""
        with np.errstate(invalid="ignore"):
            size = np.maximum(np.abs(self.analytic), np.abs(np.nan_to_num(self.numeric)))
        return np.asarray(((size > self.tolerance) & ~self.coarse & (not self.dark)) | self.kink)

    @property
    def too_coarse(self) -> str:
        """What to say where rounding allows no closer look; empty where it does."""
        if not self.coarse.any():
            return ""
        size = max(self.scale, largest(self.numeric[self.coarse]))
        share = float(np.max(self.tolerance[self.coarse])) / size if size else np.inf
        where = f"{int(self.coarse.sum())} of {self.coarse.size} entries" if self.coarse.size > 1 else "it"
        return f"{where} could be compared only to within {share:.0e} of the gradient, so large is rounding there"

    @property
    def worst(self) -> float:
        """The largest error where it is smooth and not 0 on both sides, relative to the gradient's largest entry."""
        errors = np.where(self.kink | ~self.seen, 0, np.abs(self.analytic - self.numeric))
        size = self.scale or float(np.max(np.abs(self.analytic), initial=0)) or 1.0
        return float(np.max(errors, initial=0)) / size
