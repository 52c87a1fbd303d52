"""The numbers and the figure of docs/parallel.md: what a step takes in ranks, measured here and predicted for more.

    mpiexec -n 2 python docs/_parallel.py measure      # writes docs/parallel.json; nothing else should run meanwhile
    python docs/_parallel.py draw                      # docs/parallel.png, and the tables of the page

The model, of p ranks and N digits a step, with seconds a message α and seconds a byte β:

    step        = c(⌈N/p⌉) + 8 exchanges of batch norm + the gradients' allreduce
    c(n)        = what one rank takes for n digits by itself, measured, between the measured n on a line
    exchange    = ⌈log₂ p⌉ α + (p − 1) m β, twice: how many rows there are, then the rows, of m bytes a rank
    allreduce   = the least of ring, tree and halving, of M bytes
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DOCS = Path(__file__).resolve().parent
NUMBERS, FIGURE = DOCS / "parallel.json", DOCS / "parallel.png"
BATCH, SIZES, TURNS = 128, (1, 2, 4, 8, 16, 32, 64, 128), 25
CHANNELS = (16, 32, 64, 64)  # of the batch norms
RANKS = [2**i for i in range(11)]
LINKS = {"10 Gb/s": (30e-6, 8 / 10e9), "100 Gb/s": (2e-6, 8 / 100e9)}
"""Seconds a message and a byte. The latencies are assumed: Ethernet through the kernel, and a network of clusters."""


# Measured


def measure() -> None:
    """Time everything in turns, on two ranks, and write it."""
    from mpi4py import MPI

    from npattn.fused.blas import blas_held
    from npattn.fused.threads import at_most
    from npattn.optimizer import AdamW
    from npattn.training import TrainConfig, network
    from npattn.training.ranks import Alone, Several, world
    from npattn.training.step import step

    ranks = world()
    assert isinstance(ranks, Several)
    assert ranks.size == 2
    model = network(TrainConfig())
    optimizer = AdamW(model.params)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (2 * BATCH, 28, 28), dtype=np.uint8), rng.integers(0, 10, 2 * BATCH)
    found: dict[str, list[float]] = {}

    def taken(name: str, call: Callable[[], Any], calls: int) -> None:
        """Add the seconds of a call, the mean of so many after one that warms up."""
        call()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        found.setdefault(name, []).append((time.perf_counter() - start) / calls)

    def trained(n: int, by: Any) -> None:
        done = step(model, images[:n], labels[:n], None, by)
        optimizer.step(done.grads, 1e-5)

    def there_and_back(array: np.ndarray) -> None:
        if ranks.rank == 0:
            ranks.comm.Send(array, 1)
            ranks.comm.Recv(array, 1)
        else:
            ranks.comm.Recv(array, 0)
            ranks.comm.Send(array, 0)

    gradients = np.ones(model.count() + 2, np.float32)
    rows = [np.ones((1, width), np.float32) for C in CHANNELS for width in (1 + 2 * C, 2 * C)]
    with blas_held, at_most(1):
        for _ in range(TURNS):
            for n in SIZES:
                if ranks.rank == 0:
                    taken(f"alone {n}", lambda n=n: trained(n, Alone()), max(4, 128 // (n + 16)))
                ranks.broadcast(0)  # the other one sleeps meanwhile
            taken("side by side 64", lambda: trained(BATCH // 2, Alone()), 8)  # both at once, and no word between them
            ranks.broadcast(0)
            for n in (BATCH, 2 * BATCH):
                taken(f"shared {n}", lambda n=n: trained(n, ranks), 8)
                ranks.broadcast(0)
            taken("allreduce", lambda: ranks.allreduce(gradients), 50)
            taken("eight exchanges", lambda: [ranks.allgather(row) for row in rows], 50)
            for size in (4, gradients.nbytes):
                taken(f"message {size}", lambda size=size: there_and_back(np.zeros(size, np.uint8)), 100)
            ranks.comm.Barrier()
    if ranks.rank == 0:
        least = {name: min(times) for name, times in found.items()}  # the others were disturbed, if by little
        medians = {name: statistics.median(times) for name, times in found.items()}
        about = {"mpi": MPI.Get_library_version().split("\n")[0].replace("\t", " "), "turns": TURNS}
        numbers = {"seconds": least, "medians": medians, "gradients": gradients.nbytes, **about}
        NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


# Predicted


def allreduce(p: int, M: int, alpha: float, beta: float) -> dict[str, float]:
    """Seconds of each algorithm, by name."""
    rounds = math.ceil(math.log2(p))
    return {
        "ring": 2 * (p - 1) * alpha + 2 * (p - 1) / p * M * beta,
        "tree": rounds * (alpha + M * beta),
        "halving": 2 * rounds * alpha + 2 * (p - 1) / p * M * beta,
    }


def exchanges(p: int, alpha: float, beta: float) -> float:
    """Seconds that batch norm's eight take, each after one that says how many rows there are."""
    rounds, m = math.ceil(math.log2(p)), [4 * width for C in CHANNELS for width in (1 + 2 * C, 2 * C)]
    return sum(2 * rounds * alpha + (p - 1) * (8 + bytes_of_a_rank) * beta for bytes_of_a_rank in m)


def alone(numbers: dict[str, Any], n: float) -> float:
    """c(n): seconds of a step of n digits at one rank."""
    return float(np.interp(n, SIZES, [numbers["seconds"][f"alone {size}"] for size in SIZES]))


def predicted(numbers: dict[str, Any], p: int, N: int, alpha: float, beta: float) -> float:
    """Seconds of a step of N digits in p ranks."""
    work = alone(numbers, math.ceil(N / p))
    if p == 1:
        return work
    return work + exchanges(min(p, N), alpha, beta) + min(allreduce(p, numbers["gradients"], alpha, beta).values())


def draw() -> None:
    """The figure, and what the page says in numbers."""
    from npattn.explain.style import ACCENT, INK, QUIET, SLIDE, new_figure, plain, save

    numbers = json.loads(NUMBERS.read_text(encoding="utf-8"))
    seconds = numbers["seconds"]
    figure = new_figure(*SLIDE)
    left, right = figure.subplots(1, 2)
    looks = {"10 Gb/s": {"color": QUIET, "marker": "s"}, "100 Gb/s": {"color": INK, "marker": "o"}}
    out = [f"{key:18} {value * 1e3:9.3f} ms" for key, value in seconds.items()]
    one = alone(numbers, BATCH)
    for name, (alpha, beta) in LINKS.items():
        strong = [one / predicted(numbers, p, BATCH, alpha, beta) for p in RANKS]
        weak = [100 * one / predicted(numbers, p, BATCH * p, alpha, beta) for p in RANKS]
        left.plot(RANKS, strong, label=f"predicted, {name}", markersize=4, linewidth=1.2, **looks[name])
        right.plot(RANKS, weak, label=f"predicted, {name}", markersize=4, linewidth=1.2, **looks[name])
        out.append(f"{name}, strong: " + ", ".join(f"{p}: {s:.3g}" for p, s in zip(RANKS, strong, strict=True)))
        out.append(f"{name}, weak: " + ", ".join(f"{p}: {s:.1f} %" for p, s in zip(RANKS, weak, strict=True)))
    here = one / seconds[f"shared {BATCH}"], 100 * one / seconds[f"shared {2 * BATCH}"]
    out.append(f"measured in 2 ranks: {here[0]:.3f} times as fast, weak {here[1]:.1f} %")
    for axes, found, start in ((left, here[0], 1), (right, here[1], 100)):
        axes.plot([1, 2], [start, found], "*", color=ACCENT, markersize=11, label="measured, one machine", zorder=3)
        axes.set(xscale="log", xlabel="ranks", xticks=[1, 4, 16, 64, 256, 1024])
        axes.set_xticklabels(["1", "4", "16", "64", "256", "1,024"])
        plain(axes)
    left.plot(RANKS, RANKS, ":", color=QUIET, linewidth=1, label="p times as fast")
    left.set(title=f"{BATCH} digits a step", ylabel="times as fast as one rank", yscale="log", ylim=(0.8, 20))
    left.set(yticks=[1, 2, 5, 10, 20])
    left.set_yticklabels(["1", "2", "5", "10", "20"])
    right.set(title=f"{BATCH} digits a rank", ylabel="of p times as many digits a second, %", ylim=(0, 105))
    for axes in (left, right):
        axes.minorticks_off()
    left.legend(frameon=False, fontsize=9, loc="lower right")
    save(figure, FIGURE)
    for name, (alpha, beta) in LINKS.items():
        times = {p: predicted(numbers, p, BATCH, alpha, beta) for p in range(1, 1025)}
        best = min(times, key=times.__getitem__)
        ratio = times[1] / times[best]
        out.append(f"{name}: fastest at {best} ranks, {times[best] * 1e3:.2f} ms, {ratio:.2f} times as fast as one")
        half = next((p for p in range(2, 1025) if times[1] / times[p] < p / 2), None)
        out.append(f"{name}: less than half as many times as fast as there are ranks, from {half} ranks on")
        for p in (2, 16, 128, 1024):
            each = allreduce(p, numbers["gradients"], alpha, beta)
            found = ", ".join(f"{key} {value * 1e3:.3f}" for key, value in each.items())
            out.append(f"{name}, {p} ranks: {found}; exchanges {exchanges(p, alpha, beta) * 1e3:.3f} ms")
    alpha, beta = seconds["message 4"] / 2, (seconds[f"message {numbers['gradients']}"] / 2) / numbers["gradients"]
    mine = min(allreduce(2, numbers["gradients"], alpha, beta).values())
    step = predicted(numbers, 2, BATCH, alpha, beta)
    talk = exchanges(2, alpha, beta)
    out.append(f"here: a message {alpha * 1e6:.2f} us, {1 / beta / 1e9:.2f} GB/s")
    out.append(
        f"here, by the model: allreduce {mine * 1e3:.3f}, exchanges {talk * 1e3:.3f}, a step {step * 1e3:.2f} ms"
    )
    print("\n".join(out))


if __name__ == "__main__":
    {"measure": measure, "draw": draw}[sys.argv[1]]()
