"""`npattn bench`: what is asked for, measured and printed."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from npattn.backend import as_module, placed
from npattn.bench import device, pytorch
from npattn.bench.measure import compare, copy_side, measure, threads_set
from npattn.bench.pytorch import torch_block, torch_side, torch_train_side
from npattn.bench.report import machine, report, summary
from npattn.bench.sides import BLOCKS, GPU_TABLE, TABLE, BenchError, Side, inputs, our_side
from npattn.fused.threads import blas_held, get_num_threads


def bench_block(
    kind: str,
    shape: tuple[int, ...],
    *,
    runs: int,
    dtype: str,
    data: str,
    only: set[str] | None = None,
    on: str = "cpu",
) -> dict[str, Any]:
    """Compare and time a block on an input of that shape, on the device `on`. Returns what `report` prints."""
    block, rng = BLOCKS[kind], np.random.default_rng(0)
    x = inputs(shape, dtype, data, rng)
    fused = block.layer(shape[1]).to(dtype=dtype)
    textbook = block.layer(shape[1]).to(dtype=dtype).load_state_dict(fused.state_dict())
    textbook.fused = False
    dy = rng.standard_normal(fused(x).shape, dtype=x.dtype.type)
    sides = [our_side("fused", fused, x, dy)] if on == "cpu" else []
    sides.append(our_side("textbook", textbook.to(on), x, dy))
    torch = pytorch.torch_on(on)
    if torch:
        torch._dynamo.reset()
        for name in ("eager", "compiled"):
            sides.append(torch_side(name, torch_block(kind, fused.state_dict()), x, dy, on))
    if only is not None:
        sides = [side for side in sides if side.name in only]
    compare(sides, 1e-4 if dtype == "float32" else 1e-10)
    nbytes = max(x.nbytes, 64 << 20)
    if on == "cpu":
        copy = copy_side(nbytes)
        measure([*sides, copy], runs, on)
        times = copy.both_times
        bandwidth, best = 2 * nbytes / statistics.median(times), 2 * nbytes / min(times)
    else:
        measure(sides, runs, on)
        bandwidth = best = device.copy_bandwidth(textbook.xp, textbook.device, nbytes)
    return {
        "block": kind,
        "name": block.name,
        "shape": list(shape),
        "dtype": dtype,
        "data": data,
        "bandwidth": bandwidth,
        "best_bandwidth": best,
        "floor": {
            "forward": block.forward_moves * x.nbytes / bandwidth,
            "both": block.both_moves * x.nbytes / bandwidth,
        },
        "sides": [summary(side) for side in sides],
    }


OUR_STEPS: dict[str, dict[str, Any]] = {
    "fused": {"processes": 2},
    "threads": {"processes": 1},
    "textbook": {"fused": False},
}


def bench_train_step(*, runs: int, batch: int = 128, attention: str = "cbam", on: str = "cpu") -> dict[str, Any]:
    """Compare and time one training step of the demo's network: forward, loss, backward, AdamW.

    "fused" is what `npattn train` does: two processes share the batch. "threads" is one process with as many threads.
    """
    from npattn.optimizer import AdamW
    from npattn.training import TrainConfig, network, prepared
    from npattn.training.team import Team

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


def growth(path: str, runs: int) -> None:
    """Draw the fused CBAM's time against N, H·W and C, and write it to `path`, an SVG or PNG file.

    Raises
    ------
    BenchError
        If matplotlib is not installed.
    """
    try:
        figure_module = importlib.import_module("matplotlib.figure")
    except ImportError:
        raise BenchError('--growth draws with matplotlib: pip install "npattn[demo]"') from None
    series = {
        "N, at (N, 32, 150, 150)": [(n, (n, 32, 150, 150)) for n in (1, 2, 4, 8, 16, 32)],
        "H·W, at (8, 32, H, W)": [(s * s, (8, 32, s, s)) for s in (38, 75, 106, 150, 212, 300, 424)],
        "C, at (8, C, 150, 150)": [(c, (8, c, 150, 150)) for c in (16, 32, 64, 128, 256)],
    }
    figure = figure_module.Figure(figsize=(10, 3.4), layout="constrained")
    for axes, (label, points) in zip(figure.subplots(1, 3), series.items(), strict=True):
        sizes, times = [], []
        for size, shape in points:
            result = bench_block("cbam", shape, runs=runs, dtype="float32", data="dense", only={"fused"})
            median = result["sides"][0]["both"]["median"]
            sizes.append(size)
            times.append(median * 1e3)
            print(f"{label}: {size:>7} {median * 1e3:9.2f} ms {median / math.prod(shape) * 1e9:6.3f} ns a number")
        axes.loglog(sizes, times, "o-", label="fused, forward + backward")
        axes.loglog(sizes, [times[-1] * size / sizes[-1] for size in sizes], "--", color="0.5", label="linear")
        axes.set_xlabel(label)
        axes.minorticks_off()
        axes.set_xticks(sizes, labels=[f"{size:,}" for size in sizes], rotation=45)
        powers = range(math.floor(math.log2(min(times))), math.ceil(math.log2(max(times))) + 1)
        axes.set_yticks([2.0**power for power in powers], labels=[f"{2.0**power:g}" for power in powers])
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("milliseconds")
    figure.axes[0].legend(frameon=False)
    figure.savefig(path)
    print(f"wrote {path}")


def shape_of(text: str) -> tuple[int, ...]:
    """ "8,32,300,300" as numbers."""
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if len(shape) != 4 or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"expected four whole numbers N,C,H,W of at least 1, got {text!r}")
    return shape


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`npattn bench`."""
    sub = commands.add_parser(
        "bench",
        help="time the fused pairs against PyTorch and the memory floor",
        description="Time textbook, fused, and, where torch is installed, PyTorch eager and compiled, in turns. "
        "On a GPU: the textbook on CuPy, and PyTorch's two.",
    )
    what = sub.add_mutually_exclusive_group()
    what.add_argument("--block", choices=list(BLOCKS), default="cbam", help="which block (cbam)")
    what.add_argument("--table", action="store_true", help="all blocks and shapes of the documentation's table")
    what.add_argument("--train-step", action="store_true", help="one training step of the demo's network, batch 128")
    what.add_argument("--growth", metavar="FILE", help="draw the fused CBAM's time against N, H·W and C")
    sub.add_argument("--shape", type=shape_of, default=(8, 32, 300, 300), metavar="N,C,H,W", help="of x (8,32,300,300)")
    sub.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="of x (float32)")
    sub.add_argument(
        "--data", choices=["dense", "relu", "zero"], default="dense", help="normal numbers, half of them 0, or all 0"
    )
    sub.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where; cuda needs CuPy (cpu)")
    sub.add_argument("--threads", type=count, metavar="N", help="of every side (as many as the process may use)")
    sub.add_argument("--no-textbook", action="store_true", help="leave the textbook out, which takes longest")
    sub.add_argument("--runs", type=count, default=7, metavar="N", help="timed runs a side (7)")
    sub.add_argument("--json", metavar="FILE", help="write everything that was measured, every run included")
    sub.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure what was asked for, and print it."""
    threads, on = arguments.threads or get_num_threads(), arguments.device
    about = machine(threads)
    if on != "cpu":
        if arguments.growth:
            raise BenchError("--growth draws the fused path, which is the CPU's; leave out --device")
        about["gpu"] = device.name(placed(on, as_module(None))[0])
        print(about["gpu"])
    print(
        f"npattn {about['npattn']}, NumPy {about['numpy']}, PyTorch {about['torch'] or 'not installed'}, "
        f"Python {about['python']}, {about['processor']}, {threads} of {about['available_threads']} threads, "
        f"tiles of {about['tile_bytes'] // 1024} KiB, medians of {arguments.runs} runs in turns"
    )
    results = []
    with threads_set(threads):
        if arguments.growth:
            growth(arguments.growth, arguments.runs)
        elif arguments.train_step:
            results.append(bench_train_step(runs=arguments.runs, on=on))
            print(report(results[-1]), flush=True)
        else:
            only = {"fused", "eager", "compiled"} if arguments.no_textbook and on == "cpu" else None
            table = TABLE if on == "cpu" else GPU_TABLE + TABLE
            rows = table if arguments.table else [(arguments.block, arguments.shape)]
            for kind, shape in rows:
                settings = {"runs": arguments.runs, "dtype": arguments.dtype, "data": arguments.data}
                results.append(bench_block(kind, shape, only=only, on=on, **settings))
                print(report(results[-1]), flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"machine": about, "results": results}, indent=1) + "\n")
    return 0
