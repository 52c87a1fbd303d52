"""Functions of one number, by the names that the blocks' options take: `gate` makes a gate, `act` is between two FC."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from npattn.backend import Array
from npattn.ops import hard_sigmoid, relu, sigmoid, silu


class Pair(NamedTuple):
    """A forward and its backward."""

    forward: Callable[..., tuple[Array, Any]]
    backward: Callable[..., Array]


GATES = {
    "sigmoid": Pair(sigmoid.forward, sigmoid.backward),
    "hard_sigmoid": Pair(hard_sigmoid.forward, hard_sigmoid.backward),
    "hard_sigmoid_5": Pair(partial(hard_sigmoid.forward, d=5), hard_sigmoid.backward),
    "paddle_hard_sigmoid": Pair(partial(hard_sigmoid.forward, d=1 / 0.1666667), hard_sigmoid.backward),
    "torch_hard_sigmoid": Pair(hard_sigmoid.forward, hard_sigmoid.torch_backward),
}

HIDDEN = {
    "relu": Pair(relu.forward, relu.backward),
    "silu": Pair(silu.forward, silu.backward),
}
