"""A training step that two ranks share, timed beside others: `python -m npattn.bench.ranks`, run by mpiexec.

    this process (Shared)                    rank 0                        rank 1
      how many steps, a line of JSON    →    tells rank 1, and both        sleeps until it is told
                                             take and time them
      seconds, and the loss and         ←    a line of JSON, a file
      gradients of the last one

The ranks end when their standard input does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from npattn.bench.sides import BenchError
from npattn.fused.blas import blas_held
from npattn.fused.threads import at_most
from npattn.optimizer import AdamW
from npattn.training import TrainConfig, network
from npattn.training.mpiexec import in_ranks, surroundings
from npattn.training.ranks import world
from npattn.training.step import step

SECONDS = '{"seconds": '  # how an answer begins
RATE = 1e-5  # of the optimiser's steps: they are timed, and the weights stay about where they are


def digits(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise instead of digits, and classes."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (batch, 28, 28), dtype=np.uint8), rng.integers(0, 10, batch)


class Shared:
    """A training step in so many ranks, which are processes of their own."""

    def __init__(self, attention: str, batch: int, count: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.result = Path(self.folder.name) / "step.npz"
        command = [sys.executable, "-P", "-m", "npattn.bench.ranks", attention, str(batch), str(self.result)]
        self.process = subprocess.Popen(
            in_ranks(count, command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=surroundings(),
            start_new_session=True,
            encoding="utf-8",
        )

    def seconds(self, steps: int) -> float:
        """How long so many steps take, one after another."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(f"{steps}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        for line in self.process.stdout:  # MPI's libraries may print there, too, and leave a line unfinished
            _, begin, rest = line.partition(SECONDS)
            if begin:
                return float(json.loads(begin + rest)["seconds"])
        status = self.process.wait()
        raise BenchError(f"the ranks ended with status {status}; the error is on standard error")

    def both(self) -> dict[str, Any]:
        """Take a step. Returns loss and gradients."""
        self.seconds(1)
        with np.load(self.result) as found:
            return dict(found)

    def close(self) -> None:
        """End the ranks."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        for end in (None, signal.SIGTERM, signal.SIGKILL):  # a launcher whose ranks are stuck outlives a SIGTERM
            if end is not None:
                os.killpg(self.process.pid, end)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=5)
                break
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.folder.cleanup()


@blas_held
def serve(attention: str, batch: int, result: Path) -> NoReturn:
    """Take as many steps as are asked for, again and again."""
    ranks = world()
    model = network(TrainConfig(attention=attention))
    optimizer = AdamW(model.params)
    images, labels = digits(batch)
    while True:
        line = sys.stdin.readline() if ranks.rank == 0 else ""
        steps = int(ranks.broadcast(line) or 0)
        if not steps:
            sys.exit(0)
        start = time.perf_counter()
        with at_most(1):
            for _ in range(steps):
                done = step(model, images, labels, None, ranks)
                optimizer.step(done.grads, RATE)
        seconds = time.perf_counter() - start
        if ranks.rank == 0:
            if steps == 1:
                np.savez(result, loss=done.loss, **done.grads)
            os.write(1, json.dumps({"seconds": seconds}).encode() + b"\n")


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
