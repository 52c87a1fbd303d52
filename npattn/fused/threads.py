"""Threads for the fused pairs: how many, and how work is shared among them.

The work is cut into tasks by its shape and the sizes of the caches (tiles.py), and partial sums are added in the tasks'
order, so a result does not depend on the number of threads. NumPy and BLAS release the interpreter's lock while they
compute: plain Python threads are enough.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import operator
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from npattn.arguments import explained
from npattn.checks import whole_number
from npattn.fused.blas import blas_held

Result = TypeVar("Result")

VARIABLE = "NPATTN_NUM_THREADS"


def available_threads() -> int:
    """The number of processors that this process may use, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


class State:
    """What the threads of a process share: their number, and the helpers."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.chosen: int | None = None
        self.made = 0
        self.idle: list[Helper] = []


state = State()


class Inside(threading.local):
    """A thread's own."""

    task = False  # whether it works on one of the tasks of `in_parallel`
    held = False  # whether on a lone one
    most: int | None = None  # threads that its calls of `in_parallel` may use


inside = Inside()


def _after_fork() -> None:
    """A child has none of its parent's threads, and its locks may be held by a thread that is not there."""
    global state, inside
    before, state, inside = state, State(), Inside()
    state.chosen = before.chosen


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@explained
def set_num_threads(n: int | None) -> None:
    """Set how many threads the fused pairs use, in the whole process.

    Parameters
    ----------
    n
        At least 1. None goes back to the default: the environment variable NPATTN_NUM_THREADS where it is set, else
        the number of processors that the process may use.

    Raises
    ------
    TypeError, ValueError
        If n is no whole number of at least 1.
    """
    state.chosen = None if n is None else whole_number("n", n)


def get_num_threads() -> int:
    """How many threads the fused pairs use.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    ValueError
        If NPATTN_NUM_THREADS decides and is no whole number of at least 1.
    """
    if state.chosen is not None:
        return state.chosen
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return available_threads()
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{VARIABLE}: expected a whole number of at least 1, got {text!r}")
    return int(text)


@contextlib.contextmanager
def at_most(n: int) -> Iterator[None]:
    """Within the block `in_parallel` of this thread uses no more than n threads, whatever the process is set to.

    With n = 1 the block is one task, so that `in_parallel` within it need not ask for anything.
    """
    before = inside.most, inside.task
    with blas_held if n == 1 else contextlib.nullcontext():
        inside.most, inside.task = n, inside.task or n == 1
        try:
            yield
        finally:
            inside.most, inside.task = before


class Helper:
    """A thread beside the callers'. It sleeps until it is given a job, and then again; it ends with the process."""

    def __init__(self) -> None:
        self.given = threading.Lock()  # free while there is a job that was not begun
        self.given.acquire()
        self.job: Callable[[], None] | None = None
        threading.Thread(target=self.live, name="npattn", daemon=True).start()

    def live(self) -> None:
        while self.given.acquire():
            job, self.job = self.job, None
            if job is not None:
                job()
            del job  # and with it what the job holds

    def do(self, job: Callable[[], None]) -> None:
        self.job = job
        self.given.release()


def idle_helpers(count: int) -> list[Helper]:
    """Up to `count` helpers that have nothing to do: none that another thread uses at the moment.

    Where the system starts no more threads (their stacks take memory, and `ulimit -u` counts them), there are fewer.
    """
    with state.lock:
        while state.made < count:
            try:
                state.idle.append(Helper())
            except (RuntimeError, MemoryError):
                break
            state.made += 1
        return [state.idle.pop() for _ in range(min(count, len(state.idle)))]


def add_up(parts: Sequence[Sequence[Any]]) -> list[Any]:
    """The sums of the parts' first, second, … entries, added in the order of the parts."""
    return [functools.reduce(operator.add, entries) for entries in zip(*parts, strict=True)]


def in_parallel(task: Callable[[int], Result], count: int) -> list[Result]:
    """Return [task(0), …, task(count − 1)], worked on by up to `get_num_threads()` threads, the caller one of them.

    Each thread takes the next task when it is done with one. An exception of a task is raised here, after all threads
    have stopped. A call within a task of another one runs on the thread it is called from, except where the outer
    one has a single task.
    """
    if inside.task or (count == 1 and inside.held):
        return [task(i) for i in range(count)]
    with blas_held:
        threads = min(inside.most or get_num_threads(), get_num_threads(), count) if count > 1 else 1
        if threads <= 1:  # a lone task may spread its own parts
            before, inside.held = inside.held, True
            try:
                return [task(i) for i in range(count)]
            finally:
                inside.held = before
        results: list[Any] = [None] * count
        errors: list[BaseException] = []
        left, turn, idle = iter(range(count)), threading.Lock(), state.idle

        def work() -> None:
            inside.task = True
            try:
                while not errors:
                    with turn:
                        i = next(left, None)
                    if i is None:
                        return
                    results[i] = task(i)
            except BaseException as error:
                errors.append(error)
            finally:
                inside.task = False

        def helped(helper: Helper) -> Any:
            """Let the helper work too, in a copy of the caller's context: np.errstate holds there as well."""
            done, context = threading.Lock(), contextvars.copy_context()
            done.acquire()

            def job() -> None:
                context.run(work)
                idle.append(helper)
                done.release()

            helper.do(job)
            return done

        ends = [helped(helper) for helper in idle_helpers(threads - 1)]
        work()
        try:
            for done in ends:
                done.acquire()
        except BaseException as error:  # Ctrl-C while waiting: the helpers end after the task they are at
            errors.append(error)
            raise
        if errors:
            raise errors[0]
        return results
