"""The process that works on a share of each batch: `python -m npattn.training.worker PIPE BOARD`. See team.py."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import IO, NoReturn

from npattn.backend import Array
from npattn.fused.blas import blas_held
from npattn.fused.threads import at_most, set_num_threads
from npattn.training.settings import TrainConfig, network
from npattn.training.team import Board, awaited, put, received_rows, send_rows, work


@contextlib.contextmanager
def or_exit() -> Iterator[None]:
    """End this process if the pipe has nobody at its other end: the run is over, or was killed."""
    try:
        yield
    except (EOFError, OSError):
        sys.exit(0)


@blas_held
def serve(line: Connection, file: IO[bytes]) -> NoReturn:
    """Do the tasks that come through the pipe, one after another, until it is closed; weights are on the board."""
    with or_exit():
        settings, threads = line.recv()
    set_num_threads(threads)
    model = network(TrainConfig(**settings))
    with file:
        board = Board(model.params, file)
    for key, place in board.params.items():
        model.params[key] = place

    def gather(rows: Array) -> Array:
        with or_exit():
            send_rows(line, rows)
            return received_rows(line, rows)

    while True:
        with or_exit():
            task = awaited(line).recv()
        with at_most(threads):
            done = work(model, task, gather)
        put(done.grads, board.grads)
        with or_exit():
            line.send((done.loss, done.right))


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # the run hears them, and comes to the end of its step
        signal.signal(number, signal.SIG_IGN)
    serve(Connection(int(sys.argv[1])), os.fdopen(int(sys.argv[2]), "r+b"))
