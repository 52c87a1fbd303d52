"""What the causes of a wrong gradient are looked for in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Facts:
    """What is known beside the analytic and the numeric gradient of one tensor: arrays of the looked-at entries."""

    value: np.ndarray | None  # the tensor itself
    y: np.ndarray | None  # the output, if it has the tensor's shape
    dy: np.ndarray | None  # and its cotangent
    y_shape: tuple[int, ...]
    outputs: list[int]  # how many numbers each output has, where there are several
    y_whole: np.ndarray | None  # the same, if all entries are looked at
    earlier: np.ndarray | None  # the backward's gradient for an earlier forward, at other numbers
    numeric_earlier: Callable[[], np.ndarray]  # the numeric one there
    sizes: Mapping[str, int]  # numbers that a factor may come from
    images: int  # the length of the batch
    one_image: Callable[[int], np.ndarray]  # the numeric gradient when only one image of dy counts
    shares: Callable[[np.ndarray], np.ndarray]  # what each output gives these entries: y's shape
    columns: int  # how many entries that may be asked for
    others: Callable[[], dict[str, np.ndarray]]  # the numeric gradients of other tensors of this shape
    zero_elsewhere: Callable[[], bool]  # whether the analytic gradient is 0 at other points, too
    taken_out: Callable[[], bool]  # whether the forward uses the tensor, and y still does not depend on it
    complete: bool  # whether all entries are looked at


def same(p: np.ndarray, q: np.ndarray) -> bool:
    """Whether two arrays agree to six digits of the larger one's largest entry."""
    if p.shape != q.shape:
        return False
    size = max(float(np.max(np.abs(p), initial=0)), float(np.max(np.abs(q), initial=0)))
    return bool(np.max(np.abs(p - q), initial=0) <= 1e-6 * size)


def beyond(a: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Which entries are wrong by more than six digits of the largest: by no rounding, and by no epsilon."""
    return np.asarray(np.abs(a - n) > 1e-6 * np.max(np.abs(n), initial=0))
