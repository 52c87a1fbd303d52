"""A target that is run in float32, for layers that compute in it: numbers go in as float32, and are compared so far."""

from __future__ import annotations

from typing import Any

import numpy as np

from npattn.backend import Array
from npattn.checker.target import Target
from npattn.checker.trees import Values


class Single:
    """Another target, handed everything in float32."""

    dtypes: tuple[str, ...] = ()

    def __init__(self, form: Target) -> None:
        self.form = form
        self.name, self.values, self.stateful, self.notes = form.name, form.values, form.stateful, form.notes

    @property
    def path(self) -> str | None:
        return self.form.path

    def forward(self, values: Values) -> tuple[Array, Any]:
        return self.form.forward({name: value.astype(np.float32) for name, value in values.items()})

    def backward(self, dy: Array, cache: Any) -> dict[str, Array]:
        return self.form.backward(dy.astype(np.float32), cache)
