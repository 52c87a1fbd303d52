"""Every pair and every layer of the library, with random inputs: one table for the command and the tests.

Nothing is listed here. An op says what its forward takes (`examples`), a block declares its parameters, and both know
the forms they have; npattn.blocks finds them.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from npattn.block import Block, Place
from npattn.blocks import Entry, blocks, classes, pairs
from npattn.fused import twin
from npattn.layer import Layer
from npattn.packing import lengths, packed
from npattn.samples import Random


class Case(NamedTuple):
    """A pair, and its inputs. `backward` gives one gradient for each, or None where it is a constant."""

    name: str
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    draw: Callable[[Random], tuple[Any, ...]]
    module: ModuleType
    is_op: bool
    norm: bool = False  # whether it normalises by the batch: two numbers a channel are then always at ±1


def op_cases() -> list[Case]:
    """The pairs of ops/, and those of layers that are made of layers: a row for each of their examples."""
    found = []
    for module in pairs():
        for name, inputs in module.examples(Random(np.random.default_rng(0), (2, 3, 4, 5))).items():
            forward = with_settings(module.forward, module, name)
            backward = for_each_input(module.backward, len(inputs))
            found.append(Case(name, forward, backward, drawn(module, name), module, True, "train" in name))
    return found


def with_settings(
    forward: Callable[..., Any], module: ModuleType, name: str, others: Mapping[str, Any] | None = None
) -> Callable[..., Any]:
    """An op's forward with what it is given beside the inputs of that name: the op's `SETTINGS`, if it has some.

    `others` win over these. Where the op says `TOGETHER`, it takes all inputs as one tuple.
    """
    settings = {**getattr(module, "SETTINGS", {}).get(name, {}), **(others or {})}
    together = hasattr(module, "TOGETHER")
    if not settings:
        return forward

    @functools.wraps(forward)
    def chosen(*inputs: Any) -> Any:
        return forward(inputs, **settings) if together else forward(*inputs, **settings)

    asked = [p for p in inspect.signature(forward).parameters.values() if p.name not in settings]
    if together:
        asked = [asked[0].replace(kind=inspect.Parameter.VAR_POSITIONAL)]
    chosen.__signature__ = inspect.Signature(asked)  # type: ignore[attr-defined]

    return chosen


def drawn(module: ModuleType, name: str) -> Callable[[Random], tuple[Any, ...]]:
    """A function from a draw to the inputs of that name."""
    return lambda draw: module.examples(draw)[name]


def for_each_input(backward: Callable[..., Any], count: int) -> Callable[..., Any]:
    """A backward with a None for each further input: running statistics are constants."""

    @functools.wraps(backward)
    def padded(dy: Any, cache: Any) -> Any:
        answer = backward(dy, cache)
        answer = tuple(answer) if isinstance(answer, list) else answer
        if type(answer) is not tuple:  # one gradient, which may itself be a NamedTuple's
            return answer if count == 1 or isinstance(answer, tuple) else (answer, *[None] * (count - 1))
        if count == 1 and isinstance(answer[1], tuple) and set(answer[1]) == {None}:  # no parameters were given
            return answer[0]
        return (*answer, *[None] * (count - len(answer)))

    return padded


def block_cases() -> list[Case]:
    """The pairs of attention/ and variants/: a row for each block and each form, two where there are statistics.

    Behind a block's comes one for each of the other arguments that its card has for checks.
    """
    return [case for entry in checked() for case in cases_of(entry)]


def checked() -> Iterator[Entry]:
    """Every block and form that is one pair, each block with other arguments too."""
    for entry in blocks().values():
        if issubclass(entry.kind, Block):
            yield from (entry, *entry.further())


def cases_of(
    entry: Entry, module: Any = None, place: Place | None = None, others: Mapping[str, Any] | None = None
) -> Iterator[Case]:
    """The rows of one block or form; `module` is another form of its pair, the fused one. `place` decides its options.

    The inputs are then to be drawn for that place. `others` are arguments of the forward, and win over the block's.
    """
    module = sys.modules[entry.kind.textbook] if module is None else module
    example: Any = entry.layer(place_for((2, 4, 3, 3), 2, 3) if place is None else place, rng=0)
    settings = {**example.settings, **(others or {})}
    for kind in ("train", "eval") if example.buffers else ("",):

        def forward(x: Any, params: Any, running: Any = None) -> Any:
            given = {} if running is None else {"running": running}
            return module.forward(x, params, **settings, **given)

        def without_params(x: Any) -> Any:
            return module.forward(x, **settings)

        chosen = forward if example.params else without_params
        chosen.__module__, chosen.__qualname__ = module.__name__, f"forward of {entry.name}"
        draw = functools.partial(inputs_of, entry, kind == "eval")
        backward = for_each_input(module.backward, 1 + bool(example.params) + (kind == "eval"))
        name = f"{entry.name}, {kind}" if kind else entry.name
        yield Case(name, chosen, backward, draw, module, False, kind == "train")


def place_for(size: tuple[int, int, int, int], ratio: int, k: int) -> Place:
    """The place that a block of a check stands at. What comes in has one channel more than what a gate is for."""
    _, C, H, W = size
    return Place(C, H, W, r=min(ratio, C), k=k, B=C + 1)


def inputs_of(entry: Entry, evaluated: bool, draw: Random) -> tuple[Any, ...]:
    """x, then Params of random numbers, then Running, as far as there are such."""
    place = place_for(draw.size, draw.ratio, draw.k)
    layer: Any = entry.layer(place, rng=0)
    sizes = {**draw.sizes, "C": entry.times * place.C, "B": place["B"], **layer.sizes}
    inputs: list[Any] = [draw.rng.standard_normal(lengths(layer.input_axes, sizes))]
    module = sys.modules[entry.kind.textbook]
    if layer.params:
        scale = draw.scale / np.sqrt(entry.times)  # over so many times the channels sums come out as large as without
        arrays = {w.field: scale * draw.rng.standard_normal(lengths(w.axes, sizes)) for w in layer.weights}
        inputs.append(packed(module.Params, arrays))
    if evaluated:
        arrays = {
            s.field: draw.rng.uniform(0.5, 2, shape) if s.start else draw.rng.standard_normal(shape)
            for s in layer.statistics
            for shape in [lengths(s.axes, sizes)]
        }
        inputs.append(packed(module.Running, arrays))
    return tuple(inputs)


def fused_cases() -> list[Case]:
    """The same rows for the pairs of npattn.fused."""
    found = []
    for case in op_cases():
        module = twin(case.module.__name__)
        if module is not None:
            backward = for_each_input(module.backward, len(case.draw(Random(np.random.default_rng(0), (2, 3, 4, 5)))))
            found.append(
                case._replace(name=f"{case.name}, fused", forward=module.forward, backward=backward, module=module)
            )
    for entry in checked():
        module = twin(entry.kind.textbook)
        if module is not None:
            found += [case._replace(name=f"{case.name}, fused") for case in cases_of(entry, module)]
    return found


class Maker(NamedTuple):
    """A layer that takes an image (N, 8, 4, 3): made textbook or fused. `path` says after a forward which it was."""

    name: str
    make: Callable[..., Layer]
    evaluated: bool = False

    def __call__(self, fused: bool = True) -> Layer:
        layer = self.make(PLACE, rng=0, fused=fused)
        return layer.eval() if self.evaluated else layer


PLACE = Place(8, 4, 3, r=4, k=3)


def makers() -> list[Maker]:
    """Every layer of ops/, attention/ and variants/ in each of its forms; in both modes where there are statistics."""
    named: list[tuple[str, Callable[..., Layer]]] = []
    for kind in classes("ops"):
        if issubclass(kind, Block):
            named.append((kind.__name__, kind.fitting))
    named += [(entry.name, entry.layer) for entry in blocks().values()]
    found = []
    for name, make in named:
        found.append(Maker(name, make))
        if make(PLACE, rng=0).buffers:
            found.append(Maker(f"{name}, eval", make, evaluated=True))
    return found
