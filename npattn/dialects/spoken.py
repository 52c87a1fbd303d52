"""A layer of ours that goes by another codebase's names: its keys, its shapes, its counter of batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from types import ModuleType
from typing import Any, Self

import numpy as np

from npattn.backend import Array, array_module, to_numpy
from npattn.dialects.table import COUNTER, Key, Module, shapes_of
from npattn.layer import Layer
from npattn.nested import leaves
from npattn.parameters import in_words


class Spoken(Layer):
    """What `npattn.dialects.load` returns: computes what the other codebase's class does, and is called as it is there.

    `params`, `grads`, `buffers` and `state_dict()` have the keys and shapes of that codebase.

    Parameters
    ----------
    row
        The class there.
    args
        Its arguments, the defaults filled in.
    layer
        As below.

    Attributes
    ----------
    layer
        The layer of ours that does the work, with our names.
    dialect, module, args
        What it was loaded as; args with the defaults filled in.
    """

    def __init__(self, row: Module, args: Mapping[str, Any], layer: Layer) -> None:
        super().__init__(dtype=layer.dtype, xp=layer.xp)
        self.dialect, self.module, self.args = row.dialect, row.name, dict(args)
        self.layer = layer
        self.sizes, self.input_axes = layer.sizes, layer.input_axes
        self.arguments_text = row.arguments_text(args)
        shapes = shapes_of(row, layer)
        self.params = Renamed(layer.params, shapes)
        self.buffers = Renamed(layer.buffers, shapes)
        self.keys_in_order = [key.theirs for key in shapes]
        self.counters = [key.theirs for key in shapes if key.ours == COUNTER]
        self.ahead = dict.fromkeys(self.counters, 0)  # of the first one's: a norm may have been held still for a while

    @property
    def batches(self) -> int | None:
        """num_batches_tracked: how many forwards it has run in training mode. None if the class does not count them.

        Where it counts them for several norms, that of the first.
        """
        return int(self.counting_layer.num_batches_tracked) if self.counters else None

    @property
    def counting_layer(self) -> Any:
        """The layer of ours that counts: the one with running statistics, wherever in `layer` it is."""
        return next(leaf for leaf in leaves(self.layer) if leaf.buffers)

    def run(self, x: Array) -> tuple[Array, tuple[()]]:
        y = self.layer.forward(x)
        self.path = self.layer.path
        self._gates = self.layer.attention
        return y, ()  # the layer keeps its own cache

    def undo(self, dy: Array, cache: tuple[()]) -> tuple[Array, dict[str, Array]]:
        dx = self.layer.backward(dy)
        return dx, dict(Renamed(self.layer.grads, self.params.keys_and_shapes))  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Array]:
        """Copies of the parameters and buffers in the codebase's keys, shapes and order; the counter is int64."""
        state = super().state_dict()
        for key in self.counters:
            state[key] = self.xp.asarray((self.batches or 0) + self.ahead[key], dtype=self.xp.int64)
        return {key: state[key] for key in self.keys_in_order}

    def _checked(self, state: Mapping[str, Array]) -> dict[str, Array]:
        if not self.counters:
            return super()._checked(state)
        plain = {key: value for key, value in state.items() if key not in self.counters}
        # where one is missing it starts at 0, as in PyTorch: there are files from before it was counted
        batches = {key: batches_in(state, key) if key in state else 0 for key in self.counters}
        loaded = super()._checked(plain)
        first = batches[self.counters[0]]
        self.counting_layer.num_batches_tracked = first
        self.ahead = {key: count - first for key, count in batches.items()}
        return loaded

    def to(self, device: str | None = None, *, dtype: Any = None, xp: ModuleType | None = None) -> Self:
        self.layer.to(device, dtype=dtype, xp=xp)
        return super().to(device, dtype=dtype, xp=xp)

    def train(self, mode: bool = True) -> Self:
        self.layer.train(mode)
        return super().train(mode)

    def __repr__(self) -> str:
        return f"{self.dialect}.{self.module}({self.arguments_text})"


class Renamed(MutableMapping[str, Array]):
    """A layer's dict under other keys and in other shapes. Writes go through."""

    def __init__(self, arrays: MutableMapping[str, Array], shapes: Mapping[Key, tuple[int, ...]]) -> None:
        self._arrays = arrays
        self.keys_and_shapes = {key: shape for key, shape in shapes.items() if key.ours in arrays}
        self._keys = {key.theirs: key for key in self.keys_and_shapes}

    def __getitem__(self, name: str) -> Array:
        key = self._keys[name]
        return reshaped(self._arrays[key.ours], self.keys_and_shapes[key])

    def __setitem__(self, name: str, value: Array) -> None:
        ours = self._keys[name].ours  # a layer's names are fixed: a new one would be lost
        self._arrays[ours] = reshaped(value, tuple(self._arrays[ours].shape))

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name}: a layer's names are fixed")

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return in_words(self)


def reshaped(array: Array, shape: tuple[int, ...]) -> Array:
    return array_module(array).reshape(array, shape)


def batches_in(state: Mapping[str, Array], name: str) -> int:
    """The number of batches under `name`. Raises TypeError if it is no whole number, ValueError if negative."""
    value = state[name]
    try:
        array = to_numpy(value)
    except TypeError:
        array = np.asarray(value)
    except (NotImplementedError, RuntimeError):  # torch's, of a tensor on the device meta, or sparse
        raise TypeError(f"state[{name!r}]: expected one whole number, got a tensor without one") from None
    if array.dtype.kind not in "iu" or array.size != 1:
        raise TypeError(f"state[{name!r}]: expected one whole number, got {array.dtype} of shape {array.shape}")
    if array.item() < 0:
        raise ValueError(f"state[{name!r}]: expected a number of batches, got {array.item()}")
    return int(array.item())
