"""A layer of npattn as a target."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from npattn.backend import Array
from npattn.checker.inputs import Choice
from npattn.checker.trees import Values, float64, leaves
from npattn.layer import Layer


class OurLayer:
    """An `npattn.Layer`: a copy of it, in NumPy, whose parameters are replaced for every forward."""

    stateful = True
    dtypes: tuple[str, ...] = ("float32", "complex128")

    def __init__(self, layer: Layer, inputs: tuple[Any, ...], choice: Choice) -> None:
        if len(inputs) != 1:
            raise ValueError(f"inputs: expected the one input x of the layer, got {len(inputs)}")
        if not any(leaves("x", inputs[0])):
            raise TypeError(f"x: expected a float array, got {getattr(inputs[0], 'dtype', type(inputs[0]).__name__)}")
        self.name = repr(layer).replace("\n", " ")
        self.notes: list[str] = []
        self._layer = copy.deepcopy(layer).to(dtype="float64", xp=np)
        self._buffers = {key: float64(value) for key, value in self._layer.buffers.items()}
        self._x = float64(inputs[0])
        self._params = {key: float64(value) for key, value in self._layer.params.items()}
        choice.must_name(["x", *self._params])
        self.values = {key: value for key, value in {"x": self._x, **self._params}.items() if choice.takes(key)}

    @property
    def path(self) -> str | None:
        return self._layer.path

    def forward(self, values: Values) -> tuple[Array, Any]:
        kind = next(iter(values.values())).dtype
        for key, value in self._params.items():
            self._layer.params[key] = values[key] if key in values else value.astype(kind)
        for key, value in self._buffers.items():  # a forward may move them; a check must start from the same
            self._layer.buffers[key] = value.astype(kind)
        return self._layer.forward(values["x"] if "x" in values else self._x.astype(kind)), None

    def backward(self, dy: Array, cache: Any) -> dict[str, Array]:
        found = {"x": self._layer.backward(dy)} | {key: self._layer.grads.get(key) for key in self._params}
        return {key: g for key, g in found.items() if key in self.values}
