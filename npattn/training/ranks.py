"""Data-parallel training in a screen: the processes that share a batch, and what they tell each other.

Each is a *rank*, 0 to size − 1, and runs the same program. What they exchange are *collectives*, which every rank calls
at the same point of the program, and which return when all have:

    allreduce    the sum of all ranks' arrays, the same bits at each      a step's gradients
    allgather    all ranks' rows, in the ranks' order, at each            the sums of batch normalisation
    broadcast    what rank 0 has, at each                                 what only rank 0 reads or writes

A process by itself is `Alone`: rank 0 of 1. `mpiexec -n 8 npattn train` makes ranks of MPI, `Several`, on one machine
or on many. What a step does with them: step.py. What an exchange costs: docs/parallel.md
"""

from __future__ import annotations

import functools
import os
import sys
import time
from typing import Any, Protocol, TypeVar

import numpy as np

from npattn.backend import Array
from npattn.training.settings import TrainingError

Value = TypeVar("Value")

STARTED = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")  # set by mpiexec: MPICH's and Intel's, Open MPI's
NUMBERED = ("PMI_RANK", "OMPI_COMM_WORLD_RANK")
PATIENCE = 2.0  # seconds that a rank which has failed waits for the others to fail as well
NAP = 0.001  # seconds; MPI waits by looking, as fast as it can, which is no way to wait for a disk


class Ranks(Protocol):
    """Processes that run the same program. `rank` is this one, of `size`; `here` of them are on this machine."""

    rank: int
    size: int
    here: int

    def allreduce(self, values: Array) -> Array:
        """The sum of the arrays of all ranks."""

    def allgather(self, rows: Array) -> Array:
        """The rows (g, n) of all ranks below each other; g may differ from rank to rank, and be 0."""

    def broadcast(self, value: Value) -> Value:
        """The value of rank 0."""

    def first(self, count: int) -> Ranks:
        """Ranks 0 to count − 1 by themselves. All call it; only these may use what they get."""


class Alone:
    """A process by itself."""

    rank, size, here = 0, 1, 1

    def allreduce(self, values: Array) -> Array:
        return values

    def allgather(self, rows: Array) -> Array:
        return rows

    def broadcast(self, value: Value) -> Value:
        return value

    def first(self, count: int) -> Ranks:
        return self


class Several:
    """The ranks of an MPI communicator."""

    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI

        self.comm, self.rank, self.size = comm, int(comm.rank), int(comm.size)
        self.here = int(comm.Split_type(MPI.COMM_TYPE_SHARED).size)
        self.parts: dict[int, Ranks] = {self.size: self}
        self.goodbye = comm.Dup()  # for `all_failed`: what was begun on the other one may never end

    def allreduce(self, values: Array) -> Array:
        total = np.empty_like(values)
        self.comm.Allreduce(np.ascontiguousarray(values), total)
        return total

    def allgather(self, rows: Array) -> Array:
        lengths = np.empty(self.size, np.int64)
        self.comm.Allgather(np.array([rows.size]), lengths)
        whole = np.empty(lengths.sum(), rows.dtype)
        self.comm.Allgatherv(np.ascontiguousarray(rows), [whole, lengths])
        return whole.reshape(-1, rows.shape[1])

    def broadcast(self, value: Value) -> Value:
        self.wait(self.comm.Ibarrier())
        found: Value = self.comm.bcast(value)
        return found

    def first(self, count: int) -> Ranks:
        if count not in self.parts:
            from mpi4py import MPI

            part = self.comm.Split(0 if self.rank < count else MPI.UNDEFINED, self.rank)
            self.parts[count] = Several(part) if self.rank < count else Alone()
        return self.parts[count]

    def wait(self, request: Any, seconds: float = float("inf")) -> bool:
        """Whether what was begun has ended, after so many seconds at most."""
        until = time.monotonic() + seconds
        while not (done := bool(request.Test())) and time.monotonic() < until:
            time.sleep(NAP)
        return done

    def all_failed(self) -> bool:
        """Called by a rank that has failed: whether all the others call it, too, before long."""
        return self.wait(self.goodbye.Ibarrier(), PATIENCE)

    def abort(self, status: int) -> None:
        """End the processes of all ranks, wherever they are. MPI's own word on that goes nowhere: ours is said."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        self.comm.Abort(status)


def number(names: tuple[str, ...]) -> int | None:
    """What mpiexec has told this process by one of these variables, or None."""
    return next((int(text) for name in names if (text := os.environ.get(name, "")).isdecimal()), None)


def started() -> int | None:
    """How many processes mpiexec has started, this one among them; None if it was not mpiexec that has started it.

    None, too, under `python -m mpi4py.futures`: the others wait for work then, and run no program of their own.
    """
    return None if "mpi4py.futures" in sys.modules else number(STARTED)


def place() -> int:
    """This process's rank, as mpiexec says; 0 without. It needs no MPI."""
    return number(NUMBERED) or 0


@functools.cache
def world() -> Ranks:
    """All processes that mpiexec has started; this one alone if it was not started so.

    Raises
    ------
    TrainingError
        If it was, and there is no mpi4py, or one of another MPI: each process would take itself for the only one.
    """
    count = started() or 1
    if count == 1:
        return Alone()
    told = f"mpiexec has started {count} processes"
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # the latter if it finds no MPI
        raise TrainingError(f'{told}, which need mpi4py ({error!s:.200}): pip install "npattn[mpi]"') from None
    if count != MPI.COMM_WORLD.size:
        raise TrainingError(f"{told}, and mpi4py sees {MPI.COMM_WORLD.size}: it is not of the MPI that mpiexec is of")
    return Several(MPI.COMM_WORLD)
