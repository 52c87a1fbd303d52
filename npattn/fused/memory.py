"""Memory for large outputs, used again once nobody holds the last one.

Fresh memory of many megabytes must be found and cleared by the system, which takes as long as a pass over it, and
stalls for much longer where memory is fragmented. So the memory of an output is kept when its last array is gone, and
the next output of the same size gets it. An output never shares memory with anything that is still alive.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np

LEAST = 4 << 20  # bytes; what is smaller, the allocator keeps by itself
spare: deque[Any] = deque(maxlen=2)  # an output and a gradient; its operations are atomic, and a third drops the oldest


class Lease:
    """Holds a buffer for one array and the views of it; ends with the last of them."""

    def __init__(self, buffer: Any, shape: tuple[int, ...], dtype: Any) -> None:
        self.buffer = buffer
        self.__array_interface__ = {
            "shape": shape,
            "typestr": np.dtype(dtype).str,
            "data": (buffer.ctypes.data, False),  # not read-only
            "version": 3,
        }

    def __del__(self) -> None:
        spare.append(self.buffer)


def output(shape: tuple[int, ...], dtype: Any) -> Any:
    """An array of that shape with anything in it, for a result that is handed out."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < LEAST:
        return np.empty(shape, dtype=dtype)
    buffer = None
    for _ in range(len(spare)):
        try:
            candidate = spare.popleft()
        except IndexError:  # another thread was faster
            break
        if candidate.size == size:
            buffer = candidate
            break
        spare.append(candidate)
    return np.asarray(Lease(np.empty(size, dtype=np.uint8) if buffer is None else buffer, shape, dtype))


def drop() -> None:
    """Give what is kept back to the system."""
    spare.clear()
