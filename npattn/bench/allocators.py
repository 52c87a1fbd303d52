"""Which allocator a process works with. It is chosen as the process starts, by its environment.

As it comes, glibc's malloc fetches every large block from the system and gives it back when it is freed. A tensor that
is made at each call is fetched at each call, and the system clears its pages one by one as they are first touched: half
of what PyTorch takes at the sizes here. PyTorch's own tuning guide says how to keep the memory, so that is what a peer
is measured with at its best.
"""

from __future__ import annotations

import ctypes.util
import os
import platform
from collections.abc import Mapping
from pathlib import PurePath
from typing import NamedTuple

from npattn.bench.sides import BenchError

MUCH = str(4 * 10**9)  # bytes: more than any side holds

KEPT = {
    "MALLOC_TRIM_THRESHOLD_": MUCH,  # give memory back only when so much is free
    "MALLOC_MMAP_THRESHOLD_": MUCH,  # ask the system for a block of its own only from this size on
    "MALLOC_MMAP_MAX_": "0",  # the same for older glibc, which takes no threshold so large
    "MALLOC_TOP_PAD_": str(4 * 10**8),  # ask for so much more than is needed
}
HUGE = {"THP_MEM_ALLOC_ENABLE": "1"}  # PyTorch asks for huge pages, as NumPy does unasked


class Allocator(NamedTuple):
    """What a process is started with."""

    name: str
    what: str
    keeps: bool = True  # freed memory, for the next block
    variables: Mapping[str, str] = {}
    libraries: tuple[str, ...] = ()  # one of these is loaded in front of glibc's


AS_IT_COMES = "as-it-comes"

KINDS = (
    Allocator("kept", "glibc's, set to keep memory", variables=KEPT),
    Allocator("huge", "the same, and PyTorch asks for huge pages", variables=KEPT | HUGE),
    Allocator(
        "tcmalloc",
        "tcmalloc",
        variables={"TCMALLOC_RELEASE_RATE": "0"},
        libraries=("tcmalloc_minimal", "tcmalloc"),
    ),
    Allocator(
        "jemalloc",
        "jemalloc",
        variables={"MALLOC_CONF": "dirty_decay_ms:-1,muzzy_decay_ms:-1"},
        libraries=("jemalloc",),
    ),
    Allocator(AS_IT_COMES, "glibc's as it comes", keeps=False),
)
ALLOCATORS = {allocator.name: allocator for allocator in KINDS}

BEST = "best"
"""All of them that there are."""

INHERITED = "inherited"
"""None: measured in this process, with the allocator that it has."""

OURS = {name for allocator in KINDS for name in allocator.variables} | {"GLIBC_TUNABLES"}


def library(allocator: Allocator) -> str | None:
    """The name of the first of its libraries that is installed."""
    return next(filter(None, map(ctypes.util.find_library, allocator.libraries)), None)


def glibc() -> bool:
    """Whether Python runs on glibc, whose allocator all this is about."""
    return platform.libc_ver()[0] == "glibc"


def usual(on: str) -> str:
    """What is measured with unless something is asked for: on a GPU the memory is not malloc's."""
    return BEST if on == "cpu" and glibc() else INHERITED


def chosen(name: str) -> list[Allocator]:
    """The allocators to measure with, by what was asked for; none: in this process.

    Raises
    ------
    BenchError
        If there is no such allocator on this system.
    """
    if name == INHERITED:
        return []
    if not glibc():
        raise BenchError(f"--allocator {name} needs glibc; leave it out, or say {INHERITED}")
    if name == BEST:
        return [allocator for allocator in KINDS if not allocator.libraries or library(allocator)]
    allocator = ALLOCATORS[name]
    if allocator.libraries and not library(allocator):
        raise BenchError(f"--allocator {name}: no lib{' nor lib'.join(allocator.libraries)} is installed")
    return [allocator]


def environment(allocator: Allocator, before: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment that a process with this allocator starts in: `before`, without another allocator's traces."""
    result = {key: value for key, value in before.items() if key not in OURS and not key.startswith("MALLOC_")}
    loaded = [path for path in before.get("LD_PRELOAD", "").replace(":", " ").split() if not is_allocator(path)]
    if allocator.libraries:
        loaded.insert(0, library(allocator) or allocator.libraries[0])
    result.pop("LD_PRELOAD", None)
    if loaded:
        result["LD_PRELOAD"] = ":".join(loaded)
    return result | dict(allocator.variables)


def is_allocator(path: str) -> bool:
    """Whether a library that is loaded first is an allocator, by its name."""
    return "malloc" in PurePath(path).name
