"""What can be checked, brought into one form: named float64 arrays in, y out; dy in, named gradients out."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from npattn.backend import Array
from npattn.checker.inputs import GradientCountError as GradientCountError
from npattn.checker.trees import Values


class Target(Protocol):
    """One form for layers, objects, functions. Nothing of the caller's is touched: all of it works on copies."""

    name: str
    values: dict[str, np.ndarray]  # at which the check is made, float64
    stateful: bool  # whether backward belongs to the last forward, as a layer's does
    dtypes: tuple[str, ...]  # what forward can be asked to run in, beside float64
    notes: list[str]  # how the target was understood, where that needs saying; may grow with each run

    @property
    def path(self) -> str | None:
        """Which of several implementations the last forward took, where there are several."""
        ...

    def forward(self, values: Values) -> tuple[Array, Any]: ...

    def backward(self, dy: Array, cache: Any) -> dict[str, Array]:
        """Gradients by name: None where one is missing, and no entry where none is claimed."""
        ...
