"""One codebase's class as a row of the table: its arguments, its keys and shapes, and which of ours it is.

A codebase's file has one function for each class. Its signature is the signature there, names and defaults; what it
returns is the layer of ours that computes the same. Above it stands what the class keeps in its `state_dict`:

    theirs                shape      ours           only with
    mlp.1.weight          R C        fc1.weight
    mlp.1.bias            R          fc1.bias       bias

Shapes are written in letters: C channels, R hidden width, k kernel size; "-" is the shape of a single number. A 1×1
kernel and an FC's matrix differ in axes of length 1 only, so theirs and ours may have different numbers of those.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from npattn.arguments import fitted
from npattn.checks import true_or_false
from npattn.dialects.keys import shown
from npattn.layer import Layer
from npattn.state import generator

T = TypeVar("T")

COUNTER = "batches"  # ours for num_batches_tracked: no array of a layer, but the number of its training forwards


class Key(NamedTuple):
    """One entry of a `state_dict`."""

    theirs: str
    axes: tuple[str, ...]  # letters, or "1", "2" for a length that is fixed
    ours: str
    only_with: str | None  # a name: entries with the same one are there together or not at all; of one key in two forms
    # of a class, that of the name which has more entries, if they are all there


class Misfit(ValueError):
    """A state_dict cannot be of this class. The message says why."""


class Seen(NamedTuple):
    """What the keys and shapes of a state_dict show."""

    sizes: Mapping[str, int]  # by letter
    present: frozenset[str]  # of the names in the column "only with", those whose entries are there


class Place(NamedTuple):
    """Where in a network of its codebase a class stands, and which arguments it has there."""

    prefix: str  # a regular expression that all of the prefix must match
    network: str
    args: dict[str, Any]  # of those that leave no trace in the state_dict


class Module(NamedTuple):
    """A class of another codebase."""

    dialect: str
    name: str
    build: Callable[..., Layer]  # called with the arguments there; further ones, dtype and so on, go to our layer
    keys: tuple[Key, ...]
    arguments: Callable[[Seen], dict[str, Any]]  # the arguments that fit; raises Misfit if none do
    returns: str  # a formula
    unseen: tuple[str, ...]  # arguments that leave no trace in the state_dict
    same_as: str | None  # "dialect.name" of one that has the same keys and computes the same
    among: bool  # its entries stand among those of the unit that it is a part of, under no name of its own
    used: str  # where it is used, and how: what tells it from others with the same keys
    places: tuple[Place, ...]

    @property
    def title(self) -> str:
        return f"{self.dialect}.{self.name}"

    @property
    def signature(self) -> inspect.Signature:
        """Of the constructor there."""
        shown = inspect.signature(self.build)
        own = [p for p in shown.parameters.values() if p.kind is not p.VAR_KEYWORD]
        return shown.replace(parameters=own, return_annotation=shown.empty)

    def bound(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """`args` with the defaults filled in. Raises TypeError if one is missing, unknown, or no bool."""
        signature = self.signature
        bound = fitted(self.title, signature, (), args)
        bound.apply_defaults()
        for name, parameter in signature.parameters.items():
            if isinstance(parameter.default, bool):
                true_or_false(name, bound.arguments[name])
        return dict(bound.arguments)

    @property
    def tops(self) -> frozenset[str]:
        """What its keys begin with, up to the first dot."""
        return frozenset(key.theirs.partition(".")[0] for key in self.keys)

    def place(self, prefix: str) -> Place | None:
        """The place in its codebase's networks that has this prefix."""
        return next((place for place in self.places if re.fullmatch(place.prefix, prefix)), None)

    def arguments_text(self, args: Mapping[str, Any]) -> str:
        """`args` as they are written in a call, without those that are as the default."""
        defaults = {name: p.default for name, p in self.signature.parameters.items()}
        return ", ".join(f"{name}={value!r}" for name, value in args.items() if value != defaults[name])

    def call(self, args: Mapping[str, Any], state: str = "state") -> str:
        """The line of Python that loads `state` as this class."""
        given = self.arguments_text(args)
        return f'npattn.dialects.load("{self.dialect}", "{self.name}", {state}{", " + given if given else ""})'


TABLE: dict[str, dict[str, Module]] = {}
"""Every class by dialect and name, in the order in which messages list them."""


def keys_of(text: str) -> tuple[Key, ...]:
    """Read the table above a function: columns apart by two spaces or more."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in text.strip().splitlines()]
    return tuple(
        Key(theirs, () if shape == "-" else tuple(shape.split()), ours, rest[0] if rest else None)
        for theirs, shape, ours, *rest in lines
    )


def module(
    dialect: str,
    keys: str,
    arguments: Callable[[Seen], dict[str, Any]],
    *,
    returns: str,
    unseen: tuple[str, ...] = (),
    same_as: str | None = None,
    among: bool = False,
    used: str = "",
    places: tuple[Place, ...] = (),
) -> Callable[[Callable[..., Layer]], Callable[..., Layer]]:
    """Enter the decorated function into the table, under its own name."""

    def enter(build: Callable[..., Layer]) -> Callable[..., Layer]:
        row = Module(
            dialect, build.__name__, build, keys_of(keys), arguments, returns, unseen, same_as, among, used, places
        )  # fmt: skip
        TABLE.setdefault(dialect, {})[build.__name__] = row
        return build

    return enter


def shapes_of(row: Module, layer: Layer) -> dict[Key, tuple[int, ...]]:
    """The entries of the class's state_dict, with their shapes there, for a layer that `row.build` returned."""
    arrays = {**layer.params, **layer.buffers}
    norm = any(key.ours.endswith("running_mean") and key.ours in arrays for key in row.keys)
    shapes: dict[Key, tuple[int, ...]] = {}
    for key in in_this_form(row, arrays, "ours"):
        if key.ours == COUNTER:
            if norm:
                shapes[key] = ()
        elif key.ours in arrays:
            ours = tuple(arrays[key.ours].shape)
            shapes[key] = (ours + (1,) * len(key.axes))[: len(key.axes)]
    return shapes


def fit(row: Module, shapes: Mapping[str, tuple[int, ...]]) -> Seen:
    """Hold a state_dict's keys and shapes against a class.

    Raises
    ------
    Misfit
        If keys are missing or unknown, a shape does not fit, or no arguments give these sizes.
    """
    if row.among:
        shapes = own(row, shapes)
    keys = in_this_form(row, shapes)
    known = {key.theirs: key for key in keys}
    present = frozenset(key.only_with for key in keys if key.only_with and key.theirs in shapes)
    needed = [key for key in keys if key.ours != COUNTER and (not key.only_with or key.only_with in present)]
    missing = [key.theirs for key in needed if key.theirs not in shapes]
    unknown = [name for name in shapes if name not in known]
    wrong = [f"missing {listed(missing)}"] if missing else []
    wrong += [f"unknown {listed(unknown)}"] if unknown else []
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        if name not in known:
            continue
        axes = known[name].axes
        fits = len(shape) == len(axes) and all(
            size == (int(axis) if axis.isdigit() else sizes.setdefault(axis, size))
            for axis, size in zip(axes, shape, strict=True)
        )
        if not fits:
            wanted = ", ".join(f"{axis}={sizes[axis]}" if axis in sizes else axis for axis in axes)
            wrong.append(f"{name}: expected ({wanted}), got {shape}")
    if 0 in sizes.values():
        wrong.append("expected no empty arrays")
    elif sizes.get("k", 1) % 2 == 0:
        wrong.append(f"expected an odd kernel size, got {sizes['k']}")
    if wrong:
        raise Misfit("; ".join(wrong))
    return Seen(sizes, present)


def in_this_form(row: Module, there: Mapping[str, Any], name: str = "theirs") -> tuple[Key, ...]:
    """The entries of a class, but where it has two forms, one key in both, without those of the form that is not there.

    there: a state by its keys, or with name="ours" a layer's arrays by theirs.
    """
    groups: dict[str | None, list[Key]] = {}
    for key in row.keys:
        groups.setdefault(key.only_with, []).append(key)

    def rank(key: Key) -> tuple[bool, int]:
        group = groups[key.only_with]
        return all(getattr(other, name) in there for other in group if other.ours != COUNTER), len(group)

    left_out = set()
    for key in row.keys:
        forms = [other for other in row.keys if other.theirs == key.theirs]
        if len(forms) > 1 and key is not max(forms, key=rank):
            left_out.add(key.only_with)
    return tuple(key for key in row.keys if key.only_with not in left_out) if left_out else row.keys


def own(row: Module, state: Mapping[str, T]) -> dict[str, T]:
    """The entries under the names that the class has, of a unit that it is a part of."""
    return {key: value for key, value in state.items() if key.partition(".")[0] in row.tops}


def listed(names: list[str], most: int = 4) -> str:
    """The first names, and how many there are."""
    first = ", ".join(shown(name) for name in names[:most])
    return first if len(names) <= most else f"{first} and {len(names) - most} more"


def no_more(seen: Seen) -> tuple[int, int]:
    """C and R, where R is no more than C. Raises Misfit: what widens is no squeeze, but another kind of MLP."""
    C, R = seen.sizes["C"], seen.sizes["R"]
    if R > C:
        raise Misfit(f"expected at most as many hidden units as channels, which are {C}, got {R}")
    return C, R


def reduction(seen: Seen, name: str = "reduction", usual: int = 16) -> dict[str, int]:
    """A reduction r with C // r = R, the usual one if it does. Raises Misfit if there is none."""
    C, R = seen.sizes["C"], seen.sizes["R"]
    for r in (usual, max(1, C // R), *range(1, C + 1)):
        if C // r == R:
            return {name: r}
    raise Misfit(f"no whole {name} makes {R} hidden units of {C} channels")


def three_or_seven(k: int) -> int:
    """A kernel size where the codebase asserts one of these. Raises Misfit (a ValueError) for another."""
    if k not in (3, 7):
        raise Misfit(f"kernel_size: expected 3 or 7, which is asserted there, got {k}")
    return k


def one_stream(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` for the two gates of a class, with one generator for both: of one seed twice they would start alike."""
    return {**options, "rng": generator(options.get("rng"))}
