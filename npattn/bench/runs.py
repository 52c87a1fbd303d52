"""What `npattn bench` does: a block on one input, or a training step of the demo's network, compared and then timed."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Collection
from typing import Any

import numpy as np

from npattn.arguments import explained
from npattn.bench import device, pytorch
from npattn.bench.measure import compare, copy_side, measure
from npattn.bench.pytorch import torch_sides, torch_train_side
from npattn.bench.report import summary
from npattn.bench.sides import DATA, Side, inputs, moves, our_side, title
from npattn.bench.size import check_size
from npattn.block import Place
from npattn.blocks import block
from npattn.checks import one_of, whole_number, whole_numbers
from npattn.fused.blas import blas_held
from npattn.fused.threads import get_num_threads
from npattn.grad_mode import no_grad
from npattn.optimizer import AdamW
from npattn.state import dtype_name
from npattn.training import TrainConfig, network, prepared
from npattn.training.team import Team

BESIDE = frozenset({"textbook", "eager", "compiled", "autograd"})  # what can stand beside our first side
COPIED = 64 << 20  # bytes at least that a copy is timed with: more than the caches hold


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
) -> dict[str, Any]:
    """Compare and time a block on an input of that shape, on the device `on`. Returns what `report` prints.

    The first side is ours: fused where the block has such a form for that input, else the textbook. `beside` says
    which others are timed with it, as far as there are such. Raises TypeError or ValueError for an argument out of its
    range, and MemoryError if the machine has too little for it.
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
    compare(sides, 1e-4 if dtype == "float32" else 1e-10)
    nbytes = max(x.nbytes, COPIED)
    if on == "cpu":
        copy = copy_side(nbytes)
        measure([*sides, copy], runs, on)
        times = copy.both_times
        bandwidth, best = 2 * nbytes / statistics.median(times), 2 * nbytes / min(times)
    else:
        measure(sides, runs, on)
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
    }


OUR_STEPS: dict[str, dict[str, Any]] = {
    "fused": {"processes": 2},
    "threads": {"processes": 1},
    "textbook": {"fused": False},
}


@explained
def bench_train_step(*, runs: int, batch: int = 128, attention: str = "cbam", on: str = "cpu") -> dict[str, Any]:
    """Compare and time one training step of the demo's network: forward, loss, backward, AdamW.

    "fused" is what `npattn train` does: two processes share the batch. "threads" is one process with as many threads.
    """
    runs, batch = whole_number("runs", runs), whole_number("batch", batch, least=2)
    rng = np.random.default_rng(0)
    images, t = rng.integers(0, 256, (batch, 28, 28), dtype=np.uint8), rng.integers(0, 10, batch)

    def ours(name: str, team: Team, config: TrainConfig) -> Side:
        model = network(config).to(on)
        optimizer = AdamW(model.params)

        @blas_held  # as a run does
        def both() -> dict[str, Any]:
            done = team.step(model, images, t)
            optimizer.step(done.grads, 1e-5)
            return {"loss": done.loss, **done.grads}

        return Side(name, None, both, xp=model.xp, processes=team.processes)

    state = network(TrainConfig(attention=attention)).state_dict()
    with contextlib.ExitStack() as stack:
        sides = []
        for name, settings in OUR_STEPS.items() if on == "cpu" else [("textbook", {"device": on})]:
            if settings.get("processes") == 2 and get_num_threads() < 2:
                continue
            config = TrainConfig(attention=attention, **settings)
            sides.append(ours(name, stack.enter_context(Team(config)), config))
        torch = pytorch.torch_on(on)
        if torch:
            torch._dynamo.reset()
            x = prepared(images)
            sides += [torch_train_side(name, attention, state, x, t, on) for name in ("eager", "compiled")]
        compare(sides, 1e-2)  # float32 through ten maxima: where two are nearly equal, rounding decides
        measure(sides, runs, on)
    return {
        "block": "train step",
        "name": f"training step, {attention}",
        "shape": [batch, 1, 28, 28],
        "dtype": "float32",
        "data": "dense",
        "sides": [summary(side) for side in sides],
    }
