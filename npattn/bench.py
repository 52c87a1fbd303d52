"""`npattn bench`: textbook, fused, PyTorch and the memory floor, side by side.

Every side gets the same weights, x and dy, and its results are compared with the fused ones before anything is timed.
The sides then take turns in one process: one untimed call, so that each finds its own caches and threads as it left
them, and one timed. Figures are medians, with the distance of the quartiles beside them (±).
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from npattn.fused import memory, tiles
from npattn.fused.threads import available_threads, get_num_threads, set_num_threads, spread
from npattn.layer import no_grad

PAUSE = 0.02  # seconds between two sides, in which the first one's idle threads stop spinning
SLOW = 1.0  # seconds; a side that takes longer is timed three times only


class BenchError(Exception):
    """The sides do not agree, or something that was asked for is not there. The message says which."""


@dataclass
class Block:
    """How a block is made, and what it must move: tensors of x's size, read or written at least."""

    name: str
    layer: Callable[[int], Any]  # C to a layer
    forward_moves: int
    both_moves: int


def _layer(kind: str, channels: int) -> Any:
    import npattn

    make: dict[str, Callable[[], Any]] = {
        "se": lambda: npattn.SELayer(channels, min(16, channels), rng=0),
        "channel": lambda: npattn.ChannelAttention(channels, min(16, channels), rng=0),
        "spatial": lambda: npattn.SpatialAttention(7, rng=0),
        "cbam": lambda: npattn.CBAM(channels, min(16, channels), 7, rng=0),
    }
    return make[kind]()


BLOCKS = {
    "se": Block("SELayer", lambda C: _layer("se", C), 2, 5),  # read x, write y; read x and dy, write dx
    "channel": Block("ChannelAttention", lambda C: _layer("channel", C), 1, 2),  # the gate and dg are small
    "spatial": Block("SpatialAttention", lambda C: _layer("spatial", C), 1, 2),
    "cbam": Block("CBAM", lambda C: _layer("cbam", C), 2, 5),
}
TABLE = [
    ("cbam", (8, 32, 300, 300)),
    ("se", (8, 32, 300, 300)),
    ("channel", (8, 32, 300, 300)),
    ("spatial", (8, 32, 300, 300)),
    ("cbam", (32, 64, 56, 56)),
    ("cbam", (128, 16, 28, 28)),
    ("cbam", (32, 256, 14, 14)),
    ("cbam", (1, 512, 7, 7)),
]


@dataclass
class Side:
    """One way to compute the same: `forward()` alone, `both()` forward and backward, results by name."""

    name: str
    forward: Callable[[], Any] | None
    both: Callable[[], dict[str, np.ndarray]]
    release: Callable[[], Any] = lambda: None  # drops what is kept between two calls: caches and gradients
    forward_times: list[float] = field(default_factory=list)
    both_times: list[float] = field(default_factory=list)
    peak: float | None = None  # bytes
    difference: float = 0.0


# The sides


def torch_module() -> Any:
    """torch, or None where it is not installed."""
    try:
        return importlib.import_module("torch")
    except ImportError:
        return None


def torch_block(kind: str, state: dict[str, np.ndarray]) -> Any:
    """The article's class of that kind, in PyTorch, with these weights."""
    torch = torch_module()
    nn = torch.nn

    class ChannelGate(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, C: int, R: int) -> None:
            super().__init__()
            self.avg_pool, self.max_pool = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)
            self.fc1, self.fc2 = nn.Conv2d(C, R, 1, bias=False), nn.Conv2d(R, C, 1, bias=False)
            self.relu, self.sigmoid = nn.ReLU(), nn.Sigmoid()

        def forward(self, x: Any) -> Any:
            a_avg = self.fc2(self.relu(self.fc1(self.avg_pool(x))))
            a_max = self.fc2(self.relu(self.fc1(self.max_pool(x))))
            return self.sigmoid(a_avg + a_max)

    class SpatialGate(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, k: int) -> None:
            super().__init__()
            self.conv1, self.sigmoid = nn.Conv2d(2, 1, k, padding=k // 2, bias=False), nn.Sigmoid()

        def forward(self, x: Any) -> Any:
            m_avg, (m_max, _) = torch.mean(x, dim=1, keepdim=True), torch.max(x, dim=1, keepdim=True)
            return self.sigmoid(self.conv1(torch.cat([m_avg, m_max], dim=1)))

    class Both(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, C: int, R: int, k: int) -> None:
            super().__init__()
            self.ca, self.sa = ChannelGate(C, R), SpatialGate(k)

        def forward(self, x: Any) -> Any:
            u = x * self.ca(x)
            return u * self.sa(u)

    class SqueezeExcite(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, C: int, R: int) -> None:
            super().__init__()
            self.avg_pool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Sequential(
                nn.Linear(C, R, bias=False), nn.ReLU(inplace=True), nn.Linear(R, C, bias=False), nn.Sigmoid()
            )

        def forward(self, x: Any) -> Any:
            N, C, _, _ = x.size()
            g = self.fc(self.avg_pool(x).view(N, C)).view(N, C, 1, 1)
            return x * g.expand_as(x)

    shapes = [value.shape for value in state.values()]
    if kind == "se":
        module = SqueezeExcite(shapes[0][1], shapes[0][0])
    elif kind == "channel":
        module = ChannelGate(shapes[0][1], shapes[0][0])
    elif kind == "spatial":
        module = SpatialGate(shapes[0][2])
    else:
        module = Both(shapes[0][1], shapes[0][0], shapes[2][2])
    module = module.to(next(torch.from_numpy(value).dtype for value in state.values()))
    module.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    return module


def our_side(name: str, layer: Any, x: np.ndarray, dy: np.ndarray) -> Side:
    """A layer of ours."""

    def forward() -> None:
        with no_grad():
            layer(x)

    def both() -> dict[str, np.ndarray]:
        y = layer(x)
        if layer.path != name:
            raise BenchError(f"the {name} side took the {layer.path} path")
        dx = layer.backward(dy)
        return {"y": y, "dx": dx, **layer.grads}

    return Side(name, forward, both, forward)  # a forward under no_grad leaves no cache


def torch_side(name: str, module: Any, compiled: bool, x: np.ndarray, dy: np.ndarray) -> Side:
    """A module of PyTorch's, eager or compiled."""
    torch = torch_module()
    x_plain, x_grad, dy_torch = torch.from_numpy(x), torch.from_numpy(x).requires_grad_(), torch.from_numpy(dy)
    run, run_plain = module, module
    if compiled:  # two of them: under no_grad it is another graph, and would be compiled at every turn
        run, run_plain = torch.compile(module, dynamic=False), torch.compile(module, dynamic=False)

    def forward() -> None:
        with torch.no_grad():
            run_plain(x_plain)

    def both() -> dict[str, np.ndarray]:
        module.zero_grad(set_to_none=True)
        x_grad.grad = None
        y = run(x_grad)
        y.backward(dy_torch)
        grads = {key: parameter.grad.numpy() for key, parameter in module.named_parameters()}
        return {"y": y.detach().numpy(), "dx": x_grad.grad.numpy(), **grads}

    def release() -> None:
        x_grad.grad = None

    return Side(name, forward, both, release)


# Measuring


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """‖a − b‖ / ‖b‖."""
    scale = float(np.linalg.norm(b.ravel()))
    return float(np.linalg.norm((a - b).ravel())) / (scale or 1.0)


def compare(sides: list[Side], limit: float) -> None:
    """Check that all sides compute what the first one does. Sets their `difference`.

    Raises
    ------
    BenchError
        If a result differs by more than `limit` of its norm.
    """
    first = sides[0].both()
    for side in sides[1:]:
        results = side.both()
        for key, expected in first.items():
            difference = relative(results[key].reshape(expected.shape), expected)
            side.difference = max(side.difference, difference)
            if not difference <= limit:
                raise BenchError(
                    f"{side.name}: {key} differs from {sides[0].name}'s by {difference:.1e}, limit {limit:.0e}"
                )


def status(key: str) -> float | None:
    """A line of /proc/self/status in bytes, or None where the system has none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return float(line.split()[1]) * 1024
    return None


def peak_memory(call: Callable[[], Any], release: Callable[[], Any] = lambda: None) -> float | None:
    """How far one call drives the process's memory up, in bytes; None where the system does not tell (not Linux)."""
    call()
    release()
    gc.collect()
    memory.drop()  # what is kept for the next output counts as well
    try:
        Path("/proc/self/clear_refs").write_text("5")  # forget the highest mark so far
    except OSError:
        return None
    before = status("VmRSS")
    result = call()
    highest = status("VmHWM")
    del result
    return None if before is None or highest is None else highest - before


def measure(sides: list[Side], runs: int) -> None:
    """Time all sides in turns. Sets their times and peaks."""
    for side in sides:
        side.peak = peak_memory(side.both, side.release)
    for kind in ("forward", "both"):
        for turn in range(runs):
            for side in sides:
                call = getattr(side, kind)
                times = getattr(side, f"{kind}_times")
                if call is None or (turn >= 3 and min(times) > SLOW):
                    continue
                gc.collect()
                time.sleep(PAUSE)
                call()
                start = time.perf_counter()
                result = call()
                times.append(time.perf_counter() - start)
                del result


def copy_bandwidth(nbytes: int) -> float:
    """Bytes a second, read and written, of copying an array of that size with all threads; the best of nine."""
    source, target = np.ones(nbytes, dtype=np.uint8), np.ones(nbytes, dtype=np.uint8)
    parts = tiles.even(nbytes, math.ceil(nbytes / get_num_threads()), multiple=4096)

    def part(i: int) -> None:
        np.copyto(target[parts[i]], source[parts[i]])

    best = math.inf
    for _ in range(9):
        start = time.perf_counter()
        spread(part, len(parts))
        best = min(best, time.perf_counter() - start)
    return 2 * nbytes / best


@contextlib.contextmanager
def threads_set(threads: int) -> Iterator[None]:
    """Ours and PyTorch's number of threads."""
    torch = torch_module()
    before = torch.get_num_threads() if torch else None
    set_num_threads(threads)
    if torch:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        set_num_threads(None)
        if torch:
            torch.set_num_threads(before)


def inputs(shape: tuple[int, ...], dtype: str, data: str, rng: np.random.Generator) -> np.ndarray:
    """Standard normal numbers; "relu" cuts them at 0, "zero" leaves none."""
    x = rng.standard_normal(shape, dtype=np.dtype(dtype).type)
    if data == "relu":
        np.maximum(x, 0, out=x)
    elif data == "zero":
        x[...] = 0
    return x


def bench_block(
    kind: str, shape: tuple[int, ...], *, runs: int, dtype: str, data: str, only: set[str] | None = None
) -> dict[str, Any]:
    """Compare and time a block on an input of that shape. Returns what `report` prints."""
    block, rng = BLOCKS[kind], np.random.default_rng(0)
    x = inputs(shape, dtype, data, rng)
    fused = block.layer(shape[1]).to(dtype=dtype)
    textbook = block.layer(shape[1]).to(dtype=dtype).load_state_dict(fused.state_dict())
    textbook.fused = False
    dy = rng.standard_normal(fused(x).shape, dtype=x.dtype.type)
    sides = [our_side("fused", fused, x, dy), our_side("textbook", textbook, x, dy)]
    torch = torch_module()
    if torch:
        torch._dynamo.reset()
        for name in ("eager", "compiled"):
            module = torch_block(kind, fused.state_dict())
            sides.append(torch_side(name, module, name == "compiled", x, dy))
    if only is not None:
        sides = [side for side in sides if side.name in only]
    compare(sides, 1e-4 if dtype == "float32" else 1e-10)
    measure(sides, runs)
    bandwidth = copy_bandwidth(max(x.nbytes, 64 << 20))
    return {
        "block": kind,
        "name": block.name,
        "shape": list(shape),
        "dtype": dtype,
        "data": data,
        "bandwidth": bandwidth,
        "floor": {
            "forward": block.forward_moves * x.nbytes / bandwidth,
            "both": block.both_moves * x.nbytes / bandwidth,
        },
        "sides": [summary(side) for side in sides],
    }


def bench_train_step(*, runs: int, batch: int = 128, attention: str = "cbam") -> dict[str, Any]:
    """Compare and time one training step of the demo's network: forward, loss, backward, AdamW."""
    from npattn import models
    from npattn.ops import loss
    from npattn.optimizer import AdamW

    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((batch, 1, 28, 28), dtype=np.float32), rng.integers(0, 10, batch)

    def ours(name: str) -> Side:
        model = models.digits(attention, rng=0, fused=name == "fused")
        optimizer = AdamW(model.params)

        def both() -> dict[str, np.ndarray]:
            value, cache = loss.forward(model(x), t)
            model.backward(loss.backward(np.ones_like(value), cache))
            grads = dict(model.grads)
            optimizer.step(grads, 1e-5)
            return {"loss": np.asarray(value), **grads}

        return Side(name, None, both)

    sides = [ours("fused"), ours("textbook")]
    torch = torch_module()
    if torch:
        torch._dynamo.reset()
        state = models.digits(attention, rng=0).state_dict()
        sides += [torch_train_side(name, attention, state, x, t) for name in ("eager", "compiled")]
    compare(sides, 1e-2)  # float32 through ten maxima: where two are nearly equal, rounding decides
    measure(sides, runs)
    return {
        "block": "train step",
        "name": f"training step, {attention}",
        "shape": list(x.shape),
        "dtype": "float32",
        "data": "dense",
        "sides": [summary(side) for side in sides],
    }


def torch_train_side(name: str, attention: str, state: dict[str, np.ndarray], x: np.ndarray, t: np.ndarray) -> Side:
    """The demo's network in PyTorch, with the same weights, loss and optimiser."""
    torch = torch_module()
    nn = torch.nn
    if attention != "cbam":
        raise BenchError(f"the training step is compared with attention cbam only, got {attention}")

    def stage(prefix: str, pool: bool) -> Any:
        weight = state[f"{prefix}.conv.weight"]
        M, C, k, _ = weight.shape
        layers = {"conv": nn.Conv2d(C, M, k, padding=k // 2, bias=False)}
        if prefix == "stage1":  # pools at once
            layers["pool"] = nn.MaxPool2d(2)
        layers |= {"bn": nn.BatchNorm2d(M), "relu": nn.ReLU()}
        if f"{prefix}.attention.sa.conv1.weight" in state:
            start = f"{prefix}.attention."
            own = {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}
            layers["attention"] = torch_block("cbam", own)
        if pool:
            layers["pool"] = nn.MaxPool2d(2)
        return nn.Sequential(layers_in_order(layers))

    def layers_in_order(layers: dict[str, Any]) -> Any:
        from collections import OrderedDict

        return OrderedDict(layers)

    head = nn.Linear(*reversed(state["head.weight"].shape))
    parts = {f"stage{i}": stage(f"stage{i}", pool=i == 2) for i in (1, 2, 3, 4)}
    parts |= {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "head": head}
    model = nn.Sequential(layers_in_order(parts))
    missing, unknown = model.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()}, strict=False)
    if unknown or any("num_batches_tracked" not in key for key in missing):
        raise BenchError(f"the networks differ: {missing} {unknown}")
    run = torch.compile(model, dynamic=False) if name == "compiled" else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    x_torch, t_torch, measure_loss = torch.from_numpy(x), torch.from_numpy(t), nn.CrossEntropyLoss()

    def both() -> dict[str, np.ndarray]:
        optimizer.zero_grad(set_to_none=True)
        value = measure_loss(run(x_torch), t_torch)
        value.backward()
        optimizer.step()
        grads = {key: parameter.grad.numpy() for key, parameter in model.named_parameters()}
        return {"loss": value.detach().numpy(), **grads}

    return Side(name, None, both)


# Reporting


def summary(side: Side) -> dict[str, Any]:
    """Medians, quartile distances and all times of a side, in seconds; its peak in bytes."""
    result: dict[str, Any] = {"side": side.name, "peak": side.peak, "difference": side.difference}
    for kind, times in (("forward", side.forward_times), ("both", side.both_times)):
        if times:
            quartiles = statistics.quantiles(times, n=4) if len(times) > 1 else [times[0]] * 3
            result[kind] = {
                "median": statistics.median(times),
                "spread": quartiles[2] - quartiles[0],
                "times": times,
            }
    return result


def machine(threads: int) -> dict[str, Any]:
    """Versions, processor and threads."""
    import npattn

    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    torch = torch_module()
    return {
        "npattn": npattn.__version__,
        "numpy": np.__version__,
        "torch": str(torch.__version__) if torch else None,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor,
        "available_threads": available_threads(),
        "threads": threads,
        "tile_bytes": tiles.tile_bytes(),
    }


def report(result: dict[str, Any]) -> str:
    """One block's table."""
    shape = ",".join(map(str, result["shape"]))
    lines = [f"{result['name']} ({shape}) {result['dtype']}, {result['data']} data"]
    lines.append(
        f"  {'':<10}{'forward ms':>12}{'±':>7}{'÷ fused':>9}{'fwd+bwd ms':>13}{'±':>7}{'÷ fused':>9}"
        f"{'peak MB':>9}{'differs':>10}"
    )
    fused = result["sides"][0]

    def cells(entry: dict[str, Any], kind: str, width: int) -> str:
        if kind not in entry:
            return " " * (width + 16)
        ratio = entry[kind]["median"] / fused[kind]["median"]
        return f"{entry[kind]['median'] * 1e3:>{width}.2f}{entry[kind]['spread'] * 1e3:>7.2f}{ratio:>9.2f}"

    for side in result["sides"]:
        peak = "" if side["peak"] is None else f"{side['peak'] / 1e6:.0f}"
        differs = f"{side['difference']:.0e}" if side is not fused else ""
        lines.append(f"  {side['side']:<10}{cells(side, 'forward', 12)}{cells(side, 'both', 13)}{peak:>9}{differs:>10}")
    if "floor" in result:
        floor = result["floor"]
        forward, both = (floor[kind] / fused[kind]["median"] for kind in ("forward", "both"))
        lines.append(
            f"  {'floor':<10}{floor['forward'] * 1e3:>12.2f}{'':>7}{forward:>9.2f}"
            f"{floor['both'] * 1e3:>13.2f}{'':>7}{both:>9.2f}"
            f"   copying at {result['bandwidth'] / 1e9:.1f} GB/s; fused takes {1 / both:.1f} floors"
        )
    return "\n".join(lines)


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
        axes.grid(alpha=0.3, which="both")
    figure.axes[0].set_ylabel("milliseconds")
    figure.axes[0].legend(frameon=False)
    figure.savefig(path)
    print(f"wrote {path}")


# The command


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
        description="Time textbook, fused, and, where torch is installed, PyTorch eager and compiled, in turns.",
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
    sub.add_argument("--threads", type=count, metavar="N", help="of every side (as many as the process may use)")
    sub.add_argument("--no-textbook", action="store_true", help="leave the textbook out, which takes longest")
    sub.add_argument("--runs", type=count, default=7, metavar="N", help="timed runs a side (7)")
    sub.add_argument("--json", metavar="FILE", help="write everything that was measured, every run included")
    sub.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure what was asked for, and print it."""
    threads = arguments.threads or get_num_threads()
    about = machine(threads)
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
            results.append(bench_train_step(runs=arguments.runs))
            print(report(results[-1]), flush=True)
        else:
            only = {"fused", "eager", "compiled"} if arguments.no_textbook else None
            rows = TABLE if arguments.table else [(arguments.block, arguments.shape)]
            for kind, shape in rows:
                results.append(
                    bench_block(kind, shape, runs=arguments.runs, dtype=arguments.dtype, data=arguments.data, only=only)
                )
                print(report(results[-1]), flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"machine": about, "results": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":  # without the command: python -m npattn.bench
    top = argparse.ArgumentParser(prog="npattn")
    add_parser(top.add_subparsers(required=True))
    chosen = top.parse_args(["bench", *sys.argv[1:]])
    sys.exit(chosen.run(chosen))
