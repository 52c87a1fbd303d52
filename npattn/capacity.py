"""How much memory there is: what would take more is refused by name before anything is taken.

need(size, what)    raise MemoryError if `size` bytes are more than this process may have
shortage(error)     whether an error comes of a want of memory, in words
shapes_only()       within it, new layers have the shapes of their weights, but no memory for them: to count them
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

SMALL = 2**24  # bytes that are not worth asking for
A_THREAD = 112 << 20  # bytes of addresses that a thread takes at first use: its stack, its heap, its buffer of BLAS


def need(size: int, what: Callable[[], str]) -> None:
    """Raise MemoryError if `size` bytes are more than `capacity()`.

    What is smaller may still fail, when it is taken; so this is for sizes that a caller can choose.

    Parameters
    ----------
    size
        Bytes that would be held at the same time.
    what
        Gives the words for them, with the argument that they depend on: "kernel_size: weights of shape (1, 2, 9, 9)".
    """
    if size > SMALL and size > (there := capacity()):
        raise MemoryError(f"{what()}: {amount(size)} of memory; this process may have {amount(there)}")


def capacity() -> int:
    """How many bytes this process may have more than now: the least of what its limits leave.

    These are the machine's memory, that of the control group that the process is in (a container), and the address
    space that `ulimit -v` allows, less what is in use of it. Where the system tells none of them, all that can be
    addressed.
    """
    return max(0, min([sys.maxsize, *machine(), *group(), *process()]))


def check_limit() -> None:
    """Raise MemoryError if `ulimit` leaves too little to compute at all.

    BLAS that gets no buffer may end the process by itself, or never come back.
    """
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if (left := min(process(), default=sys.maxsize)) < threads * A_THREAD:
        raise MemoryError(
            f"ulimit: {threads} threads with their stacks and buffers of BLAS may take {amount(threads * A_THREAD)} of "
            f"memory; this process may have {amount(max(0, left))}"
        )


def machine() -> Iterator[int]:
    """The machine's memory, in use or not: what others hold now they may give back."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # no sysconf, or not these
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def group() -> Iterator[int]:
    """The limits of the control groups of Linux, of the second and the first kind, that the process is in."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds in ("", "memory"):
                root = Path("/sys/fs/cgroup") / kinds
                name = "memory.limit_in_bytes" if kinds else "memory.max"
                here = root / path.lstrip("/")
                for folder in (here, *here.parents) if here.is_relative_to(root) else ():
                    with contextlib.suppress(OSError, ValueError):  # "max", or not seen from within a container
                        yield int((folder / name).read_text(encoding="ascii"))


def process() -> Iterator[int]:
    """What `ulimit` leaves."""
    with contextlib.suppress(ImportError, OSError, ValueError, IndexError):
        import resource

        pages = [int(word) for word in Path("/proc/self/statm").read_text(encoding="ascii").split()]
        for limit, used in ((resource.RLIMIT_AS, pages[0]), (resource.RLIMIT_DATA, pages[5])):
            allowed = resource.getrlimit(limit)[0]
            if allowed != resource.RLIM_INFINITY:
                yield allowed - used * resource.getpagesize()


def amount(size: int) -> str:
    """Bytes in words: "7.3 TiB"."""
    value = float(size) if size < 2**1000 else float("inf")
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:,.3g} PiB"


SIGNS = ("failed to map segment", "cannot allocate memory", "can't start new thread", "unable to allocate")


def shortage(error: BaseException) -> str:
    """A want of memory in words, by the error that it comes as; "" if that is about something else.

    A library that cannot be mapped is an ImportError, a thread that cannot be started a RuntimeError, and a MemoryError
    often says nothing at all.
    """
    text = str(error)
    if isinstance(error, MemoryError):
        return text or f"out of memory; this process may have {amount(capacity())} more"
    if isinstance(error, ImportError | RuntimeError | OSError) and any(sign in text.lower() for sign in SIGNS):
        return f"out of memory, or of threads: {text.splitlines()[0]}"
    return ""


_shapes_only: ContextVar[bool] = ContextVar("shapes_only", default=False)


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Within the block the weights of a new layer are zeros that take no memory, of any shape. It cannot be trained."""
    token = _shapes_only.set(True)
    try:
        yield
    finally:
        _shapes_only.reset(token)


def has_shapes_only() -> bool:
    """Whether a new layer is to have shapes alone: within `shapes_only`."""
    return _shapes_only.get()
