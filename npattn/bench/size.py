"""How much memory a block will take in `npattn bench`, before the first array of the size that was asked for is made.

The same block is run on small maps, where that is seen, and the rest follows: it holds so many bytes a pixel.
"""

from __future__ import annotations

import gc
import math
import tracemalloc
from collections.abc import Collection

import numpy as np

from npattn.block import Place
from npattn.blocks import Entry
from npattn.capacity import need, shapes_only
from npattn.fused import memory
from npattn.grad_mode import no_grad

SIDES = (16, 32)  # pixels a side of the small maps
IMAGES = 2  # of them: some norms take a variance over the images
WIDEST = 2**12  # channels that are tried; with more of them only x and its like are counted
KEPT = 4  # arrays of x's size beside what a block holds while it runs: x, dy, and the y and dx that others are held to


def check_size(entry: Entry, shape: tuple[int, ...], dtype: str, beside: Collection[str]) -> None:
    """Raise MemoryError if the benchmark of a block on x of that shape takes more memory than there is."""
    shape = tuple(shape)
    most = KEPT * math.prod(shape) * np.dtype(dtype).itemsize
    need(most, lambda: f"shape: x of {shape} in {dtype}, y and their gradients")
    with shapes_only():
        layer = entry.layer(Place(*shape[1:]))
    for key, value in layer.params.items():
        text = f"{layer!r}: {key} of shape {tuple(value.shape)}"
        need(8 * math.prod(value.shape), lambda text=text: text)  # type: ignore[misc]
    if shape[1] <= WIDEST and most > SIDES[-1] ** 2 * shape[1]:
        most += max(held(entry, shape, dtype, fused) for fused in ((True, False) if "textbook" in beside else (True,)))
    need(most, lambda: f"shape: {entry.name} on x of {shape} in {dtype}, forward and backward")


def held(entry: Entry, shape: tuple[int, ...], dtype: str, fused: bool) -> int:
    """The bytes that a forward with its backward will hold at the same time, beside x and dy.

    Of a block that compares each pixel with each these are too few.
    """
    N, C, H, W = shape
    small, large = (peak(entry, C, side, dtype, fused) for side in SIDES)
    return max(0, large - small) * N * H * W // (IMAGES * (SIDES[1] ** 2 - SIDES[0] ** 2))


def peak(entry: Entry, C: int, side: int, dtype: str, fused: bool) -> int:
    """What it holds at most on a few small maps."""
    layer = entry.layer(Place(C, side, side), rng=0, dtype=dtype, fused=fused)
    x = np.ones((IMAGES, C, side, side), dtype)
    with no_grad():
        dy = np.ones(layer(x).shape, dtype)
    memory.drop()  # what waits for the next output was made before
    gc.collect()
    tracemalloc.start()
    try:
        layer(x)
        layer.backward(dy)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        memory.drop()
