"""Comparing the sides' results, then their times and memory, in turns."""

from __future__ import annotations

import contextlib
import functools
import gc
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from npattn.backend import to_numpy
from npattn.bench import device, pytorch
from npattn.bench.sides import BenchError, Side
from npattn.fused import memory, scratch, tiles
from npattn.fused.threads import get_num_threads, in_parallel, set_num_threads

PAUSE = 0.02  # seconds between two sides, in which the first one's idle threads stop spinning
RUN = 0.2  # seconds that a run takes at least: short calls are repeated
SLOW = 1.0  # seconds; a side that takes longer is timed three times only

Tell = Callable[[str], Any]
"""Gets what is being done just now, to be shown."""


def quietly(doing: str) -> None:
    """Nobody is told."""


LITTLE = 1e-3  # of the largest result: what is smaller than that may be what rounding leaves of nothing


def relative(a: np.ndarray, b: np.ndarray, around: float = 0.0) -> float:
    """‖a − b‖ / ‖b‖, or by a little of what is around b where that is more."""
    scale = max(float(np.linalg.norm(b.ravel())), LITTLE * around)
    return float(np.linalg.norm((a - b).ravel())) / (scale or 1.0)


def compare(sides: list[Side], limit: float, tell: Tell = quietly) -> dict[str, str]:
    """Check that all sides compute what the first one does. Sets their `difference`.

    Each is called once, as a training step is another one after the first. Returns the sides whose compiler fails, by
    name, and why; memory that is all used is not a compiler's failure.

    Raises
    ------
    BenchError
        If a result differs by more than `limit` of its norm.
    """
    first, failed = {key: to_numpy(value) for key, value in sides[0].both().items()}, {}
    largest = max(float(np.linalg.norm(value.ravel())) for value in first.values())
    for side in sides[1:]:
        tell(f"comparing {side.name}")
        try:
            results = side.both()
            if side.kind == "compiled" and side.forward:
                side.forward()
        except RuntimeError as error:  # torch's and XLA's are all of that kind
            if side.kind != "compiled":
                raise
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
            failed[side.name] = f"{type(error).__name__}: {lines[0]}"
            continue
        for key, expected in first.items():
            difference = relative(to_numpy(results[key]).reshape(expected.shape), expected, largest)
            side.difference = max(side.difference, difference)
            if not difference <= limit:
                raise BenchError(
                    f"{side.name}: {key} differs from {sides[0].name}'s by {difference:.1e}, limit {limit:.0e}"
                )
    return failed


def status(key: str) -> float | None:
    """A line of /proc/self/status in bytes, or None where the system has none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(key + ":"):
                return float(line.split()[1]) * 1024
    return None


def peak_memory(call: Callable[[], Any], release: Callable[[], Any] = lambda: None) -> float | None:
    """How far one call drives the process's memory up, in bytes; None where the system does not tell (not Linux).

    The scratch that our threads hold from call to call counts as well.
    """
    scratch.drop()
    call()
    release()
    gc.collect()
    memory.drop()  # what waits for the next output counts as well
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the highest mark so far
    except OSError:
        return None
    before = status("VmRSS")
    result = call()
    highest = status("VmHWM")
    del result
    return None if before is None or highest is None else highest - before + scratch.nbytes()


def measure(sides: list[Side], runs: int, on: str = "cpu", *, peaks: bool = True, tell: Tell = quietly) -> None:
    """Time all sides in turns, on "cpu" or on "cuda". Sets their times, and peaks where one process does all.

    Without `peaks` none is measured: of an allocator that keeps memory the system does not see what a call takes.

    A turn warms a side up by one call, then times as many calls as fill a run, and notes the time of one.
    """
    for side in sides:
        if side.processes > 1 or not peaks:
            side.peak = None
        elif on == "cpu":
            side.peak = peak_memory(side.both, side.release)
        else:
            side.peak = device.peak_memory(side.xp, side.both, side.release)
    wait = device.wait if on != "cpu" else lambda xp: None
    for kind in ("forward", "both"):
        for turn in range(runs):
            for side in sides:
                call = getattr(side, kind)
                times = getattr(side, f"{kind}_times")
                if call is None or not side.timed or (turn >= 3 and min(times) > SLOW):
                    continue
                tell(f"{kind}, turn {turn + 1} of {runs}: {side.name}")
                gc.collect()
                time.sleep(PAUSE)
                clock = side.clock or functools.partial(timed, call, wait, side.xp)
                calls = max(1, math.ceil(RUN / clock(1)))
                times.append(clock(calls) / calls)


def timed(call: Callable[[], Any], wait: Callable[[Any], Any], xp: Any, calls: int = 1) -> float:
    """The seconds that so many calls take, one after another."""
    start = time.perf_counter()
    for _ in range(calls):
        result = call()
        del result  # before the next one, which may take its memory
    wait(xp)
    return time.perf_counter() - start


def copy_side(nbytes: int) -> Side:
    """Copying an array of that size with all threads, to be timed in turns with the rest."""
    source, target = np.ones(nbytes, dtype=np.uint8), np.ones(nbytes, dtype=np.uint8)
    parts = tiles.even(nbytes, math.ceil(nbytes / get_num_threads()), multiple=4096)

    def part(i: int) -> None:
        np.copyto(target[parts[i]], source[parts[i]])

    def both() -> dict[str, Any]:
        in_parallel(part, len(parts))
        return {}

    return Side("copy", None, both)


@contextlib.contextmanager
def threads_set(threads: int) -> Iterator[None]:
    """Ours and PyTorch's number of threads."""
    torch = pytorch.torch_module()
    before = torch.get_num_threads() if torch else None
    set_num_threads(threads)
    if torch:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        set_num_threads(None)
        if torch:
            torch.set_num_threads(before)
