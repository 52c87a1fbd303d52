"""A batch in shares, each worked on by a process of its own.

Threads wait for each other at the interpreter's lock: with layers as small as the demo's, two are hardly faster than
one. Processes do not. Each has the same weights, takes its share of the digits through the network and back, and what
it finds is a share's own loss and gradients; the batch's are their sums.

    this process                                    a worker (worker.py)
      digits, labels, how to move them           →    Task
      weights                                    →    read where both see them (Board)
      work on the first share                         work on another one
        batch norm: rows of its groups           ↔      rows of its groups             (npattn/fused/shares.py)
      loss                                       ←    sent back
      gradients: added up in order               ←    written where both see them (Board)

The optimiser's step, the checks and all that is written stay here. A worker keeps nothing from step to step, and ends
when its pipe does, however this process came to its end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import IO, NamedTuple, Self

import numpy as np

from npattn.backend import Array, to_numpy
from npattn.fused.shares import Gather, gathering
from npattn.fused.threads import at_most, get_num_threads
from npattn.nested import Sequential, leaves
from npattn.ops import loss
from npattn.training.batches import Moves, batch, moved
from npattn.training.settings import TrainConfig, TrainingError, network

PATIENCE = 0.002  # seconds; waking a sleeping process takes as long as a small layer, so first it looks for this long


class WorkerLost(TrainingError):
    """A worker has ended before the run. The message says how."""


class Task(NamedTuple):
    """A share of a batch."""

    images: np.ndarray  # (n, 28, 28), 0 to 255
    labels: np.ndarray  # (n)
    moves: Moves | None  # how to move the digits first
    weight: float  # n / N: what the mean over the share counts in that over the batch


class Done(NamedTuple):
    """What a share gave."""

    loss: Array  # its part of the batch's mean
    right: int  # digits that were classified rightly
    grads: Mapping[str, Array]  # of that part

    def plus(self, other: Done) -> Done:
        """What both shares gave together."""
        grads = {key: gradient + other.grads[key] for key, gradient in self.grads.items()}
        return Done(self.loss + other.loss, self.right + other.right, grads)


def forward_backward(model: Sequential, x: Array, t: Array, weight: float = 1.0) -> tuple[Array, Array]:
    """Scores and loss for digits x of the classes t. Sets the model's `grads`, those of weight · loss."""
    scores = model.train()(x)
    value, cache = loss.forward(scores, t)
    dscores = loss.backward(model.xp.full_like(value, weight), cache)
    model.backward_params(dscores)
    return scores, value


def work(model: Sequential, task: Task, gather: Gather | None = None) -> Done:
    """Take a share of a batch forward and back. `gather` fetches the rows of all shares; None: there are no others.

    Raises RuntimeError if a layer with running statistics, which should have gathered, took the textbook path.
    """
    images = task.images if task.moves is None else moved(task.images, task.moves)
    x, t = batch(model, images, task.labels)
    with np.errstate(all="ignore"), contextlib.nullcontext() if gather is None else gathering(gather):
        scores, value = forward_backward(model, x, t, task.weight)
    if gather is not None:
        for layer in leaves(model):
            if layer.buffers and layer.path != "fused":
                raise RuntimeError(f"{layer}: expected the fused path in a shared batch, took the {layer.path}")
    right = int(np.sum(np.argmax(to_numpy(scores), axis=1) == task.labels))
    return Done(value * task.weight, right, dict(model.grads))


def awaited(line: Connection) -> Connection:
    """The pipe, after looking for something to read for up to PATIENCE: a read then sleeps if there is nothing yet."""
    until = time.perf_counter() + PATIENCE
    while not line.poll() and time.perf_counter() < until:
        os.sched_yield()
    return line


def send_rows(line: Connection, rows: Array) -> None:
    """Send rows (g, n) as they are: they are few, and pickling them would take longest."""
    line.send_bytes(rows.tobytes())


def received_rows(line: Connection, like: Array) -> Array:
    """Rows (g, n) that were sent, g any number."""
    return np.frombuffer(awaited(line).recv_bytes(), like.dtype).reshape(-1, like.shape[1])


class Board:
    """A network's weights and its gradients in memory that two processes see: a pipe takes as long as a layer for them.

    Parameters
    ----------
    params
        The weights, for their keys and shapes.
    file
        The memory, as `shared_file` makes it.
    """

    def __init__(self, params: Mapping[str, Array], file: IO[bytes]) -> None:
        memory = mmap.mmap(file.fileno(), 2 * sum(value.nbytes for value in params.values()))
        start = 0
        both: list[dict[str, np.ndarray]] = []
        for _ in ("params", "grads"):
            views = {}
            for key, value in params.items():
                views[key] = np.ndarray(value.shape, value.dtype, buffer=memory, offset=start)
                start += value.nbytes
            both.append(views)
        self.params, self.grads = both


def nameless() -> IO[bytes]:
    """An open file that only those see who are handed it."""
    try:
        return os.fdopen(os.memfd_create("npattn"), "w+b")
    except (AttributeError, OSError):  # not on this system, or not allowed
        return tempfile.TemporaryFile()


@contextlib.contextmanager
def shared_file(params: Mapping[str, Array]) -> Iterator[IO[bytes]]:
    """A file without a name, as large as a Board for these weights; in memory alone where the system can."""
    with nameless() as file:
        file.write(bytes(2 * sum(value.nbytes for value in params.values())))  # now, while a full disk is an error
        file.flush()
        yield file


def put(values: Mapping[str, Array], places: Mapping[str, Array]) -> None:
    """Write the values into the arrays of the same names."""
    for key, place in places.items():
        place[...] = values[key]


class Worker:
    """A process beside this one, which starts at once, the pipe to it, and the board that both see.

    It finds modules where this process does. It hears no Ctrl-C: this process does, and lets the step come to its end.
    """

    def __init__(self, config: TrainConfig, threads: int) -> None:
        self.line, theirs = Pipe()
        params = network(config).params
        places = os.pathsep.join(place or os.getcwd() for place in sys.path)
        with theirs, shared_file(params) as file:
            self.board = Board(params, file)
            numbers = theirs.fileno(), file.fileno()
            command = [sys.executable, "-P", "-m", "npattn.training.worker", *map(str, numbers)]
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": places},
                pass_fds=numbers,
                start_new_session=True,
            )
        with self.or_lost():
            self.line.send((dataclasses.asdict(config), threads))

    def give(self, task: Task, params: Mapping[str, Array]) -> None:
        """Let it work on a share, with these weights."""
        put(params, self.board.params)
        with self.or_lost():
            self.line.send(task)

    def done(self) -> Done:
        """What it gave, once it is done. The gradients are the board's: the next share's take their place."""
        with self.or_lost():
            loss, right = awaited(self.line).recv()
        return Done(loss, right, self.board.grads)

    @contextlib.contextmanager
    def or_lost(self) -> Iterator[None]:
        """Raise WorkerLost for a pipe that has nobody at its other end."""
        try:
            yield
        except (EOFError, OSError):
            status = self.process.wait()
            if status < 0:
                how = f"was killed by signal {-status} (is there too little memory?)"
            else:
                how = f"ended with status {status}; its error is on standard error"
            raise WorkerLost(f"a worker process {how}") from None

    def close(self) -> None:
        """End the process, by closing its pipe."""
        self.line.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Team:
    """The processes that train a network together, this one and `config.processes` − 1 workers.

    Parameters
    ----------
    config
        What to train: the network that it asks for is the one that all processes build.

    Raises
    ------
    TrainingError
        If there can be no workers on this system.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.processes = int(config.processes or 1)
        if self.processes > 1 and os.name != "posix":
            raise TrainingError(f"processes: expected 1 on this system, got {self.processes}")
        self.threads = max(1, get_num_threads() // self.processes)  # of each
        self.workers: list[Worker] = []
        try:
            for _ in range(self.processes - 1):
                self.workers.append(Worker(config, self.threads))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            worker.close()
        self.workers = []

    def step(self, model: Sequential, images: np.ndarray, labels: np.ndarray, moves: Moves | None = None) -> Done:
        """Take a batch forward and back, each process its share. Sets the model's `grads`, and returns the sums.

        Of a batch of fewer digits than there are processes each is a share, and some have none.

        Raises
        ------
        WorkerLost
            If a worker has ended.
        """
        N = len(labels)
        count = min(N, self.processes)
        first, *others = (slice(i * N // count, (i + 1) * N // count) for i in range(count))

        def task(n: slice) -> Task:
            part = None if moves is None else Moves(*(array[n] for array in moves))
            return Task(images[n], labels[n], part, (n.stop - n.start) / N)

        if not others:
            return work(model, task(first))
        workers, params = self.workers[: len(others)], dict(model.params)
        for worker, n in zip(workers, others, strict=True):
            worker.give(task(n), params)
        with at_most(self.threads):
            total = work(model, task(first), lambda rows: gathered(rows, workers))
        for worker in workers:
            total = total.plus(worker.done())
        for key, gradient in total.grads.items():
            model.grads[key] = gradient
        return total


def gathered(rows: Array, workers: list[Worker]) -> Array:
    """The rows of all shares, which the workers are told as well."""
    parts = [rows]
    for worker in workers:
        with worker.or_lost():
            parts.append(received_rows(worker.line, rows))
    whole = np.concatenate(parts)
    for worker in workers:
        with worker.or_lost():
            send_rows(worker.line, whole)
    return whole
