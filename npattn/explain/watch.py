"""Watching a pair run: what each tagged line assigned, read by Python's line hook from the code that runs."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from npattn.ops.pooling import MaxCache
from npattn.packing import fields

TAG = re.compile(r"\b[A-Z]+\d?\.\d+\b")
WATCHED = ("attention", "variants")  # the packages whose functions are entered; what they call in ops/ is one line


class Line(NamedTuple):
    """A line of source that the trace stops at."""

    tag: str  # "SE.1"; "+" where two gradients meet, which is a line without a tag of its own
    names: tuple[str, ...]  # the variables that it assigns
    code: str  # the line, without its tag


class Step(NamedTuple):
    """What one line assigned."""

    line: Line
    values: dict[str, np.ndarray]
    notes: list[str]  # in words, what is no array: where a maximum was found
    inside: list[Step]  # the tagged lines of the block that this line called


def walked(steps: list[Step]) -> Iterator[Step]:
    """All steps in the order in which they ended: what is inside of one comes before it."""
    for step in steps:
        yield from walked(step.inside)
        yield step


def tagged_lines(module: ModuleType) -> dict[int, Line]:
    """The assignments with a tag, and the sums without one, of every function in the module, by line number."""
    source = inspect.getsource(module)
    texts = source.splitlines()
    lines: dict[int, Line] = {}
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Assign | ast.AugAssign):
                    for line in assignment(node, texts):
                        lines.update(dict.fromkeys(range(node.lineno, (node.end_lineno or node.lineno) + 1), line))
    return lines


def assignment(node: ast.Assign | ast.AugAssign, texts: list[str]) -> Iterator[Line]:
    """The line of an assignment, if the trace stops there."""
    code, _, comment = texts[(node.end_lineno or node.lineno) - 1].strip().partition("  # ")
    if node.end_lineno != node.lineno:  # a statement on several lines has its tag behind the last one
        code = ast.unparse(node)
    tags = TAG.findall(comment)
    meets = isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.Add)
    if tags or meets:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        yield Line(", ".join(tags) or "+", tuple(names), code)


@functools.cache
def lines_of(file: str) -> dict[int, Line] | None:
    """The tagged lines of a file of the packages that are watched; None for any other file."""
    path = Path(file)
    root = Path(__file__).resolve().parents[1]
    if path.parent.parent != root or path.parent.name not in WATCHED:
        return None
    return tagged_lines(importlib.import_module(f"npattn.{path.parent.name}.{path.stem}"))


def watched(function: Callable[..., Any], *arguments: Any, module: ModuleType | None = None) -> tuple[Any, list[Step]]:
    """Call the function and read each tagged line's variables, also in the blocks that it calls, as it runs.

    `module` is watched instead of attention/ and variants/: an op, by itself.
    """
    alone = None if module is None else {inspect.getfile(module): tagged_lines(module)}
    open_frames: list[list[Step]] = [[]]
    returned: list[Step] = []

    def enter(frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        nonlocal returned
        file = frame.f_code.co_filename
        lines = lines_of(file) if alone is None else alone.get(file)
        if lines is None or "<" in frame.f_code.co_name:  # an op, a check, a comprehension
            return None
        open_frames.append([])
        waiting, returned = returned, []  # what the same line has called before
        last: int | None = None

        def follow(frame: FrameType, event: str, _: Any) -> Callable[..., Any]:
            nonlocal last, returned
            if last in lines:  # the line before this event has run: its variables are there
                step = read(lines[last], frame.f_locals, returned)
                before = open_frames[-1][-1] if open_frames[-1] else None
                if before and before.line is step.line and not (before.values and step.inside):
                    open_frames[-1].pop()  # a line of a loop: what it has come to; or a statement that had not ended
                    step = step._replace(inside=[*before.inside, *step.inside])
                open_frames[-1].append(step)
                returned = []
            elif last is not None:
                open_frames[-1] += returned  # a line without a tag called a block
                returned = []
            last = frame.f_lineno if event == "line" else None
            if event == "return":
                returned = [*waiting, *open_frames.pop(), *returned]
            return follow

        return follow

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        result = function(*arguments)
    finally:
        sys.settrace(before)
    return result, returned


def read(line: Line, variables: dict[str, Any], inside: list[Step]) -> Step:
    """The arrays among the line's variables, and where a maximum was found."""
    values, notes = {}, []
    for name in line.names:
        value = variables.get(name)
        if isinstance(value, np.ndarray | np.floating):
            values[name] = np.array(value)
        elif isinstance(value, MaxCache):
            notes.append(places(value))
        elif hasattr(value, "_fields"):  # gradients of weights; a cache is not shown
            values |= {f"{name}.{f}": array.copy() for f, array in fields(value) if type(value).__name__ == "Params"}
        elif isinstance(value, list | tuple):
            parts = [part[0] if type(part) is tuple else part for part in value]  # a call's answer: y of (y, cache)
            if all(isinstance(part, np.ndarray) for part in parts):
                values |= {f"{name}[{i}]": np.array(part) for i, part in enumerate(parts)}
    return Step(line, values, notes, inside)


def places(cache: MaxCache) -> str:
    """In words, where the first maxima are: a pixel of each channel, or a channel of each pixel."""
    if cache.i.ndim == 3:  # over space: (N, C, 1), an index into the H·W pixels
        width = cache.shape[3]
        spots = ", ".join(f"({i // width}, {i % width})" for i in cache.i.ravel())
        return f"first maximum at pixel {spots}"
    return f"first maximum in channel {', '.join(str(i) for i in cache.i.ravel())}"
