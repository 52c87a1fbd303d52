"""How the fused CBAM's time grows with N, H·W and C: measured, and drawn."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

from npattn.bench.runs import bench_block
from npattn.bench.sides import BenchError

SERIES = {
    "N, at (N, 32, 150, 150)": [(n, (n, 32, 150, 150)) for n in (1, 2, 4, 8, 16, 32)],
    "H·W, at (8, 32, H, W)": [(s * s, (8, 32, s, s)) for s in (38, 75, 106, 150, 212, 300, 424)],
    "C, at (8, C, 150, 150)": [(c, (8, c, 150, 150)) for c in (16, 32, 64, 128, 256)],
}
INK, GREY = "#1b1b3a", "#8793a9"


def growth(path: str, runs: int, tell: Callable[[str], Any]) -> None:
    """Draw the time against each of the three, and write it to `path`, an SVG or PNG file. `tell` gets lines of text.

    Raises
    ------
    BenchError
        If matplotlib is not installed.
    """
    try:
        figure_module = importlib.import_module("matplotlib.figure")
    except ImportError:
        raise BenchError('--growth draws with matplotlib: pip install "npattn[demo]"') from None
    figure = figure_module.Figure(figsize=(7.2, 3.6), layout="constrained")
    for axes, (label, points) in zip(figure.subplots(1, 3), SERIES.items(), strict=True):
        sizes, times = [], []
        for size, shape in points:
            result = bench_block("cbam", shape, runs=runs, dtype="float32", data="dense", beside=())
            median = result["sides"][0]["both"]["median"]
            sizes.append(size)
            times.append(median * 1e3)
            tell(f"{label}: {size:>7} {median * 1e3:9.2f} ms {median / math.prod(shape) * 1e9:6.3f} ns a number")
        straight = [times[-1] * size / sizes[-1] for size in sizes]
        axes.loglog(sizes, straight, "--", color=GREY, label="in proportion to the size")
        axes.loglog(sizes, times, "o-", color=INK, label="measured")
        axes.set(xlabel=label, ylabel="time (ms)", title=f"Time against {label.partition(',')[0]}")
        axes.minorticks_off()
        axes.set_xticks(sizes, labels=[f"{size:,}" for size in sizes], rotation=45)
        powers = range(math.floor(math.log2(min(times))), math.ceil(math.log2(max(times))) + 1)
        axes.set_yticks([2.0**power for power in powers], labels=[f"{2.0**power:g}" for power in powers])
        axes.grid(alpha=0.3)
    key = figure.axes[0].get_legend_handles_labels()
    figure.legend(*key, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle("How long the fused CBAM's forward and backward take, by the size of x")
    figure.savefig(path)
    tell(f"wrote {path}")
