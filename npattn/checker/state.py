"""Before any number is compared: what forward and backward must not do, and what they give at this point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from npattn.backend import to_numpy
from npattn.checker.numeric import EPS
from npattn.checker.target import GradientCountError, Target

Arrays = dict[str, np.ndarray]


@dataclass
class Start:
    """The point of the check: θ, y, dy and the gradients that the backward gives there."""

    form: Target
    values: Arrays
    y: np.ndarray
    dy: np.ndarray
    mutates: bool  # whether forward needs copies
    gradients: Arrays
    earlier: Arrays  # gradients at another point, to know a stale cache by
    faults: dict[str, str] = field(default_factory=dict)  # gradients that cannot be compared, and why

    @property
    def sizes(self) -> dict[str, int]:
        """Lengths of axes, by the letters that people call them."""
        for value in self.values.values():
            if value.ndim == 4:
                N, C, H, W = value.shape
                return {"H·W": H * W, "N": N, "C": C, "H": H, "W": W, "2": 2}
        found: dict[str, int] = {}
        for name, value in self.values.items():
            found |= {f"axis {i} of {name}": size for i, size in enumerate(value.shape)}
        return found | {"2": 2}


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


def raised(error: Exception) -> str:
    """What to say of a backward that raised."""
    return str(error) if isinstance(error, GradientCountError) else f"backward: raised {type(error).__name__}: {error}"


def begin(form: Target, rng: np.random.Generator, allow_sharing: bool) -> tuple[Start | None, list[str]]:
    """Run forward and backward a few times, and say what they do that they must not [5]."""
    problems: list[str] = []

    def complain(text: str) -> None:
        if text not in problems:
            problems.append(text)

    def forward(values: Arrays) -> tuple[np.ndarray, Any, Arrays]:
        given = copies(values)
        with np.errstate(all="ignore"):
            y, cache = form.forward(given)
        for name, value in given.items():
            if not equal(value, values[name]):
                complain(f"{name}: mutated by forward")
        return as_array("y", y), cache, given

    # Another point first: what a layer keeps of it must be gone at the second forward
    values = form.values
    other = {name: value * rng.uniform(0.8, 1.2, value.shape) for name, value in values.items()}
    old_y, old_cache, _ = forward(other)
    dy = signed(rng, old_y.shape)
    earlier: Arrays = {}
    try:
        with np.errstate(all="ignore"):
            old = form.backward(dy.copy(), old_cache)
        earlier = {name: np.array(g) for name, g in old.items() if g is not None}
    except Exception as error:
        return None, [raised(error)]

    y, cache, given = forward(values)
    if y.dtype != np.float64:
        complain(f"y: expected dtype float64, that of the inputs, got {y.dtype}")
        y = y.astype(np.float64)
    if not np.all(np.isfinite(y)):
        return None, [*problems, f"y: {int(np.sum(~np.isfinite(y)))} of {y.size} numbers are NaN or infinite"]
    for name, value in given.items():
        if not allow_sharing and shares(y, value):
            complain(f"y: shares memory with {name}")
    first_y = y.copy()

    def backward(dy: np.ndarray, cache: Any = cache) -> dict[str, Any]:
        handed = dy.copy()
        with np.errstate(all="ignore"):
            gradients = form.backward(handed, cache)
        if not equal(handed, dy):
            complain("dy: mutated by backward")
        for name, value in given.items():
            if not equal(value, values[name]):
                complain(f"{name}: mutated by backward")
        if not allow_sharing:
            for name, g in gradients.items():
                for what, array in {"dy": handed, "y": y, **given}.items():
                    if isinstance(g, np.ndarray) and shares(g, array):
                        complain(f"gradient of {name}: shares memory with {what}")
        return gradients

    try:
        gradients = backward(dy)
        first = {name: None if g is None else np.array(g) for name, g in gradients.items()}
        if not gradients:
            return None, [*problems, "backward: gave no gradient at all"]
        faults, usable = usable_gradients(form, gradients)
        names = list(usable)
        for i, name in enumerate(names):
            for second in names[i + 1 :]:
                if not allow_sharing and shares(usable[name], usable[second]):
                    complain(f"gradient of {name}: shares memory with the gradient of {second}")

        # The same again, another dy, a multiple, and zero
        dy2 = signed(rng, y.shape)
        again = backward(dy)
        for name in usable:
            if not equal(again[name], first[name]):
                complain(f"gradient of {name}: another one the second time, for the same dy")
        second_gradients = {name: np.array(g) for name, g in backward(dy2).items() if name in usable and g is not None}
        mixed = backward(1.25 * dy - 0.75 * dy2)
        for name in usable:
            if not equal(gradients[name], first[name]):
                complain(f"gradient of {name}: overwritten by a later backward")
        zero = backward(np.zeros_like(dy))
        consistent = not problems
        floor = 1e-12 * float(
            np.linalg.norm(dy * y)
        )  # a gradient that is 0 but for rounding is not linear, and need not
        for name, g in first.items():
            if name not in usable or name not in second_gradients or g is None:
                continue
            expected = 1.25 * g - 0.75 * second_gradients[name]
            size = float(np.max(np.abs(g), initial=0) + np.max(np.abs(second_gradients[name]), initial=0))
            off = mixed[name] is None or np.max(np.abs(mixed[name] - expected), initial=0) > 1e-9 * size + floor
            if consistent and off:
                complain(f"gradient of {name}: not linear in dy")
            if zero[name] is None or np.any(zero[name]) or not np.all(np.isfinite(zero[name])):
                complain(f"gradient of {name}: not 0 for dy = 0")

        # A later forward must change nothing of this one
        later_y, _, _ = forward(other)
        if not equal(y, first_y):
            complain("y: overwritten by a later forward")
        if not form.stateful:
            late = backward(dy)
            for name in usable:
                if not equal(late[name], first[name]):
                    complain(
                        f"gradient of {name}: changed by a later forward, so something is kept outside of the cache"
                    )
        if not equal(later_y, old_y) or not equal(forward(values)[0], first_y):
            return None, [
                *problems,
                "forward: another y for the same input, so no derivative can be measured (seed_forward= "
                "seeds what it draws)",
            ]
    except Exception as error:
        return None, [*problems, raised(error)]
    mutates = any("mutated by forward" in problem for problem in problems)
    gradients = {name: np.asarray(first[name], dtype=np.float64) for name in usable}
    start = Start(form, copies(values), first_y, dy, mutates, gradients, earlier, faults)
    return start, problems


def usable_gradients(form: Target, gradients: Mapping[str, Any]) -> tuple[dict[str, str], Arrays]:
    """Gradients that can be compared; for the others, what is wrong with them."""
    faults: dict[str, str] = {}
    usable: Arrays = {}
    for name, value in form.values.items():
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
        elif g.dtype != np.float64:
            faults[name] = f"expected a gradient of dtype float64, got {g.dtype}"
        elif not np.all(np.isfinite(g)):
            index = [int(i) for i in np.argwhere(~np.isfinite(g))[0]]
            faults[name] = (
                f"{int(np.sum(~np.isfinite(g)))} of {g.size} entries are NaN or infinite, the first at {index}"
            )
        else:
            usable[name] = np.asarray(g)
    return faults, usable


def rounding_noise(start: Start) -> dict[str, float]:
    """How exact each gradient can be expected to be in float64 [3].

    The backward runs in float32 and, on the very same numbers, in float64: what differs is rounding, 2²⁹ times as
    coarse as float64's. Smaller values of θ are asked as well: a gate at 1 − 10⁻¹² is plain 1 in float32 and shows no
    rounding there, but on its way it does. Where float32 is not taken, a share of the loss stands for it.
    """
    loss = float(np.linalg.norm(start.dy * start.y))
    if "float32" not in start.form.dtypes:
        return dict.fromkeys(start.values, 1e-11 * loss)
    noise = dict.fromkeys(start.values, 100 * EPS * loss)
    single = start.dy.astype(np.float32)
    for shrink in (1, 0.7, 0.5, 0.35, 0.25, 0.12):
        low = {name: (shrink * value).astype(np.float32) for name, value in start.values.items()}
        high = {name: value.astype(np.float64) for name, value in low.items()}
        try:
            with np.errstate(all="ignore"):
                _, cache = start.form.forward(low)
                coarse = {name: np.array(g) for name, g in start.form.backward(single, cache).items() if g is not None}
                _, cache = start.form.forward(high)
                fine = start.form.backward(single.astype(np.float64), cache)
        except Exception:  # a forward may well refuse float32
            return {name: max(noise[name], 1e-11 * loss) for name in start.values}
        for name in start.gradients:
            apart = np.abs(coarse[name] - fine[name])
            worst = float(np.max(np.where(np.isfinite(apart), apart, 0), initial=0))
            noise[name] = max(noise[name], 100 * 2.0**-29 * worst)
    return noise
