"""What an answer's backward returns, beside what it should: one gradient for each input, in the shape of that input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from npattn.checker.inputs import GradientCountError


def given_as(gradients: Any, inputs: tuple[Any, ...], names: list[str], remarks: list[str]) -> Any:
    """The gradients with those of Params as Params, where they are given as a plain tuple or list in its order.

    Raises GradientCountError for what cannot be taken so.
    """
    if type(gradients) is not tuple or len(gradients) != len(inputs):
        if len(inputs) != 1:
            return gradients
        return packed_as(gradients, inputs[0], names[0], remarks)
    return tuple(
        packed_as(gradient, value, name, remarks)
        for gradient, value, name in zip(gradients, inputs, names, strict=True)
    )


def packed_as(gradient: Any, like: Any, name: str, remarks: list[str]) -> Any:
    """One gradient: a NamedTuple where the input is one."""
    if gradient is None or not hasattr(like, "_fields"):
        return gradient
    wanted = f"{type(like).__name__}({', '.join(like._fields)})"
    if not isinstance(gradient, tuple | list):
        raise GradientCountError(f"{name}: expected its gradients as {wanted}, got {type(gradient).__name__}")
    if len(gradient) != len(like):
        raise GradientCountError(
            f"{name}: expected its gradients as {wanted}, got a {type(gradient).__name__} of {len(gradient)}"
        )
    if not hasattr(gradient, "_fields"):
        remarks.append(f"{name}: its gradients are a plain {type(gradient).__name__}, read as {wanted}")
    fields = zip(gradient, like, like._fields, strict=True)
    return type(like)(*(packed_as(one, value, f"{name}.{field}", remarks) for one, value, field in fields))


def beside(gradients: Any, value: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    """Each array of an input with its gradient, by name; either may be None."""
    if hasattr(value, "_fields"):
        parts = gradients if isinstance(gradients, tuple) else (None,) * len(value)
        for one, part, field in zip(parts, value, value._fields, strict=True):
            yield from beside(one, part, f"{name}.{field}")
    else:
        yield name, value, gradients


def all_beside(gradients: Any, inputs: tuple[Any, ...], names: list[str]) -> Iterator[tuple[str, Any, Any]]:
    """The same for all inputs."""
    each = gradients if type(gradients) is tuple and len(gradients) == len(inputs) else (gradients,)
    for one, value, name in zip(each, inputs, names, strict=False):
        yield from beside(one, value, name)


def needless(gradients: Any, inputs: tuple[Any, ...], names: list[str]) -> list[str]:
    """Gradients of what is None, which no layer could take."""
    return [
        f"{name}: is None here, and so is its gradient; got an array of shape {np.shape(gradient)}"
        for name, value, gradient in all_beside(gradients, inputs, names)
        if value is None and gradient is not None
    ]


def expected(gradients: Any, inputs: tuple[Any, ...], names: list[str]) -> set[str]:
    """The names of what has a gradient."""
    return {name for name, _, gradient in all_beside(gradients, inputs, names) if gradient is not None}
