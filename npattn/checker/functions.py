"""Functions as a target: a pair (forward, backward), and a function that gives a loss and its gradients at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npattn.backend import Array
from npattn.checker.calls import Call, CallError, call_of_pair, fitting_names
from npattn.checker.inputs import Choice, Inputs
from npattn.checker.onetime import OneTime
from npattn.checker.repeat import Repeat
from npattn.checker.trees import Outputs, Values


class Pair(OneTime):
    """A pair of functions that keep nothing: what backward needs is handed to it, most often in a cache."""

    stateful = False
    dtypes: tuple[str, ...] = ("float32", "complex128")
    path: str | None = None

    def __init__(
        self, name: str, forward: Callable[..., Any], backward: Callable[..., Any], inputs: tuple[Any, ...],
        choice: Choice, repeat: Repeat,
    ) -> None:  # fmt: skip
        self.name, self._forward, self._backward, self._repeat = name, forward, backward, repeat
        self._inputs = Inputs(fitting_names(forward, inputs), inputs, choice)
        self._outputs, self._call = Outputs(), Call(())
        self._calls: dict[int, Call] = {}  # by how many values forward has returned
        self.values, self.notes = self._inputs.values, self._inputs.notes
        choice.must_name(self._inputs.known)

    @property
    def lengths(self) -> list[int]:
        return self._outputs.lengths

    def forward(self, values: Values) -> tuple[Array, Any]:
        trees = self._inputs.at(values)
        result = self._repeat.forward(lambda: self._forward(*trees))
        count = len(result) if isinstance(result, tuple) else 0
        if count not in self._calls:
            self._calls[count] = call_of_pair(self._backward, result, self._inputs.names)
        self._call = self._calls[count]
        y, cache = self._call.split(result)
        return self._outputs.flat(y), [cache, y, trees, values]

    def backward(self, dy: Array, cache: Any) -> dict[str, Array]:
        self._repeat.before_backward()
        return self.undone(dy, cache, fresh=self._repeat.hooked)

    def gradients(self, dy: Array, cache: list[Any]) -> dict[str, Array]:
        kept, y, trees = cache[:3]
        known = dict(zip(self._inputs.names, trees, strict=True))
        call = self._call
        if not call.takes_dy and np.size(dy) != 1:
            raise CallError(f"backward: expected it to take dy, since y has {np.size(dy)} numbers and is no loss")
        gradients = self._backward(*call.arguments(self._outputs.like(dy), y, kept, known))
        return scaled(self._inputs.by_name(gradients), 1 if call.takes_dy else dy)


class LossWithGradients:
    """A function that gives (loss, gradients) at once: softmax_loss(x, labels) -> loss, dx."""

    stateful = False
    dtypes: tuple[str, ...] = ("float32", "complex128")
    path: str | None = None

    def __init__(
        self, name: str, function: Callable[..., Any], inputs: tuple[Any, ...], choice: Choice, repeat: Repeat
    ) -> None:
        self.name, self._function, self._repeat = name, function, repeat
        self._inputs = Inputs(fitting_names(function, inputs), inputs, choice)
        self.values, self.notes = self._inputs.values, self._inputs.notes
        choice.must_name(self._inputs.known)

    def forward(self, values: Values) -> tuple[Array, Any]:
        trees = self._inputs.at(values)
        result = self._repeat.forward(lambda: self._function(*trees))
        if not isinstance(result, tuple) or len(result) < 2 or np.size(result[0]) != 1:
            advice = "a pair is (forward, backward)"
            if callable(getattr(result, "backward", None)):
                kind = type(result).__name__
                advice = f"an autograd's is gradcheck(gradcheck.wrap(target, tensor={kind}), …)"
            raise CallError(
                f"target: expected a function without a backward to return (loss, gradients), got {built(result)}; "
                f"{advice}"
            )
        return result[0], result[1] if len(result) == 2 else result[1:]

    def backward(self, dy: Array, cache: Any) -> dict[str, Array]:
        self._repeat.before_backward()
        return scaled(self._inputs.by_name(cache), dy)


def scaled(gradients: dict[str, Array], dy: Any) -> dict[str, Array]:
    """The gradients of a loss, which is asked for nothing else than dy = 1, times dy."""
    if isinstance(dy, int):
        return gradients
    factor = np.reshape(dy, ())
    return {name: g if g is None or not hasattr(g, "dtype") else g * factor for name, g in gradients.items()}


def built(result: Any) -> str:
    """How a result is built, in a few words."""
    if isinstance(result, tuple):
        return f"a tuple of {len(result)} ({', '.join(map(built, result))})"
    return f"{type(result).__name__} of shape {result.shape}" if hasattr(result, "shape") else type(result).__name__
