"""Timing on a GPU: when it is done, how much of its memory a call takes, how fast it copies, and what it is.

A GPU works on while Python goes ahead, so a time ends when the GPU says that it is done. Our side is the textbook on
CuPy: the fused pairs are NumPy's alone.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from npattn.backend import is_cupy, is_torch


def wait(xp: ModuleType) -> None:
    """Return when everything that was asked of the module's GPU is done; at once where it has none."""
    if is_cupy(xp):
        importlib.import_module("cupy").cuda.Device().synchronize()
    elif is_torch(xp):
        torch = importlib.import_module("torch")
        if torch.cuda.is_available():
            torch.cuda.synchronize()


def peak_memory(xp: ModuleType, call: Callable[[], Any], release: Callable[[], Any]) -> float | None:
    """How far one call drives the GPU memory that the module holds up, in bytes; None where it has no GPU."""
    call()
    release()
    if is_cupy(xp):
        pool = importlib.import_module("cupy").get_default_memory_pool()
        pool.free_all_blocks()
        before = pool.used_bytes()
        result = call()
        wait(xp)
        highest = pool.total_bytes()  # what it has had to ask for, and does not give back by itself
    elif is_torch(xp) and importlib.import_module("torch").cuda.is_available():
        cuda = importlib.import_module("torch").cuda
        cuda.reset_peak_memory_stats()
        before = cuda.memory_allocated()
        result = call()
        wait(xp)
        highest = cuda.max_memory_allocated()
    else:
        return None
    del result
    return float(highest - before)


def copy_bandwidth(xp: ModuleType, target: Any, nbytes: int, copies: int = 10) -> float:
    """Bytes a second, read and written, of copying an array of that size on the device; the best of nine times ten."""
    source, copy = (xp.ones(nbytes // 4, dtype=xp.float32, device=target) for _ in range(2))
    best = math.inf
    for _ in range(9):
        wait(xp)
        start = time.perf_counter()
        for _ in range(copies):
            copy[...] = source
        wait(xp)
        best = min(best, (time.perf_counter() - start) / copies)
    return 2 * (nbytes // 4 * 4) / best


def name(xp: ModuleType) -> str:
    """What the device is: the GPU's name and the CUDA version that CuPy runs on, or the module's name."""
    if not is_cupy(xp):
        return f"{xp.__name__.removeprefix('array_api_compat.')} as the device"
    cupy = importlib.import_module("cupy")
    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(cupy.cuda.Device().id)
    version = runtime.runtimeGetVersion()
    return f"{properties['name'].decode()}, CUDA {version // 1000}.{version % 1000 // 10}, CuPy {cupy.__version__}"
