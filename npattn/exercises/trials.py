"""What an answer is tried on: a block and each of its forms, or an op's examples. At which sizes, `sizes` says.

The block itself, or each example, goes through the whole check, where there are running statistics once trained and
once evaluated, and then with ties. What else there is, is there for the options: that is compared with the given pair.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from npattn.block import Block, Place
from npattn.blocks import Entry, blocks
from npattn.checker.cases import cases_of, drawn, for_each_input, place_for, with_settings
from npattn.exercises.sizes import FAR, Sizes, axes_in, chosen, factors_in
from npattn.samples import Random


class Trial(NamedTuple):
    """A pair as it is to be checked: `forward` and `backward` are the reader's, the inputs are drawn."""

    name: str
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    draw: Callable[[np.random.Generator], tuple[Any, ...]]
    is_form: bool = False


@functools.cache
def entries_of(module: ModuleType) -> tuple[Entry, ...]:
    """The block that a module's pair is; its forms, but for those that only stand elsewhere; one for what is left.

    An op has none.
    """
    found = [
        entry
        for entry in blocks().values()
        if issubclass(entry.kind, Block)
        and entry.kind.textbook == module.__name__
        and (entry.name == entry.card.name or entry.arguments)
    ]
    left = options_left(found) if found else {}
    if left:
        told = ", ".join(f"{name}={value}" for name, value in left.items())
        found.append(found[0]._replace(name=f"{found[0].name} with {told}", arguments=left))
    return tuple(found)


def options_left(entries: list[Entry]) -> dict[str, bool]:
    """Arguments that are true or false and that no form tries the other way: each that other way."""
    found = {}
    for name, parameter in inspect.signature(entries[0].kind.__init__).parameters.items():
        usual = parameter.default
        if isinstance(usual, bool) and all(entry.arguments.get(name, usual) == usual for entry in entries):
            found[name] = not usual
    return found


def has_trials(module: ModuleType) -> bool:
    """Whether an answer to a module's pair can be tried."""
    return bool(entries_of(module)) or hasattr(module, "examples")


def trials(module: ModuleType, written: Any) -> list[Trial]:
    """The checks to make of `written`, with a forward and a backward as `module` has them."""
    found = [
        trial
        for number, entry in enumerate(entries_of(module))
        for trial in of_block(entry, written, sizes_of(module, number))
    ]
    if found or not hasattr(module, "examples"):
        return found
    for number, name in enumerate(examples_of(module)):
        found.append(of_op(module, name, written, sizes_of(module, number)))
    return [*found, *without_optional(module, found)]


def of_block(entry: Entry, written: Any, sizes: Sizes) -> list[Trial]:
    """A block's or a form's: with running statistics two, else one."""
    place = place_of(sizes)
    is_form = entry.name != entry.card.name
    found = [
        Trial(case.name, case.forward, case.backward, functools.partial(at, case.draw, sizes), is_form)
        for case in cases_of(entry, written, place)
    ]
    return found[:1] if is_form else found


def place_of(sizes: Sizes) -> Place:
    return place_for((sizes.N, sizes.C, sizes.H, sizes.W), sizes.r, sizes.k)


def of_op(module: ModuleType, name: str, written: Any, sizes: Sizes) -> Trial:
    """An example's."""
    draw = drawn(module, name)
    backward = for_each_input(written.backward, len(draw(draw_of(sizes))))
    return Trial(name, with_settings(written.forward, module, name), backward, functools.partial(at, draw, sizes))


def at(draw: Callable[[Random], tuple[Any, ...]], sizes: Sizes, rng: np.random.Generator) -> tuple[Any, ...]:
    """Inputs of these sizes."""
    return draw(sizes.draw(rng))


def without_optional(module: ModuleType, examples: list[Trial]) -> Iterator[Trial]:
    """An op's first example without an input that may be None, where every example has it."""
    first = examples[0]
    for place, parameter in enumerate(inspect.signature(module.forward).parameters.values()):
        if parameter.default is None and all(len(one.draw(np.random.default_rng(0))) > place for one in examples):

            def draw(rng: np.random.Generator, place: int = place) -> tuple[Any, ...]:
                inputs = first.draw(rng)
                return (*inputs[:place], None, *inputs[place + 1 :])

            yield first._replace(name=f"{first.name} without {parameter.name}", draw=draw, is_form=True)


def examples_of(module: ModuleType) -> list[str]:
    """The names of an op's examples."""
    return list(module.examples(draw_of(FAR[0])))


def draw_of(sizes: Sizes) -> Any:
    return sizes.draw(np.random.default_rng(0))


@functools.cache
def sizes_of(module: ModuleType, number: int) -> Sizes:
    """At which sizes the block or form, or the example, of that number is tried."""
    entries = entries_of(module)
    if entries:
        settings = vars(entries[number].layer(place_of(FAR[0]), rng=0)).get("settings", {})
    else:
        settings = getattr(module, "SETTINGS", {}).get(examples_of(module)[number], {})
    factors = frozenset(factors_in(inspect.getsource(module), settings))

    def lengths(sizes: Sizes) -> tuple[int, ...]:
        if entries:
            one = of_block(entries[number], module, sizes)[0]
        else:
            one = of_op(module, examples_of(module)[number], module, sizes)
        inputs = one.draw(np.random.default_rng(0))
        y, cache = one.forward(*inputs)
        return tuple(axes_in((inputs, y, cache, one.backward(np.ones_like(y), cache))))

    return chosen(lengths, factors, sizes_of(module, 0) if number else None)
