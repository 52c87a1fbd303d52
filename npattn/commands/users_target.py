"""What `npattn gradcheck` is pointed at: a target in somebody's file or module, and the inputs for it."""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from npattn.arguments import did_you_mean
from npattn.blocks import blocks
from npattn.capacity import need
from npattn.checker.calls import asked
from npattn.checker.recognise import input_names, is_target
from npattn.commands.names import op_words
from npattn.commands.shapes import shape
from npattn.commands.usage import UsageError
from npattn.files import opened

LARGEST = 2**24  # bytes of a file with a target
HELD = 6  # arrays of an input's size, at least, that a check holds: x, y, their gradients, and the differences
PACKAGE = str(Path(__file__).resolve().parents[1])


def load(name: str) -> tuple[Any, list[Any] | dict[str, Any] | None]:
    """What `package.module:name` or `file.py:name` names, and its inputs if it brings them.

    Raises
    ------
    UsageError
        If there is no such module, file or name.
    """
    where, _, attribute = name.rpartition(":") if not name.endswith(".py") else (name, "", "")
    if not where:
        where, attribute = name, ""
    module = file(Path(where)) if where.endswith(".py") else imported(where)
    if not attribute:
        if hasattr(module, "make"):
            attribute = "make"
        elif is_target(module):
            return module, None
        else:
            raise UsageError(f"expected package.module:name or file.py:name, got {name!r}")
    return made(name, attribute_of(module, attribute))


def imported(name: str) -> ModuleType:
    """A module, of one's own too, as `python -m` finds it."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            near = did_you_mean(name, (*blocks(), *op_words()))
            ending = f"a file is named with its ending: {name.rpartition('.')[2]}.py:name"
            raise UsageError(f"{error}; {ending}; --list shows the names of the library's own{near}") from None
        raise


def file(path: Path) -> ModuleType:
    """A Python file as a module."""
    try:
        with opened(path, LARGEST):
            pass  # a file, and of a size that Python may read
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def attribute_of(module: ModuleType, name: str) -> Any:
    """What a module calls so; `affine` stands for affine_forward and affine_backward."""
    pairs = [(f"{name}_forward", f"{name}_backward"), (f"forward_{name}", f"backward_{name}")]
    if not hasattr(module, name.split(".")[0]):
        for forward, backward in pairs:
            if hasattr(module, forward) and hasattr(module, backward):
                return getattr(module, forward), getattr(module, backward)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            known = ", ".join(one for one in vars(module) if not one.startswith("_")) or "nothing"
            raise UsageError(f"{module.__name__} has no {name!r}; it has {known}")
        found = getattr(found, part)
    return found


def made(name: str, what: Any) -> tuple[Any, list[Any] | dict[str, Any] | None]:
    """The target; what makes it is called if it needs no arguments, and may give the inputs too."""
    ready = is_target(what) and not (isinstance(what, type) and not asked(what).required and needs_an_instance(what))
    if not ready and callable(what) and not asked(what).required:
        what = what()
    if isinstance(what, type) and not ready:
        wants = ", ".join(asked(what).required)
        raise UsageError(
            f"{name}: expected a target or what makes one without arguments, got the class {what.__name__}, which asks "
            f"for {wants}. Write a function that makes it, and its inputs: "
            f"def make(): return {what.__name__}({wants}), x"
        )
    if isinstance(what, tuple) and len(what) >= 2 and not (len(what) == 2 and all(map(callable, what))):
        target, *inputs = what
        if len(inputs) == 1 and isinstance(inputs[0], tuple | list | dict):
            return target, inputs[0] if isinstance(inputs[0], dict) else list(inputs[0])
        return target, inputs
    return what, None


def needs_an_instance(kind: type) -> bool:
    """Whether the class itself is no target."""
    return not is_target(kind)


def drawn(specs: Iterable[str], rng: np.random.Generator, ties: bool) -> dict[str, Any]:
    """Inputs by name, from words such as x=2,3 or labels=4:0..9 or train=True.

    Raises
    ------
    UsageError
        If a word is none of these.
    """
    found = {}
    for spec in specs:
        name, equals, what = spec.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--input: expected name=shape, such as x=2,3, got {spec!r}")
        found[name] = value(what, rng, ties)
    return found


def value(what: str, rng: np.random.Generator, ties: bool) -> Any:
    """A shape as an array of random numbers, of whole numbers where a range follows; a number or a word as it is."""
    if what in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[what]
    whole = re.fullmatch(r"([^:]*):(-?\d+)\.\.(-?\d+)", what)
    if whole is not None:
        low, high = int(whole[2]), int(whole[3])
        if high < low:
            raise UsageError(f"--input: expected a range low..high, got {low}..{high}")
        return rng.integers(low, high, lengths(whole[1]), endpoint=True)
    if re.fullmatch(r"-?\d*\.\d+(e-?\d+)?|-?\d+e-?\d+", what):
        return float(what)
    return image(rng, lengths(what), ties)


def lengths(text: str) -> tuple[int, ...]:
    """A shape, for whose arrays there is memory."""
    try:
        found = shape(text)
        need(HELD * 8 * math.prod(found), lambda: f"--shape or --input {text}: {HELD} arrays of that shape")
        return found
    except MemoryError as error:
        raise UsageError(str(error)) from None
    except ValueError as error:
        raise UsageError(f"--shape or --input: {error}; or with a range, 4:0..9, or a value, 0.5 or True") from None


def image(rng: np.random.Generator, shape: tuple[int, ...], ties: bool) -> np.ndarray:
    """A random input; with `ties` of small whole numbers."""
    return rng.integers(0, 3, shape).astype(np.float64) if ties else rng.standard_normal(shape)


def in_order(target: Any, inputs: dict[str, Any]) -> list[Any]:
    """Inputs by name, in the order in which the target's forward takes them.

    Raises
    ------
    UsageError
        If it has no argument of that name.
    """
    known = input_names(target)
    if known is None:
        return list(inputs.values())
    for name in inputs:
        if name not in known:
            raise UsageError(f"--input {name}: forward takes {', '.join(known) or 'nothing'}")
    given = [name for name in known if name in inputs]
    before = known[: known.index(given[-1])] if given else []
    left = [name for name in before if name not in inputs]
    if left:
        raise UsageError(f"--input: {', '.join(left)} missing, which comes before {given[-1]} in forward")
    return [inputs[name] for name in given]


def in_a_line(error: BaseException) -> str:
    """An error in one line, with the line of the user's code that it comes from."""
    told = f"{type(error).__name__}: {error}".split("\n")[0]
    for frame in reversed(own_frames(error)):
        return f"{Path(frame.filename).name}:{frame.lineno}, in {frame.name}: {(frame.line or '').strip()}: {told}"
    return told


def own_frames(error: BaseException) -> Sequence[traceback.FrameSummary]:
    """The frames that are neither ours nor a library's."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError):
        return [traceback.FrameSummary(error.filename or "", error.lineno or 0, "the file", line=error.text or "")]
    return [
        frame for frame in frames
        if not frame.filename.startswith((PACKAGE, "<")) and "site-packages" not in frame.filename
        and f"{Path(importlib.__file__).parent}" not in frame.filename
    ]  # fmt: skip
