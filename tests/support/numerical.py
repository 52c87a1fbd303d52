"""Gradients without calculus: what the hand-written ones are held against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.support.trees import Tree, cast, leaves, mapped


def complex_step(forward: Callable[..., Any], inputs: tuple[Tree, ...], dy: np.ndarray) -> dict[str, np.ndarray]:
    """Σ dy · ∂y/∂v for every entry v of every float input, by path: Im f(x + ih) / h, with no difference taken.

    Exact to rounding wherever f is a formula of complex numbers, and where no entry sits on a kink.
    """
    h = 1e-100
    lifted_inputs = cast(inputs, np.complex128)
    gradients = {}
    for name, array in leaves(lifted_inputs):
        if array.dtype.kind != "c":
            continue
        gradient = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            array[index] += 1j * h
            gradient[index] = np.sum(dy * (forward(*lifted_inputs)[0].imag / h))
            array[index] = array[index].real
        gradients[name] = gradient
    return gradients


def central_difference(
    forward: Callable[..., Any], inputs: tuple[Tree, ...], dy: np.ndarray, h: float = 1e-4
) -> dict[str, np.ndarray]:
    """The same by differences of fourth order: (8 (f(x+h) − f(x−h)) − (f(x+2h) − f(x−2h))) / 12h."""
    moved = mapped(np.array, inputs)
    gradients = {}
    for name, array in leaves(moved):
        if array.dtype.kind != "f":
            continue
        gradient = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            here, values = array[index], []
            for step in (h, -h, 2 * h, -2 * h):
                array[index] = here + step
                values.append(forward(*moved)[0])
            array[index] = here
            up, down, far_up, far_down = values
            gradient[index] = np.sum(dy * (8 * (up - down) - (far_up - far_down)) / (12 * h))
        gradients[name] = gradient
    return gradients


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    """‖found − wanted‖ / ‖wanted‖, or ‖found‖ where wanted is 0."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    scale = float(np.linalg.norm(wanted))
    error = float(np.linalg.norm(found - wanted))
    return error / scale if scale > 0 else error
