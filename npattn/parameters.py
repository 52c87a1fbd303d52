"""The parameters of a layer together with their gradients: what an optimiser is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Protocol

from npattn.backend import Array
from npattn.notebook import html_table


class Holder(Protocol):
    """What has both: a layer."""

    params: MutableMapping[str, Array]

    @property
    def grads(self) -> MutableMapping[str, Array]: ...


class Parameters(MutableMapping[str, Array]):
    """Name to array, a view: what is assigned here is the layer's from then on.

    Attributes
    ----------
    grads
        The gradients of the layer's last backward, by the same names; empty before it.
    """

    def __init__(self, layer: Holder) -> None:
        self._layer = layer

    @property
    def grads(self) -> MutableMapping[str, Array]:
        return self._layer.grads

    def __getitem__(self, key: str) -> Array:
        return self._layer.params[key]

    def __setitem__(self, key: str, value: Array) -> None:
        if key not in self._layer.params:
            raise KeyError(key)  # a layer's names are fixed: a new one would be lost
        self._layer.params[key] = value

    def __delitem__(self, key: str) -> None:
        raise TypeError(f"{key}: a layer's names are fixed")

    def __iter__(self) -> Iterator[str]:
        return iter(self._layer.params)

    def __len__(self) -> int:
        return len(self._layer.params)

    def __repr__(self) -> str:
        return in_words(self)

    def _repr_html_(self) -> str:
        return html_table(("parameter", "shape"), [(key, str(tuple(value.shape))) for key, value in self.items()])


def in_words(arrays: Mapping[str, Array]) -> str:
    """Name and shape of each, a line each: what is shown of what may have 60,000 numbers."""
    return "\n".join(f"{key} {tuple(value.shape)}" for key, value in arrays.items()) or "no parameters"
