"""What `npattn bench` does: a block on one input, or a training step of the demo's network, compared and then timed."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Collection
from typing import Any, TypedDict

import numpy as np

from npattn.arguments import explained
from npattn.bench import device, jax, pytorch, ranks
from npattn.bench.beside import bench_beside
from npattn.bench.measure import Tell, compare, copy_side, measure, quietly
from npattn.bench.pytorch import torch_sides, ways
from npattn.bench.report import summary
from npattn.bench.sides import DATA, Side, inputs, moves, our_side, title
from npattn.bench.size import check_size
from npattn.bench.torch_step import torch_train_side
from npattn.block import Place
from npattn.blocks import block
from npattn.checks import one_of, whole_number, whole_numbers
from npattn.fused.blas import blas_held
from npattn.fused.threads import at_most, get_num_threads
from npattn.grad_mode import no_grad
from npattn.optimizer import AdamW
from npattn.state import dtype_name
from npattn.training import TrainConfig, network, prepared
from npattn.training.mpiexec import mpiexec
from npattn.training.step import step

BESIDE = ("textbook", *pytorch.WAYS, "jax", "autograd")  # what can stand beside our first side
DENSE_ONLY = ("timm", "timm compiled", "jax")
TIED = "equal maxima share the gradient there, and go to the first here"
COPIED = 64 << 20  # bytes at least that a copy is timed with: more than the caches hold
BATCH = 128  # digits of a training step


@explained
def bench_block(
    name: str,
    shape: tuple[int, int, int, int],
    *,
    runs: int,
    dtype: str,
    data: str,
    beside: Collection[str] = BESIDE,
    on: str = "cpu",
    untimed: Collection[str] = (),
    peaks: bool = True,
    tell: Tell = quietly,
) -> dict[str, Any]:
    """Compare and time a block on an input of that shape, on the device `on`. Returns what `report` prints.

    The first side is ours: fused where the block has such a form for that input, else the textbook. `beside` says
    which others are timed with it, as far as there are such; those of `untimed` are only compared. Raises TypeError or
    ValueError for an argument out of its range, and MemoryError if the machine has too little for it.
    """
    entry, rng = block(name, "name"), np.random.default_rng(0)
    shape = whole_numbers("shape", shape, 4)  # type: ignore[assignment]
    runs, dtype = whole_number("runs", runs), dtype_name(dtype)
    one_of("data", data, DATA)
    check_size(entry, shape, dtype, beside)
    x = inputs(shape, dtype, data, rng)
    layer, textbook = (entry.layer(Place(*shape[1:]), rng=0, dtype=dtype, fused=fused) for fused in (True, False))
    with no_grad():
        dy = rng.standard_normal(layer(x).shape, dtype=x.dtype.type)
    sides = [our_side("fused", layer, x, dy)] if on == "cpu" and layer.path == "fused" else []
    if not sides or "textbook" in beside:
        sides.append(our_side("textbook", textbook.to(on), x, dy))
    if pytorch.torch_on(on):
        sides += torch_sides(entry.card.name, layer, x, dy, beside, on)
    if "jax" in beside and on == "cpu" and entry.card.name in jax.PEERS and jax.jax_module():
        sides.append(jax.jax_side(entry.card.name, layer.state_dict(), x, dy))
    ties = {side.name: TIED for side in sides if data != "dense" and side.name in DENSE_ONLY}
    sides, left_out = checked(
        [side for side in sides if side.name not in ties], untimed, 1e-4 if dtype == "float32" else 1e-10, tell
    )
    nbytes = max(x.nbytes, COPIED)
    if on == "cpu":
        copy = copy_side(nbytes)
        measure([*sides, copy], runs, on, peaks=peaks, tell=tell)
        times = copy.both_times
        bandwidth, best = 2 * nbytes / statistics.median(times), 2 * nbytes / min(times)
    else:
        measure(sides, runs, on, peaks=peaks, tell=tell)
        bandwidth = best = device.copy_bandwidth(textbook.xp, textbook.device, nbytes)
    return {
        "block": name,
        "name": title(entry),
        "shape": list(shape),
        "dtype": dtype,
        "data": data,
        "bandwidth": bandwidth,
        "best_bandwidth": best,
        "floor": {
            kind: count * x.nbytes / bandwidth for kind, count in zip(("forward", "both"), moves(entry), strict=True)
        },
        "sides": [summary(side) for side in sides],
        "left_out": left_out | ties,
    }


def checked(sides: list[Side], untimed: Collection[str], limit: float, tell: Tell) -> tuple[list[Side], dict[str, str]]:
    """The sides that work, compared with the first, and why the others do not."""
    left_out = compare(sides, limit, tell)
    sides = [side for side in sides if side.name not in left_out]
    for side in sides[1:]:
        side.timed = side.name not in untimed
    return sides, left_out


RANKS = 2  # that share a batch, as in `npattn train`
OUR_STEPS: dict[str, dict[str, Any]] = {"fused": {}, "threads": {}, "one thread": {}, "textbook": {"fused": False}}


@explained
def bench_train_step(
    *,
    runs: int,
    batch: int | None = None,
    attention: str = "cbam",
    beside: Collection[str] = BESIDE,
    on: str = "cpu",
    untimed: Collection[str] = (),
    peaks: bool = True,
    tell: Tell = quietly,
) -> dict[str, Any]:
    """Compare and time one training step of the demo's network: forward, loss, backward, AdamW.

    "fused" is what `npattn train` does where MPI is installed: two ranks share the batch. "threads" is one process
    with as many threads as are asked for, "one thread" one with one.
    """
    runs, batch = whole_number("runs", runs), whole_number("batch", batch or BATCH, least=2)
    images, t = ranks.digits(batch)

    def ours(name: str, config: TrainConfig) -> Side:
        model = network(config).to(on)
        optimizer = AdamW(model.params)

        @blas_held  # as a run does
        def both() -> dict[str, Any]:
            with at_most(1) if name == "one thread" else contextlib.nullcontext():
                done = step(model, images, t)
                optimizer.step(done.grads, ranks.RATE)
            return {"loss": done.loss, **done.grads}

        return Side(name, None, both, xp=model.xp)

    state = network(TrainConfig(attention=attention)).state_dict()
    with contextlib.ExitStack() as stack:
        sides: list[Side] = []
        for name, settings in OUR_STEPS.items() if on == "cpu" else [("textbook", {"device": on})]:
            several = get_num_threads() > 1
            if (name in ("fused", "one thread") and not several) or (
                sides and name == "textbook" and name not in beside
            ):
                continue
            if name != "fused":
                sides.append(ours(name, TrainConfig(attention=attention, **settings)))
            elif mpiexec() and not TrainConfig(attention=attention).unshared():
                shared = ranks.Shared(attention, batch, RANKS)
                stack.callback(shared.close)
                sides.append(Side(name, None, shared.both, processes=RANKS, clock=shared.seconds))
        torch = pytorch.torch_on(on)
        if torch:
            x = prepared(images)
            sides += [torch_train_side(name, attention, state, x, t, on) for name in ways(beside, timms=False)]
        # float32 through ten maxima: where two are nearly equal, rounding decides
        sides, left_out = checked(sides, untimed, 1e-2, tell)
        measure(sides, runs, on, peaks=peaks, tell=tell)
    return {
        "block": "train step",
        "name": f"training step, {attention}",
        "shape": [batch, 1, 28, 28],
        "dtype": "float32",
        "data": "dense",
        "sides": [summary(side) for side in sides],
        "left_out": left_out,
    }


class Task(TypedDict):
    """What a process is to measure: which of MEASURED, on how many threads, and the arguments that it gets."""

    what: str
    threads: int
    settings: dict[str, Any]


MEASURED: dict[str, Callable[..., dict[str, Any]]] = {
    "block": bench_block,
    "train step": bench_train_step,
    "beside SE": bench_beside,
}


def measured(task: Task, tell: Tell = quietly) -> dict[str, Any]:
    """Measure a task in this process."""
    settings = dict(task["settings"])
    if "shape" in settings:
        settings["shape"] = tuple(settings["shape"])  # a list, where it came as JSON
    return MEASURED[task["what"]](**settings, tell=tell)
