"""The pairs of attention/ and ops/ once more, for NumPy arrays, derived so that memory is passed over few times.

The same signatures, the same parameters, the same numbers, ties included; caches of their own. A layer uses them by
itself (`layer.path` says so) where `takes(x)` says yes. Derivations and measurements: docs/fused.md

Within `npattn.no_grad()` channel and spatial attention, CBAM and 2×2 maxima do not look for which of several numbers
was the maximum, which only a backward needs. That entry of their cache is None then, and a backward says so.

    threads     how many, and how work is shared among them
    blas        BLAS held to one thread meanwhile
    scratch     arrays to work in, kept from call to call
    tiles       how a batch is cut
    maps        the reductions that the blocks share: over pixels, over channels
    mlp         the two FC that SE and channel attention share
    layout      how the images lie in memory: one after another, or side by side
    memory      large outputs, whose memory is used again
    shares      what processes tell each other that work on one batch together
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from types import ModuleType
from typing import Any

import numpy as np

from npattn import layer
from npattn.checks import FLOATS
from npattn.fused import layout


@functools.cache
def twin(textbook: str) -> ModuleType | None:
    """The fused form of the pair in the module of that name: the file of the same name here, or None."""
    if not textbook.startswith(("npattn.ops.", "npattn.attention.")):
        return None  # somebody's own, whatever it is called
    name = textbook.rpartition(".")[2]
    here = {found.name for found in pkgutil.iter_modules(__path__)}
    return importlib.import_module(f"{__name__}.{name}") if name in here else None


def twin_for(textbook: str, arrays: tuple[Any, ...]) -> ModuleType | None:
    """`twin` where it can take all of these arrays: what layers ask."""
    return twin(textbook) if takes(*arrays) else None


def takes(*arrays: Any) -> bool:
    """Whether the fused pairs can work on all of these: NumPy arrays, float32 or float64, contiguous, not empty.

    Images may also lie side by side (layout.py).
    """
    for x in arrays:
        if type(x) is not np.ndarray or x.dtype not in FLOATS or x.size == 0:
            return False
        flags = x.flags
        if not flags.aligned or not (flags.c_contiguous or layout.side_by_side(x)):
            return False
    return True


def check_takes(**arrays: Any) -> None:
    """Raise TypeError for an array that the fused pairs cannot work on, by its name. None stands for an absent one."""
    for name, x in arrays.items():
        if x is not None and not takes(x):
            raise TypeError(
                f"{name}: expected a contiguous NumPy array of float32 or float64 that is not empty "
                "(the textbook pair takes the others)"
            )


def needed(array: Any) -> Any:
    """A cache's entry that only a backward needs. Raises RuntimeError if the forward was told not to look for it."""
    if array is None:
        raise RuntimeError(
            "cache: was made under npattn.no_grad(), where a forward leaves out what only backward needs: "
            "run forward outside of it"
        )
    return array


layer.offer_faster(twin_for)
