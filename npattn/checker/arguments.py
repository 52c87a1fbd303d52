"""The numbers and words that a check is asked with: finite, in range and of the right type, or an error by name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from npattn.checker.calls import argument_names
from npattn.checker.trees import within
from npattn.checks import real_number, true_or_false, whole_number

LARGEST = float(np.finfo(np.float64).max)


class Settings(NamedTuple):
    """How a check is made. `npattn.gradcheck` tells what each is."""

    seed: int = 0
    rtol: float = 1e-9
    atol: float = 0.0
    entries: int = 2000
    directions: int = 8
    points: int = 8
    strict: bool = False
    allow_sharing: bool = False
    dtype: str = "float64"
    progress: bool = True
    causes: bool = True  # False stops at the first tensor that is wrong, and asks for no cause

    @property
    def single(self) -> bool:
        """Whether it is made in float32."""
        return self.dtype == "float32"


def settings(**given: Any) -> Settings:
    """The settings, checked.

    Raises
    ------
    TypeError, ValueError
        If one is not finite, out of its range, or of another type.
    """
    return Settings(
        seed=whole_number("seed", given["seed"], 0),
        rtol=real_number("rtol", given["rtol"], 0, 0.5),
        atol=real_number("atol", given["atol"], 0, LARGEST),
        entries=whole_number("entries", given["entries"], 1),
        directions=whole_number("directions", given["directions"], 1, 10_000),
        points=whole_number("points", given["points"], 1, 10_000),
        strict=true_or_false("strict", given["strict"]),
        allow_sharing=true_or_false("allow_sharing", given["allow_sharing"]),
        dtype=float_name(given["dtype"]),
        progress=true_or_false("progress", given["progress"]),
    )


def float_name(dtype: Any) -> str:
    """ "float32" or "float64", given so or as a dtype.

    Raises
    ------
    TypeError
        If it is neither.
    """
    try:
        name = "" if dtype is None else np.dtype(dtype).name
    except TypeError:
        name = ""
    if name not in ("float32", "float64"):
        raise TypeError(f"dtype: expected float32 or float64, got {dtype!r}")
    return name


def refuse_strange(name: str, tree: Any) -> None:
    """Refuse an array among the inputs that would be passed on unseen, or checked as something that it is not.

    Raises
    ------
    TypeError
        If it is a matrix, a masked array, or an array of objects, records or complex numbers.
    """
    for key, leaf in arrays(name, tree):
        if isinstance(leaf, np.ma.MaskedArray):
            raise TypeError(f"{key}: expected a plain array, got a masked one; {key}.filled(…) makes it plain")
        if isinstance(leaf, np.matrix):
            raise TypeError(f"{key}: expected a plain array, got a numpy.matrix; numpy.asarray({key}) makes it plain")
        if leaf.dtype.kind not in "fiubc":
            what = "objects" if leaf.dtype.kind == "O" else f"dtype {leaf.dtype}"
            raise TypeError(f"{key}: expected an array of numbers, got one of {what}")


def arrays(name: str, tree: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The NumPy arrays of an input, by dotted name."""
    return ((key, part) for key, part in within(name, tree) if isinstance(part, np.ndarray))


def names_of(target: Any, inputs: Sequence[Any]) -> list[str]:
    """What the target's forward calls its inputs; "inputs[0]", … where that cannot be seen."""
    forward = target[0] if isinstance(target, tuple) and target else getattr(target, "forward", target)
    return argument_names(forward if callable(forward) else target, inputs)


def passed_on(name: str, tree: Any, known: Collection[str]) -> Iterator[str]:
    """What an input hands in that has no row, by `known` names of those that have one: "t (int64 array)"."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from passed_on(f"{name}.{key}", value, known)
    elif isinstance(tree, tuple | list):
        for key, value in zip(getattr(tree, "_fields", range(len(tree))), tree, strict=True):
            yield from passed_on(f"{name}.{key}", value, known)
    elif tree is not None and name not in known:
        shape, dtype = getattr(tree, "shape", ()), str(getattr(tree, "dtype", "")).removeprefix("torch.")
        if not (shape and "float" in dtype):  # that has a row, unless wrt= or constants= say otherwise
            yield f"{name} ({dtype} array)" if shape and dtype else f"{name} ({type(tree).__name__})"
