"""The point of a check: θ, y, dy and the gradients that the backward gives there."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from npattn.backend import to_numpy
from npattn.checker.numeric import EPS
from npattn.checker.target import GradientCountError, Target

Arrays = dict[str, np.ndarray]
EPS32 = float(np.finfo(np.float32).eps)


@dataclass
class Start:
    """The point of the check: θ, y, dy and the gradients that the backward gives there."""

    form: Target
    values: Arrays
    y: np.ndarray
    dy: np.ndarray
    mutates: bool  # whether forward needs copies
    gradients: Arrays
    faults: dict[str, str] = field(default_factory=dict)  # gradients that cannot be compared, and why
    eps: float = EPS  # of the dtype that the check is made in
    rounded: dict[str, float] = field(default_factory=dict)  # gradients that came in a coarser one, and its eps
    earlier: Arrays = field(default_factory=dict)  # gradients at another point, to know a stale cache by
    earlier_values: Arrays = field(default_factory=dict)  # that point
    broken: list[str] = field(default_factory=list)  # rules of the house that were, where it is a point drawn anew
    jumps: dict[str, float] = field(default_factory=dict)  # what noise.py has measured: these three
    nearby: dict[str, float] = field(default_factory=dict)
    coarse: dict[str, float] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[str, int]:
        """Lengths of axes, by the letters that people call them."""
        for value in self.values.values():
            if value.ndim == 4:
                N, C, H, W = value.shape
                return {"H·W": H * W, "N": N, "C": C, "H": H, "W": W}
        found: dict[str, int] = {}
        for name, value in self.values.items():
            found |= {f"axis {i} of {name}": size for i, size in enumerate(value.shape)}
        return found | {f"axis {i} of y": size for i, size in enumerate(self.y.shape)}

    def for_dy(self, dy: np.ndarray) -> Arrays:
        """The gradients for another cotangent at this point."""
        with np.errstate(all="ignore"):
            _, cache = self.form.forward(copies(self.values))
            answer = self.form.backward(dy.copy(), cache)
        return {name: np.array(answer[name], dtype=np.float64) for name in self.gradients}


def copies(values: Mapping[str, np.ndarray]) -> Arrays:
    return {name: value.copy(order="K") for name, value in values.items()}


def equal(p: Any, q: Any) -> bool:
    """Whether two arrays are the same, bit for bit as far as numbers go."""
    return p is q or (p is not None and q is not None and np.array_equal(p, q, equal_nan=True))


def shares(p: np.ndarray, q: np.ndarray) -> bool:
    return bool(np.may_share_memory(p, q)) and bool(np.shares_memory(p, q))


def as_array(name: str, y: Any) -> np.ndarray:
    try:
        array = to_numpy(y)
    except Exception:
        array = np.asarray(y)
    if array.dtype.kind not in "fc":
        raise TypeError(f"{name}: expected a float array, got {type(y).__name__} of dtype {array.dtype}")
    return array


def signed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A random cotangent: both signs, and no number near 0 that would hide an output."""
    return np.asarray(rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape))


def rms(value: np.ndarray) -> float:
    """The size of a typical entry; 1 if all are 0, or there is none."""
    return float(np.sqrt(np.mean(np.square(value)))) or 1.0 if value.size else 1.0


def raised(error: Exception) -> str:
    """What to say of a backward that raised."""
    if isinstance(error, GradientCountError):
        return str(error)
    where = line_of(error)
    return f"backward: raised {type(error).__name__}: {error}" + (f" ({where})" if where else "")


def line_of(error: Exception) -> str:
    """The last line that is not the checker's: "file, line 12: code". Empty if there is none."""
    here = Path(__file__).parent
    frames = [one for one in traceback.extract_tb(error.__traceback__) if Path(one.filename).parent != here]
    if not frames:
        return ""
    last = frames[-1]
    code = (last.line or "").strip()
    short = code if len(code) <= 60 else code[:57] + "…"
    return f"{Path(last.filename).name}, line {last.lineno}" + (f": {short}" if short else "")


def usable_gradients(
    values: Mapping[str, np.ndarray], gradients: Mapping[str, Any], exact: bool
) -> tuple[dict[str, str], Arrays, dict[str, float]]:
    """Gradients that can be compared; for the others, what is wrong with them; and those of a coarser dtype.

    `exact` says that float64 is asked for, and another float is a fault.
    """
    faults: dict[str, str] = {}
    usable: Arrays = {}
    rounded: dict[str, float] = {}
    for name, value in values.items():
        if name not in gradients:
            continue
        g = gradients[name]
        if g is None:
            faults[name] = "expected a gradient, got None"
            continue
        if not isinstance(g, np.ndarray | np.generic):
            faults[name] = f"expected an array, got {type(g).__name__}"
            continue
        if g.shape != value.shape:
            hint = ""
            if g.shape == value.shape[::-1]:
                hint = ": a transposed matrix?"
            elif g.ndim > value.ndim and g.shape[g.ndim - value.ndim :] == value.shape:
                hint = ": a forgotten sum over the batch?"
            faults[name] = f"expected a gradient of shape {value.shape}, got {g.shape}{hint}"
        elif g.dtype != np.float64 and (exact or g.dtype.kind != "f"):
            faults[name] = f"expected a gradient of dtype float64, got {g.dtype}"
        elif not np.all(np.isfinite(g)):
            index = [int(i) for i in np.argwhere(~np.isfinite(g))[0]]
            faults[name] = (
                f"{int(np.sum(~np.isfinite(g)))} of {g.size} entries are NaN or infinite, the first at {index}"
            )
        else:
            usable[name] = np.asarray(g)
            if g.dtype != np.float64:
                rounded[name] = float(np.finfo(g.dtype).eps)
            elif g.size > 3 and not exact and in_float32(usable[name]):
                rounded[name] = EPS32
    return faults, usable, rounded


def in_float32(g: np.ndarray) -> bool:
    """Whether the numbers are float32's, and not merely simple: small whole numbers, halves and roundings are both."""
    with np.errstate(all="ignore"):
        kept = np.array_equal(g.astype(np.float32), g)
    mantissa = np.frexp(g)[0] * 4096
    return kept and not bool(np.all(mantissa == np.round(mantissa)))
