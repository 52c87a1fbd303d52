"""NaN and infinity in training: the cheap check of every step, and the search for where the first one came from.

The check reads the loss, the gradients and the running statistics, a few thousandths of a step's time. The search runs
only once the check has failed: it goes through the step again, layer by layer, in the order of the computation, and
names the first that was given numbers and made something else of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from npattn.backend import Array, to_numpy
from npattn.layer import Layer
from npattn.nested import Sequential
from npattn.ops import loss


def bad(array: Array) -> str | None:
    """What is wrong with an array, "3 of its 144 numbers are nan" say; None if all its numbers are finite."""
    array = to_numpy(array)
    wrong = ~np.isfinite(array)
    if not wrong.any():
        return None
    kinds = " or ".join(kind for kind, found in (("nan", np.isnan(array)), ("inf", np.isinf(array))) if found.any())
    return f"{wrong.sum():,} of its {array.size:,} numbers are {kinds}"


def every(arrays: Mapping[str, Any]) -> bool:
    """Whether all numbers are finite, of all arrays or plain numbers."""
    return all(np.isfinite(to_numpy(array)).all() for array in arrays.values())


def after_backward(value: Array, grads: Mapping[str, Array], model: Layer) -> bool:
    """Whether a step has gone well so far: its loss, its gradients' squares and the running statistics are finite.

    The squares, since AdamW squares them: a float32 gradient beyond 1.8e19 would make its second moment infinite.
    """
    return (
        math.isfinite(float(value))
        and all(np.isfinite(np.vdot(g, g)) for g in map(to_numpy, grads.values()))
        and every(model.buffers)
    )


@np.errstate(all="ignore")
def culprit(model: Sequential, x: Array, t: Array, digits: Array, which: str = "training") -> str:
    """Where the first NaN or infinity of a step comes from.

    Parameters
    ----------
    model
        The network as it was at the step; the step is run again, in the model's mode.
    x, t
        The batch.
    digits
        Which digits they are, for the message.
    which
        Of which set, "training" or "test".

    Returns
    -------
    str
        A clause that names the parameter, the digit, or the layer with its largest parameter and input.
    """
    if not every(model.params) or not (model.training or every(model.buffers)):
        return in_state(model)
    for n in range(len(x)):
        if fault := bad(x[n]):
            return f"it began in {which} digit {digits[n]}: {fault}"
    y = x
    for name, layer in named(model):
        given, y = y, layer.forward(y)
        for what, array in {"output": y, **layer.buffers}.items():
            if fault := bad(array):
                return f"it began in the forward of {name}, {layer}: of its {what} {fault}; {sizes(name, layer, given)}"
    value, cache = loss.forward(y, t)
    if not math.isfinite(float(value)):
        return f"it began in the loss, of scores up to {np.abs(to_numpy(y)).max():.2g}"
    dy = loss.backward(model.xp.ones_like(value), cache)
    for name, layer in reversed(list(named(model))):
        given, dy = dy, layer.backward(dy)
        for what, array in {**layer.grads, "input": dy}.items():
            if fault := bad(array) or (bad(array * array) and "it is too large to be squared"):
                where = f"it began in the backward of {name}, {layer}: of the gradient of its {what}"
                return f"{where} {fault}; {sizes(name, layer, given, 'the cotangent')}"
    return "run again, the step is finite: something outside of it has changed the arrays"


def in_state(model: Sequential) -> str:
    """The first of the model's parameters and buffers that is not finite, by its layer."""
    for name, layer in named(model):
        for kind, arrays in (("parameter", layer.params), ("buffer", layer.buffers)):
            for key, array in arrays.items():
                if fault := bad(array):
                    return f"it began in the {kind} {name}.{key} of {layer}: {fault}"
    raise ValueError("model: all its parameters and buffers are finite")


def sizes(name: str, layer: Layer, given: Array, what: str = "the input") -> str:
    """How large the numbers were that the layer worked with."""
    parts = [f"{what} goes up to {np.abs(to_numpy(given)).max():.2g}"]
    if layer.params:
        key, array = max(layer.params.items(), key=lambda item: np.abs(to_numpy(item[1])).max())
        parts.append(f"{name}.{key} up to {np.abs(to_numpy(array)).max():.2g}")
    return ", ".join(parts)


def named(model: Sequential, prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """Every layer of the network that is no Sequential itself, with its name, in the order of the forward."""
    for name, layer in model.layers.items():
        if isinstance(layer, Sequential):
            yield from named(layer, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", layer
