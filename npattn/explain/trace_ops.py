"""The ops, run slowly: each on an example small enough for a pencil, as `npattn.explain.trace` runs the blocks."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from npattn.checks import whole_number
from npattn.explain.trace import Check, Trace, differences, flat, watched
from npattn.ops import activation, batch_norm, conv2d, linear, loss, pooling


class Op(NamedTuple):
    """What can be traced: a pair of a module, and an example of what its forward takes."""

    module: ModuleType
    pair: str  # "relu_" for relu_forward and relu_backward
    example: Callable[[np.random.Generator], tuple[Any, ...]]
    names: tuple[str, str] = ("x", "y")


def shuffled(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Halves from −n/4 to n/4, all of them different and none of them 0: no kink, no tie."""
    count = int(np.prod(shape))
    numbers = np.arange(count) - count // 2
    return rng.permutation(np.where(numbers < 0, numbers, numbers + 1) / 2).reshape(shape)


def chosen(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Weights that the head can multiply by."""
    return rng.choice([-2.0, -1.0, -0.5, 0.5, 1.0, 2.0], shape)


def scores(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two images, three classes."""
    return shuffled(rng, 2, 3), rng.permutation(3)[:2]


OPS = {
    "relu": Op(activation, "relu_", lambda rng: (shuffled(rng, 2, 3),)),
    "sigmoid": Op(activation, "sigmoid_", lambda rng: (shuffled(rng, 2, 3),)),
    "linear": Op(linear, "", lambda rng: (shuffled(rng, 2, 2), linear.Params(chosen(rng, 3, 2), chosen(rng, 3)))),
    "global_avg_pool": Op(pooling, "global_avg_pool_", lambda rng: (shuffled(rng, 1, 2, 2, 2),)),
    "global_max_pool": Op(pooling, "global_max_pool_", lambda rng: (shuffled(rng, 1, 2, 2, 2),)),
    "channel_mean": Op(pooling, "channel_mean_", lambda rng: (shuffled(rng, 1, 2, 2, 2),)),
    "channel_max": Op(pooling, "channel_max_", lambda rng: (shuffled(rng, 1, 2, 2, 2),)),
    "avg_pool_2x2": Op(pooling, "avg_pool_2x2_", lambda rng: (shuffled(rng, 1, 1, 2, 5),)),
    "max_pool_2x2": Op(pooling, "max_pool_2x2_", lambda rng: (shuffled(rng, 1, 1, 2, 5),)),
    "conv2d": Op(
        conv2d, "", lambda rng: (shuffled(rng, 1, 1, 2, 3), conv2d.Params(chosen(rng, 1, 1, 3, 3), chosen(rng, 1)))
    ),
    "batch_norm": Op(
        batch_norm,
        "train_",
        lambda rng: (shuffled(rng, 2, 1, 1, 3) + 1, batch_norm.Params(chosen(rng, 1), chosen(rng, 1))),
    ),
    "loss": Op(loss, "", scores, names=("z", "loss")),
}


def trace_op(name: str, seed: int | None = None) -> Trace:
    """Run an op forward and backward on its small example, and keep every number.

    Parameters
    ----------
    name
        A key of `OPS`.
    seed
        Of the numbers, at least 0; None takes the one of the docs' example.

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its range; the message names it.
    """
    if name not in OPS:
        raise ValueError(f"name: expected one of {', '.join(OPS)}, got {name!r}")
    op = OPS[name]
    rng = np.random.default_rng(1 if seed is None else whole_number("seed", seed, least=0))
    forward, backward = (getattr(op.module, op.pair + way) for way in ("forward", "backward"))
    inputs = op.example(rng)
    (y, cache), there = watched(forward, *inputs)
    y = np.asarray(y)
    dy = np.array(1.0) if y.ndim == 0 else rng.choice([-1.0, -0.5, 0.5, 1.0, 2.0], y.shape)
    gradients, back = watched(backward, dy, cache)
    if not isinstance(gradients, tuple):
        gradients = (gradients,)

    x = inputs[0]
    params, grads = {}, {op.names[0]: gradients[0]}
    for given, gradient in zip(inputs[1:], (*gradients[1:], None), strict=False):
        if gradient is None:  # the right classes: whole numbers
            params["t"] = given
        else:
            params |= dict(flat(given))
            grads |= dict(flat(gradient))
    moved = {op.names[0]: x} | params
    checks = [
        Check(f"d{key}", gradient, differences(lambda: forward(*inputs)[0], moved[key], dy))
        for key, gradient in grads.items()
    ]
    return Trace(name, x, params, dy, there, y, back, checks, op.names)
