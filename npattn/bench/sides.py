"""What is timed: the shapes of the documentation's table, the inputs, and our own side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from npattn.backend import from_numpy
from npattn.blocks import Entry, public
from npattn.grad_mode import no_grad
from npattn.layer import Layer


class BenchError(Exception):
    """The sides do not agree, or something that was asked for is not there. The message says which."""


def moves(entry: Entry) -> tuple[int, int]:
    """How many tensors of x's size a forward must read or write at least, and a forward with its backward.

    x is read and y written; backward reads x and dy and writes dx. Of a gate alone, y and dy are small.
    """
    return (1, 2) if entry.card.gate else (2, 5)


def title(entry: Entry) -> str:
    """The class as `npattn` has it, and what form of it: "CBAM", "variants.CBAM, cbam-parallel"."""
    kind = entry.kind
    called = kind.__name__ if kind in public().values() else f"variants.{kind.__name__}"
    return called if entry.name == entry.card.name else f"{called}, {entry.name}"


GPU_TABLE = [("cbam", (64, 256, 56, 56))]  # before the others, on a GPU
LARGE = (8, 32, 300, 300)
STAGES = [(32, 64, 56, 56), (32, 128, 28, 28), (32, 256, 14, 14), (32, 512, 7, 7)]  # ResNet's, of 32 images
TABLE = [
    *((name, LARGE) for name in ("cbam", "se", "channel", "spatial")),
    *((name, shape) for name in ("cbam", "se") for shape in STAGES),
    ("cbam", (1, 512, 7, 7)),
]


@dataclass
class Side:
    """One way to compute the same: `forward()` alone, `both()` forward and backward, results by name."""

    name: str
    forward: Callable[[], Any] | None
    both: Callable[[], dict[str, Any]]
    release: Callable[[], Any] = lambda: None  # drops what lasts between two calls: caches and gradients
    xp: Any = np  # whose device must be waited for
    kind: str = ""  # of a peer: "eager" or "compiled"
    timed: bool = True  # else only compared, and its memory seen
    processes: int = 1  # that work on it; the memory of others than this one is not seen
    clock: Callable[[int], float] | None = None  # seconds of so many calls, of a side that times itself
    forward_times: list[float] = field(default_factory=list)
    both_times: list[float] = field(default_factory=list)
    peak: float | None = None  # bytes
    difference: float = 0.0


DATA = ("dense", "relu", "zero")  # normal numbers, half of them 0, or all 0


def inputs(shape: tuple[int, ...], dtype: str, data: str, rng: np.random.Generator) -> np.ndarray:
    """Standard normal numbers; "relu" cuts them at 0, "zero" leaves none."""
    x = rng.standard_normal(shape, dtype=np.dtype(dtype).type)
    if data == "relu":
        np.maximum(x, 0, out=x)
    elif data == "zero":
        x[...] = 0
    return x


def our_side(name: str, layer: Layer, x: np.ndarray, dy: np.ndarray) -> Side:
    """A layer of ours, on the device that it is on."""
    x, dy = (from_numpy(array, layer.xp, layer.device) for array in (x, dy))

    def forward() -> None:
        with no_grad():
            layer(x)

    def both() -> dict[str, Any]:
        y = layer(x)
        if layer.path != name:
            raise BenchError(f"the {name} side took the {layer.path} path")
        dx = layer.backward(dy)
        return {"y": y, "dx": dx, **layer.grads}

    return Side(name, forward, both, forward, layer.xp)  # a forward under no_grad leaves no cache
