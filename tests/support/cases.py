"""The pairs and layers of the library's own tables, as tests ask them.

Nothing is listed by hand: npattn.checker.cases finds every op, block and form, so a new one is in every test at once.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from npattn import variants
from npattn.attention.cbam import CBAM
from npattn.attention.gate import Gated
from npattn.attention.residual import Residual
from npattn.attention.se_parallel import ParallelSE, SEGate
from npattn.block import Place
from npattn.blocks import Entry, blocks
from npattn.checker import cases as library
from npattn.checker.cases import Maker
from npattn.layer import Layer
from npattn.nested import Sequential
from npattn.ops.conv2d import Conv2d
from npattn.ops.linear import Linear
from npattn.samples import Random
from tests.support.trees import Tree


class Case(NamedTuple):
    """A pair of the library's own table, and how its inputs are drawn: O(1) float64 numbers."""

    name: str
    forward: Callable[..., tuple[Any, Any]]
    backward: Callable[[Any, Any], Any]
    inputs: Callable[[Random], tuple[Tree, ...]]
    module: ModuleType
    norm: bool = False  # whether it normalises by the batch
    smallest: int = 1  # least H and W

    @property
    def textbook(self) -> str:
        """The name of the textbook's case: that of a fused one without its ending."""
        return self.name.removesuffix(", fused")

    @property
    def gate(self) -> bool:
        """Whether the block's card says that it returns its gate alone."""
        entry = entry_of(self.name)
        return entry is not None and entry.card.gate

    @property
    def dy(self) -> str:
        """What the backward calls its cotangent: "dy", of a gate "dg"."""
        return next(iter(inspect.signature(self.backward).parameters))

    def draw(
        self, rng: np.random.Generator, size: tuple[int, int, int, int] = (2, 3, 5, 4), ratio: int = 2, k: int = 3
    ) -> tuple[Tree, ...]:
        """Inputs for x of `size` (N, C, H, W), a hidden width of C // ratio and a k×k kernel."""
        if self.norm and size[0] < 3:
            size = (3, *size[1:])  # of one number an image, two are always at ±1: their x̂ has no slope to check
        return self.inputs(Random(rng, size, min(ratio, size[1]), k))

    def gradients(self, dy: Any, cache: Any) -> tuple[Tree, ...]:
        """The backward's answer as a tuple."""
        answer = self.backward(dy, cache)
        return answer if isinstance(answer, tuple) else (answer,)

    def __repr__(self) -> str:
        return self.name


def entry_of(name: str) -> Entry | None:
    """The block, or form of one, that a row of that name is of; None for an op's."""
    return blocks().get(name.partition(",")[0])


def of_its_own(row: library.Case | Maker) -> bool:
    """Whether it is more than a block at another place: a form that has arguments of its own, if it is a form."""
    entry = entry_of(row.name)
    return entry is None or bool(entry.arguments) or not entry.place


def as_case(case: library.Case) -> Case:
    """A row of the library's table."""
    smallest = 2 if case.name.startswith("2×2") else 1
    return Case(case.name, case.forward, case.backward, case.draw, case.module, case.norm, smallest)


def ident(case: Case | Maker) -> str:
    """A test's name in ASCII: not every tool gets others right."""
    return case.name.replace("×", "x")


OPS = [as_case(case) for case in library.op_cases()]
BLOCKS = [as_case(case) for case in library.block_cases() if of_its_own(case)]
FUSED = [as_case(case) for case in library.fused_cases() if of_its_own(case)]
CASES = OPS + BLOCKS
TEXTBOOK = {case.name: case for case in CASES}


def normed_gate(place: Place, **options: Any) -> Layer:
    """A spatial gate with a batch norm, applied."""
    return Gated(variants.SpatialAttention(3, mix="mean", norm=True, **options))


def normed_cbam(place: Place, **options: Any) -> Layer:
    """CBAM with a batch norm in the gate that goes first."""
    return variants.CBAM.fitting(place, order="spatial-first", spatial={"norm": True}, **options)


def parallel_residual(place: Place, **options: Any) -> Layer:
    """CBAM with two options at once."""
    return variants.CBAM.fitting(place, order="parallel", residual=True, channel={"bias": True}, **options)


def narrower_unit(place: Place, **options: Any) -> Layer:
    """A residual unit of fewer channels than come in, with a CBAM in it."""
    branch = Sequential(Conv2d(place.C, 3, 3, **options), CBAM(3, ratio=1, **options))
    return Residual(branch, skip=Conv2d(place.C, 3, 1, **options))


def narrower_parallel(place: Place, **options: Any) -> Layer:
    """SE beside a convolution to fewer channels."""
    return ParallelSE(Conv2d(place.C, 5, **options), SEGate(place.C, 5, 2, **options))


COMPOSED = [
    Maker("gated-spatial-norm", normed_gate),
    Maker("gated-spatial-norm, eval", normed_gate, evaluated=True),
    Maker("cbam-spatial-first-norm", normed_cbam),
    Maker("cbam-parallel-residual", parallel_residual),
    Maker("residual-narrower", narrower_unit),
    Maker("se-parallel-narrower", narrower_parallel),
    Maker("Conv2d, narrower", lambda place, **options: Conv2d(place.C, 3, **options)),
    Maker("Conv2d, depthwise", lambda place, **options: Conv2d(place.C, place.C, (1, 3), groups=place.C, **options)),
    Maker(
        "Conv2d, dilated",
        lambda place, **options: Conv2d(place.C, 4, 2, stride=2, padding=(3, 2), dilation=(2, 1), groups=2, **options),
    ),
    Maker("Conv2d without bias", lambda place, **options: Conv2d(place.C, 3, bias=False, **options)),
    Maker("Linear without bias", lambda place, **options: Linear(place.W, 2, bias=False, **options)),
]
"""Layers of the library's put together in ways that no card shows."""

MAKERS = [make for make in library.makers() if of_its_own(make)] + COMPOSED


def image_for(layer: Layer, shape: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """That shape, but with the height and width of images that the layer is made for, if it is for one size only."""
    N, C, H, W = shape
    return N, C, layer.sizes.get("H", H), layer.sizes.get("W", layer.sizes.get("K", W))  # K: a Linear's last axis


def as_pair(layer: Layer) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A layer as two functions: forward(x, params by key) to (y, cache), backward(dy, cache) to (dx, grads by key).

    Each forward runs on a copy, so nothing of the layer is changed and caches live side by side. x and params may be of
    any dtype, complex ones included; the running statistics follow.
    """

    def forward(x: Any, params: dict[str, Any]) -> tuple[Any, Layer]:
        here = copy.deepcopy(layer)
        for key, value in params.items():
            here.params[key] = value
        for key, value in here.buffers.items():
            here.buffers[key] = value.astype(x.dtype)
        return here.forward(x), here

    def backward(dy: Any, cache: Layer) -> tuple[Any, dict[str, Any]]:
        return cache.backward(dy), dict(cache.grads)

    return forward, backward
