"""What a block says of itself: its parameters, its gates, where it fits, and a card. The rest follows from that.

A block's file has `Params`, `Cache`, `forward` and `backward`, and then a class that declares

    state      each parameter: its key in the state_dict, the field of Params that it is, its axes in the formula's
               letters; each running statistic: the same, with a field of Running
    gates      which fields of Cache are gates, by name; one that is None in a form is none there
    arguments  which of the constructor's arguments follow from where the layer stands: "C", "r", "k", "G", "J", …
    card       what others show of it: name, source, page, a worked example

and a constructor, which checks its arguments and says how long the axes are. `Block` makes the layer of these: first
weights, Params and Running by name, gradients by key, gates, running statistics. No other file names the block.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self, Unpack

import numpy as np

from npattn.arguments import arguments_text
from npattn.backend import Array, array_module
from npattn.capacity import has_shapes_only, need
from npattn.checks import real_number
from npattn.layer import Layer, Options
from npattn.packing import factors, fields, lengths, packed, stored_axes
from npattn.state import uniform


class Weight(NamedTuple):
    """A parameter.

    Its first values are uniform in ±1/√fan_in, PyTorch's default for Linear and Conv2d, or all `start`.
    """

    key: str  # in the state_dict, as PyTorch names it
    field: str  # of Params, "w1" or "ca.w1"
    axes: str  # its shape in the formula: "R C", "1 2 k k"
    stored: str | None = None  # its shape in the state_dict, where that has more axes of length 1: "R C 1 1"
    fan_in: str | None = None  # the axes that a sum with it runs over; None takes all of its own but the first
    start: float | None = None

    @property
    def taken_off(self) -> tuple[Any, ...]:
        """The index that takes off the axes that only the state_dict has."""
        return stored_axes(self.axes, self.stored or self.axes)[0]

    @property
    def put_on(self) -> tuple[Any, ...]:
        """The index that puts them on."""
        return stored_axes(self.axes, self.stored or self.axes)[1]


class Statistic(NamedTuple):
    """A running statistic: no parameter, but moved by each forward in training mode."""

    key: str
    field: str  # of Running
    axes: str
    start: float


def within(name: str, block: type[Block]) -> tuple[Weight | Statistic, ...]:
    """What a block declares, as the part `name` of another: "ca" makes "ca.fc1.weight" and "ca.w1" of key and field."""
    return tuple(entry._replace(key=f"{name}.{entry.key}", field=f"{name}.{entry.field}") for entry in block.state)


@dataclass(frozen=True)
class Place:
    """Where a layer stands: how many channels of which size it sees, and what else is usual there."""

    C: int
    H: int = 1
    W: int = 1
    r: int = 16  # the usual ratio; C, where there are fewer channels
    k: int = 7  # the usual kernel size
    B: int | None = None  # channels that come in, where they are others than those that a gate is for

    @property
    def G(self) -> int:
        """The usual number of groups: as many as divide the channels, 8 at most, with three channels or more each."""
        return next(G for G in range(min(8, max(1, self.C // 3)), 0, -1) if self.C % G == 0)

    @property
    def J(self) -> int:
        """The usual number of branches, each of which sees its own part of the channels: 2, or 1 of an odd number."""
        return 1 if self.C % 2 else 2

    def __getitem__(self, letter: str) -> int:
        value = getattr(self, letter)
        return self.C if value is None else min(self.r, self.C) if letter == "r" else int(value)


class Form(NamedTuple):
    """A block with some arguments chosen, under a name of its own: checked, trained and compared like a block."""

    name: str
    what: str  # in words
    arguments: Mapping[str, Any]  # of the constructor
    group: str | None = None  # of rows that an ablation compares; None leaves it out there
    place: Mapping[str, int] = {}  # what is not as usual where it stands: {"r": 2}


class Further(NamedTuple):
    """Other arguments that the checks and the exercises try a block with. No table has a row for it."""

    arguments: Mapping[str, Any]  # of the constructor
    times: int = 1  # the place's channels are multiplied by this, so that they fall into so many groups, however many


@dataclass(frozen=True)
class Card:
    """What others show of a block.

    Attributes
    ----------
    name
        What the commands call it: "se".
    title
        In words.
    asks, gives
        What its gate decides ("what matters?"), and what the layer returns, as a formula.
    source
        The paper, and where in it.
    page
        The page of the derivation, under docs/.
    size, seed
        Of the worked example: the shape (N, C, H, W) of x, and the seed of its numbers. No path is dead there.
    gate
        Whether the layer returns its gate alone, for `Gated` to multiply by.
    beside
        Whether it stands beside the layers that it scales, made from what goes into them, and not behind them.
    most_pixels
        The largest H·W that it is put on in the demo; None for any.
    group, what
        Of an ablation's rows, and how it is described there; the title if `what` is empty.
    forms
        The same block with other arguments, by names of their own.
    further
        Arguments to check it with besides, and to try exercises with: more groups than one, another stride.
    """

    name: str
    title: str
    asks: str
    gives: str
    source: str
    page: str
    size: tuple[int, int, int, int] = (1, 2, 2, 2)
    seed: int = 0
    gate: bool = False
    beside: bool = False
    most_pixels: int | None = None
    group: str | None = "blocks"
    what: str = ""
    forms: tuple[Form, ...] = field(default=())
    further: tuple[Further, ...] = field(default=())


class Block(Layer):
    """The base of layers that are one pair of functions, made from what the class declares.

    Parameters
    ----------
    sizes
        The lengths of the axes that the constructor fixes, by letter.
    without
        Fields of Params that this layer leaves out: a bias "b", or a part "norm" with all that is in it. They are None
        in the formula.
    settings
        Further arguments of the pair's forward, by name.
    momentum
        The share of a batch in the running statistics, in [0, 1], where there are any.
    dtype, rng, xp, fused
        As in `npattn.Layer`.

    Raises
    ------
    MemoryError
        If a weight would take more memory than this process may have; the message shows the arguments.
    """

    state: ClassVar[tuple[Weight | Statistic, ...]] = ()
    gates: ClassVar[Mapping[str, tuple[str, str]]] = {}  # name: the field of Cache, and its axes as a gate
    arguments: ClassVar[Mapping[str, str]] = {}
    card: ClassVar[Card | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A class in a file with `forward` and `backward` is of that pair. One derived from it keeps that pair."""
        super().__init_subclass__(**kwargs)
        if cls.__init__ is Block.__init__ and not cls.state:
            cls.internal = ("sizes", "without", "settings", "momentum")  # nothing here has a size or a statistic
        module = sys.modules[cls.__module__]
        if cls.textbook is None and hasattr(module, "forward") and hasattr(module, "backward"):
            cls.textbook = cls.__module__

    def _note(self, given: dict[str, Any]) -> None:
        self._called_with = given

    def __repr__(self) -> str:
        return f"{type(self).__name__}({arguments_text(type(self), self._called_with)})"

    def __init__(
        self,
        sizes: Mapping[str, int] | None = None,
        *,
        without: tuple[str, ...] = (),
        settings: Mapping[str, Any] | None = None,
        momentum: float = 0.1,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**options)
        self.sizes, self.settings, self.momentum = (
            dict(sizes or {}),
            dict(settings or {}),
            real_number("momentum", momentum, 0, 1),
        )
        self.num_batches_tracked = 0
        declared = [e for e in self.state if e.field not in without and e.field.partition(".")[0] not in without]
        self.weights = [entry for entry in declared if isinstance(entry, Weight)]
        self.statistics = [entry for entry in declared if isinstance(entry, Statistic)]
        for weight in self.weights:
            self.params[weight.key] = self.to_array(self._first_values(weight))
        for statistic in self.statistics:
            shape = lengths(statistic.axes, self.sizes)
            self.buffers[statistic.key] = self.to_array(np.full(shape, statistic.start))

    @classmethod
    def fitting(cls, place: Place, **options: Any) -> Self:
        """A layer for that place; `options` are further arguments of the constructor, and win over the place's."""
        return cls(**{**{name: place[letter] for name, letter in cls.arguments.items()}, **options})

    def _first_values(self, weight: Weight) -> Any:
        shape = lengths(weight.stored or weight.axes, self.sizes)
        if has_shapes_only():
            return np.broadcast_to(np.zeros((), self.dtype), shape)
        need(8 * math.prod(shape), lambda: f"{self!r}: {weight.key} of shape {shape}")
        if weight.start is not None:
            return np.full(shape, weight.start)
        fan_in = lengths(weight.fan_in, self.sizes) if weight.fan_in else shape[1:]
        return uniform(self.rng, shape, math.prod(fan_in))

    # The pair, by name

    def run(self, x: Array) -> tuple[Array, Any]:
        pair, given = self.pair, dict(self.settings)
        arguments = []
        if self.weights:
            arguments.append(packed(pair.Params, self.by_field(self.params)))
        if self.statistics:
            running = packed(pair.Running, {s.field: self.buffers[s.key] for s in self.statistics})
            given["running"] = None if self.training else running
        y, cache = pair.forward(x, *arguments, **given)
        if self.statistics and self.training:
            moved = dict(fields(pair.updated(running, cache, self.momentum)))
            self.buffers.update({s.key: moved[s.field] for s in self.statistics})
            self.num_batches_tracked += 1
        gates = {name: (operator.attrgetter(path)(cache), axes) for name, (path, axes) in self.gates.items()}
        self._gates = {name: self._as_gate(gate, axes, x) for name, (gate, axes) in gates.items() if gate is not None}
        return y, cache

    def undo(self, dy: Array, cache: Any) -> tuple[Array, MutableMapping[str, Array]]:
        answer = self.pair.backward(dy, cache)
        if not self.weights:  # a pair that can have parameters gives their gradients, all None
            return answer[0] if isinstance(answer, tuple) else answer, {}
        dx, grads = answer
        return dx, self._by_key(grads)

    def undo_params(self, dy: Array, cache: Any) -> MutableMapping[str, Array]:
        without_dx = getattr(self.pair, "backward_params", None)
        return super().undo_params(dy, cache) if without_dx is None else self._by_key(without_dx(dy, cache))

    def by_field(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        return {w.field: arrays[w.key][w.taken_off] if w.stored else arrays[w.key] for w in self.weights}

    def _by_key(self, grads: Any) -> dict[str, Array]:
        """The gradients by the keys of the parameters, and in their shapes."""
        found = dict(fields(grads))
        return {w.key: found[w.field][w.put_on] if w.stored else found[w.field] for w in self.weights}

    def _as_gate(self, gate: Array, axes: str, x: Array) -> Array:
        if gate.ndim == len(factors(axes)):
            return gate
        sizes = dict(zip((self.input_axes or "").split(), x.shape, strict=True)) | dict(self.sizes)
        return array_module(gate).reshape(gate, lengths(axes, sizes))
