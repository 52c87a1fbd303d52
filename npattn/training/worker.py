"""The process that works on a share of each batch: `python -m npattn.training.worker PIPE`. See team.py."""

from __future__ import annotations

import contextlib
import sys
from multiprocessing.connection import Connection

from npattn.backend import Array
from npattn.fused.threads import blas_held, set_num_threads
from npattn.training.settings import TrainConfig, network
from npattn.training.team import received_rows, send_rows, soon, work


@blas_held
def serve(line: Connection) -> None:
    """Do the tasks that come through the pipe, one after another, until it is closed."""
    settings, threads = line.recv()
    set_num_threads(threads)
    model = network(TrainConfig(**settings))

    def gather(rows: Array) -> Array:
        send_rows(line, rows)
        return received_rows(line, rows)

    while True:
        line.send(work(model, soon(line).recv(), gather))


if __name__ == "__main__":
    with contextlib.suppress(EOFError, ConnectionError):  # the run is over, or has gone away
        serve(Connection(int(sys.argv[1])))
