"""Recording what a layer does: each op and each piece of arithmetic of its own forward and backward, as they run.

Nothing of a block is written again here. Its textbook runs on arrays that compute as NumPy's do and note what they were
made of. From that come the steps of the forward, as a graph, of which a picture of the block can be drawn, and how much
work forward and backward are. An op (a forward of npattn.ops) is one step of the graph, whatever it does inside.
"""

from __future__ import annotations

import contextlib
import functools
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from npattn.backend import numpy_module
from npattn.layer import Layer

Origin = frozenset[int | str]
"""The steps that numbers are from, and the parameters, by key."""

MADE = ("zeros", "zeros_like", "ones", "ones_like", "empty", "full", "full_like", "arange", "asarray")
MOVED = ("reshape", "permute_dims", "transpose", "broadcast_to", "expand_dims", "squeeze", "moveaxis", "flip", "roll",
         "astype", "copy", "tile", "repeat", "sliding_window_view")  # fmt: skip
"""Functions that compute nothing: their numbers are those that they were given."""
CONTRACTED = ("matmul", "vecdot", "matvec", "vecmat")


class Step(NamedTuple):
    """One op, or one piece of arithmetic."""

    name: str  # of the op or of NumPy's function: "linear", "multiply", "mean"
    op: bool  # whether it is a forward of npattn.ops
    sources: tuple[tuple[int, ...], ...]  # for each array that it takes, the steps that this is from; 0 is x
    weights: tuple[str, ...]  # the parameters that it takes, by key
    shapes: tuple[tuple[int, ...], ...]  # of the arrays that it takes
    shape: tuple[int, ...]  # of what it makes
    told: Mapping[str, Any] = {}  # numbers by name: an axis, a dilation; "number", one that it adds


@dataclass
class Work:
    """What was done, within ops too."""

    multiplications: int = 0  # divisions as well
    moved: int = 0  # bytes read from memory and written to it, each time that a function takes or makes them


@dataclass
class Recording:
    """A forward, its steps and its work, and the work of its backward."""

    steps: list[Step] = field(default_factory=list)  # the first is x
    gates: dict[int, str] = field(default_factory=dict)  # the name of a gate, by the step that made it
    last: Origin = frozenset()  # the steps that made y
    forward: Work = field(default_factory=Work)
    backward: Work = field(default_factory=Work)


class Recorder:
    """Notes what the arrays of a run tell it."""

    def __init__(self, whole: Callable[[str], bool]) -> None:
        self.whole = whole
        self.steps: list[Step] = []
        self.work = Work()
        self.inside = 0  # of how many ops

    def step(self, name: str, inputs: list[Any], made: Any, told: Mapping[str, Any], op: bool = False) -> Origin:
        """Note a step; where its numbers are from afterwards. Within an op, and of constants alone, it is none."""
        origins: list[Origin] = [getattr(one, "origin", frozenset()) for one in inputs]
        both: Origin = frozenset().union(*origins)
        if self.inside or not any(isinstance(one, int) for one in both):
            return both
        sources = tuple(tuple(sorted(one for one in each if isinstance(one, int))) for each in origins)
        weights = tuple(dict.fromkeys(one for each in origins for one in each if isinstance(one, str)))
        shapes = tuple(tuple(np.shape(one)) for one in inputs)
        shape = () if type(made) in (list, tuple) else tuple(np.shape(made))
        numbers = {key: value for key, value in told.items() if isinstance(value, int | float)}
        self.steps.append(Step(name, op, sources, weights, shapes, shape, numbers))
        return frozenset({len(self.steps) - 1})

    def count(self, name: str, inputs: list[Any], made: Any) -> None:
        """Note the work of a function of NumPy's."""
        self.work.moved += sum({place(one): held(one) for one in inputs}.values()) + held(made)
        if name in CONTRACTED:
            self.work.multiplications += math.prod(np.shape(made)) * np.shape(inputs[0])[-1]
        elif name in ("multiply", "divide", "square", "power") and np.asarray(made).dtype.kind == "f":
            self.work.multiplications += math.prod(np.shape(made))


NOW: ContextVar[Recorder] = ContextVar("recorder")


class Recorded(np.ndarray[Any, Any]):
    """An array that computes as NumPy's do, and knows where its numbers are from."""

    only_watches = True  # npattn.backend asks
    origin: Origin

    def __array_finalize__(self, parent: Any) -> None:
        self.origin = getattr(parent, "origin", frozenset())

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        given = {} if out is None else {"out": bare(out)}
        made = getattr(ufunc, method)(*bare(inputs), **given, **bare_values(kwargs))
        name = ufunc.__name__ if method == "__call__" else {"add": "sum", "maximum": "max"}.get(ufunc.__name__, method)
        taken = [one for one in inputs if isinstance(one, np.ndarray)]
        NOW.get().count(name, taken, made)
        number = next((one for one in inputs if isinstance(one, int | float)), None)
        origin = NOW.get().step(name, taken, made, {**kwargs, "number": number})
        if out is None:
            return kept(made, origin)
        for one in out:
            if isinstance(one, Recorded):
                one.origin = one.origin | origin
        return out[0]

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        taken = [*arrays(args), *arrays(kwargs)]
        made = function(*bare(args), **bare_values(kwargs))
        if not isinstance(made, np.ndarray | np.generic):
            return made
        name, recorder = function.__name__, NOW.get()
        if name in MOVED:
            if not any(np.may_share_memory(np.asarray(made), bare(one)) for one in taken):
                recorder.count(name, taken, made)
            return kept(made, joined(taken))
        recorder.count(name, taken, made)
        return kept(made, recorder.step(name, taken, made, kwargs))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(index, bare(value))
        NOW.get().work.moved += 2 * held(value)
        self.origin = self.origin | joined([value])


def bare(value: Any) -> Any:
    """The same without records, within tuples and lists too."""
    if isinstance(value, Recorded):
        return value.view(np.ndarray)
    if type(value) in (list, tuple):
        return type(value)(bare(one) for one in value)
    return value


def bare_values(given: dict[str, Any]) -> dict[str, Any]:
    return {key: bare(value) for key, value in given.items()}


def arrays(value: Any) -> Iterator[np.ndarray]:
    """The arrays in arguments, in their order."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from arrays(one)
    elif isinstance(value, dict):
        yield from arrays(list(value.values()))


def joined(inputs: list[Any]) -> Origin:
    """Where the numbers of all of these are from."""
    return frozenset().union(*(getattr(one, "origin", frozenset()) for one in inputs))


def kept(made: Any, origin: Origin) -> Any:
    """The array, with where it is from."""
    result = np.asarray(made).view(Recorded)
    result.origin = origin
    return result


def place(array: np.ndarray) -> tuple[int, tuple[int, ...]]:
    """Where an array is: of one that a function takes twice, x in x · x, each number is read once."""
    return int(array.__array_interface__["data"][0]), array.shape


def held(value: Any) -> int:
    """How many bytes an array has in memory; a number that is broadcast is there once."""
    if not isinstance(value, np.ndarray):
        return 0
    there = [n for n, stride in zip(value.shape, value.strides, strict=True) if stride]
    return int(value.itemsize * math.prod(there))


def op_of(frame: FrameType) -> str | None:
    """The name of the op whose forward a frame is, or None."""
    room, _, name = str(frame.f_globals.get("__name__")).rpartition(".")
    return name if room == "npattn.ops" and frame.f_code.co_name == "forward" else None


@contextlib.contextmanager
def ops_noticed(recorder: Recorder) -> Iterator[None]:
    """Within, a call of an op's forward is one step, and what it returns first is from that step.

    By Python's profiling hook: a block may hold the function itself, in a table of its options.
    """
    waiting: list[tuple[FrameType, list[Any], str, Mapping[str, Any]]] = []

    def notice(frame: FrameType, event: str, result: Any) -> None:
        if event == "call" and (op := op_of(frame)) and recorder.whole(op):
            taken = list(arrays([value for name, value in frame.f_locals.items() if name != "self"]))
            waiting.append((frame, taken, op, dict(frame.f_locals)))
            recorder.inside += 1
        elif event == "return" and waiting and waiting[-1][0] is frame:
            _, taken, op, told = waiting.pop()
            recorder.inside -= 1
            if result is not None:  # else it raised
                origin = recorder.step(op, taken, result[0], told, op=True)
                for part in arrays(result):  # a gate may be read from the cache
                    if isinstance(part, Recorded) and not any(part is one for one in taken):
                        part.origin = origin

    before = sys.getprofile()
    sys.setprofile(notice)
    try:
        yield
    finally:
        sys.setprofile(before)


def recording_maker(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of NumPy's that makes an array of none, or of another one; what it makes is recorded too."""

    @functools.wraps(function)
    def made(*args: Any, **kwargs: Any) -> Any:
        taken = list(arrays(args))
        result = function(*bare(args), **bare_values(kwargs))
        NOW.get().work.moved += held(result) + (held(taken[0]) if function.__name__ == "asarray" and taken else 0)
        return kept(result, joined(taken) if function.__name__ == "asarray" else frozenset())

    return made


@contextlib.contextmanager
def recording(whole: Callable[[str], bool]) -> Iterator[Recorder]:
    """Within, ops and what makes new arrays tell the recorder. For one thread alone."""
    xp, recorder = numpy_module(), Recorder(whole)
    token = NOW.set(recorder)
    try:
        with contextlib.ExitStack() as stack:
            for name in MADE:
                stack.enter_context(mock.patch.object(xp, name, recording_maker(getattr(xp, name))))
            stack.enter_context(ops_noticed(recorder))
            yield recorder
    finally:
        NOW.reset(token)


def recorded(layer: Layer, x: np.ndarray, whole: Callable[[str], bool] = lambda op: True) -> Recording:
    """Run a layer forward and backward on x, and return what it did.

    Parameters
    ----------
    layer
        Made with fused=False, on NumPy. It is changed: its parameters become recorded arrays.
    x
        As it takes it, of its dtype.
    whole
        Whether an op of that name is one step; the others are shown by what they are made of.

    Returns
    -------
    Recording
    """
    for key, weight in list(layer.params.items()):
        layer.params[key] = kept(weight, frozenset({key}))
    with recording(whole) as recorder:
        recorder.steps.append(Step("x", False, (), (), (), tuple(x.shape)))
        y = layer.forward(kept(x, frozenset({0})))
        gates = {
            step: name
            for name, gate in layer._gates.items()
            for step in getattr(gate, "origin", ())
            if isinstance(step, int)
        }
        found = Recording(list(recorder.steps), gates, y.origin, recorder.work)
        recorder.work, recorder.inside = Work(), 1
        layer.backward(kept(np.ones(y.shape, y.dtype), frozenset()))
        found.backward = recorder.work
    return found
