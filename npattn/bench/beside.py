"""A block's forward and backward, and SE's, timed in turns: what one costs more than the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from npattn.arguments import explained
from npattn.bench.measure import Tell, measure, quietly
from npattn.bench.sides import inputs, our_side
from npattn.block import Place
from npattn.blocks import block
from npattn.checks import whole_number, whole_numbers
from npattn.grad_mode import no_grad
from npattn.state import dtype_name

BESIDE = "se"


@explained
def bench_beside(
    name: str, shape: tuple[int, int, int, int], *, runs: int, dtype: str = "float32", tell: Tell = quietly
) -> dict[str, Any]:
    """Time a block's forward and backward, and SE's in turns with it.

    Parameters
    ----------
    name
        One of `npattn.blocks.blocks()`.
    shape
        (N, C, H, W) of x.
    runs
        How many turns.
    dtype
        "float32" or "float64".
    tell
        Gets what is being done.

    Returns
    -------
    dict
        By path, "textbook" and "fused" where there is one: "seconds" of each turn, sorted, and "beside", those of SE.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of its range.
    """
    entry, dtype, runs = block(name, "name"), dtype_name(dtype), whole_number("runs", runs)
    shape = whole_numbers("shape", shape, 4)  # type: ignore[assignment]
    rng = np.random.default_rng(0)
    x = inputs(shape, dtype, "dense", rng)
    found: dict[str, Any] = {}
    for path in ("textbook", "fused"):
        sides = []
        for one in (entry, block(BESIDE)):
            layer = one.layer(Place(*shape[1:]), rng=0, dtype=dtype, fused=path == "fused")
            with no_grad():
                dy = rng.standard_normal(layer(x).shape, dtype=x.dtype.type)
            if layer.path == path:
                side = our_side(path, layer, x, dy)
                side.forward = None  # both ways are what a training takes
                sides.append(side)
        if len(sides) == 2:
            measure(sides, runs, peaks=False, tell=tell)
            ours, beside = (sorted(side.both_times) for side in sides)
            found[path] = {"seconds": ours, "beside": beside}
    return found
