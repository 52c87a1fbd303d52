"""What an answer is tried on: a block and each of its forms, or an op's examples. At which sizes, `sizes` says.

Besides, every number that the forward is given has a second value somewhere (`second`), and an op of any leading axes
is given one less and one more.

The block itself, or each example, goes through the whole check, where there are running statistics once trained and
once evaluated, and then with ties. What else there is, is there for the options: that is compared with the given pair.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from npattn.block import Block, Place
from npattn.blocks import Entry, blocks, told
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
    """The block that a module's pair is; its forms, but for those that only stand elsewhere; its further arguments.

    One more for what is true or false and that none of these tries. An op has none.
    """
    found = [
        entry
        for entry in blocks().values()
        if issubclass(entry.kind, Block)
        and entry.kind.textbook == module.__name__
        and (entry.name == entry.card.name or entry.arguments)
    ]
    if found:
        found += found[0].further()
        left = options_left(found)
        if left:
            found.append(found[0]._replace(name=f"{found[0].name}, {told(left)}", arguments=left))
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
    others = second_values(module).items()
    if found or not hasattr(module, "examples"):
        for number, values in others:
            entry = entries_of(module)[number]
            entry = entry._replace(name=f"{entry.name}, {told(values)}")
            found += of_block(entry, written, sizes_of(module, number), values)
        return found
    names = examples_of(module)
    found += [of_op(module, name, written, sizes_of(module, number)) for number, name in enumerate(names)]
    further = [*without_optional(module, found), *at_other_axes(module, written)]
    for number, values in others:
        changed = of_op(module, names[number], written, sizes_of(module, number), values)
        further.append(changed._replace(name=f"{changed.name}, {told(values)}", is_form=True))
    return [*found, *further]


def of_block(entry: Entry, written: Any, sizes: Sizes, others: Mapping[str, Any] | None = None) -> list[Trial]:
    """A block's or a form's: with running statistics two, else one."""
    place = place_of(sizes)
    is_form = entry.name != entry.card.name
    found = [
        Trial(case.name, case.forward, case.backward, functools.partial(at, case.draw, sizes), is_form)
        for case in cases_of(entry, written, place, others)
    ]
    return found[:1] if is_form else found


def place_of(sizes: Sizes) -> Place:
    return place_for((sizes.N, sizes.C, sizes.H, sizes.W), sizes.r, sizes.k)


def of_op(module: ModuleType, name: str, written: Any, sizes: Sizes, others: Mapping[str, Any] | None = None) -> Trial:
    """An example's."""
    draw = drawn(module, name)
    backward = for_each_input(written.backward, len(draw(draw_of(sizes))))
    forward = with_settings(written.forward, module, name, others)
    return Trial(name, forward, backward, functools.partial(at, draw, sizes))


def at(
    draw: Callable[[Random], tuple[Any, ...]],
    sizes: Sizes,
    rng: np.random.Generator,
    leading: tuple[int, ...] | None = None,
) -> tuple[Any, ...]:
    """Inputs of these sizes; `leading` is what stands for "..." in place of the usual."""
    made = sizes.draw(rng)
    made.leading = made.leading if leading is None else leading
    return draw(made)


def without_optional(module: ModuleType, examples: list[Trial]) -> Iterator[Trial]:
    """An op's first example without an input that may be None, where every example has it."""
    first = examples[0]
    for place, parameter in enumerate(inspect.signature(module.forward).parameters.values()):
        if parameter.default is None and all(len(one.draw(np.random.default_rng(0))) > place for one in examples):

            def draw(rng: np.random.Generator, place: int = place) -> tuple[Any, ...]:
                inputs = first.draw(rng)
                return (*inputs[:place], None, *inputs[place + 1 :])

            yield first._replace(name=f"{first.name} without {parameter.name}", draw=draw, is_form=True)


def at_other_axes(module: ModuleType, written: Any) -> Iterator[Trial]:
    """The first example whose inputs may have any leading axes, with an axis less and with one more."""
    for number, name in enumerate(examples_of(module)):
        sizes = sizes_of(module, number)
        first = of_op(module, name, written, sizes)
        usual = sizes.draw(np.random.default_rng(0)).leading
        unlike = min(set(range(2, 12)) - {*sizes, *usual})
        draws = [functools.partial(at, drawn(module, name), sizes, leading=to) for to in (usual[:-1], (*usual, unlike))]
        if axes(draws[0]) != axes(first.draw):
            for draw in draws:
                yield first._replace(name=f"{name}, {axes(draw)} axes", draw=draw, is_form=True)
            return


def axes(draw: Callable[[np.random.Generator], tuple[Any, ...]]) -> int:
    """How many axes the first input has."""
    return int(draw(np.random.default_rng(0))[0].ndim)


@functools.cache
def second_values(module: ModuleType) -> dict[int, dict[str, Any]]:
    """Another value for each number that a module's forward is given, and that has the same one in all trials.

    Each stands at the number of the first entry or example with which the given pair runs, and gives another y.
    """
    entries, names = entries_of(module), [] if entries_of(module) else examples_of(module)
    if entries:
        used = [settings_of(entry, sizes_of(module, number)) for number, entry in enumerate(entries)]
    else:
        used = [getattr(module, "SETTINGS", {}).get(name, {}) for name in names]

    def output(number: int, others: Mapping[str, Any]) -> Any:
        sizes = sizes_of(module, number)
        if entries:
            one = of_block(entries[number], module, sizes, others)[0]
        else:
            one = of_op(module, names[number], module, sizes, others)
        return one.forward(*one.draw(np.random.default_rng(0)))[0]

    def shows(number: int, name: str, value: Any) -> bool:
        before = found.get(number, {})
        try:
            y = output(number, {**before, name: value})
        except (TypeError, ValueError):  # a number of groups that the channels do not fall into, say
            return False
        usual = output(number, before)
        return y.shape != usual.shape or not np.allclose(y, usual)

    found: dict[int, dict[str, Any]] = {}
    for name, parameter in inspect.signature(module.forward).parameters.items():
        values = [given.get(name, parameter.default) for given in used]
        if all(value == values[0] for value in values):
            others = others_than(values[0], str(parameter.annotation))
            tries = ((number, value) for number in range(len(used)) for value in others)
            number, value = next((one for one in tries if shows(one[0], name, one[1])), (None, None))
            if number is not None:
                found.setdefault(number, {})[name] = value
    return found


def settings_of(entry: Entry, sizes: Sizes) -> dict[str, Any]:
    """What a block gives its forward besides arrays."""
    return dict(vars(entry.layer(place_of(sizes), rng=0)).get("settings", {}))


def others_than(value: Any, annotation: str) -> tuple[Any, ...]:
    """Numbers that may stand in the place of one; () for what is none."""
    if isinstance(value, bool):
        return ()
    if isinstance(value, int):
        return (value + 1, value - 1, 1)
    if isinstance(value, float) or (value is None and annotation == "float | None"):
        return (0.5, 1.5)
    whole = isinstance(value, tuple) and all(type(one) is int for one in value)
    return (tuple(one + 1 for one in value),) if whole and value else ()


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
        settings = settings_of(entries[number], FAR[0])
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
