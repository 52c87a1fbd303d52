"""What was measured, as a dict for JSON and as a table of 80 columns."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import platform
import statistics
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from npattn.bench.best import as_it_comes, quickest, ratio
from npattn.bench.sides import Side
from npattn.fused import tiles
from npattn.fused.threads import available_threads
from npattn.version import __version__


def summary(side: Side) -> dict[str, Any]:
    """Medians, quartile distances and all times of a side, in seconds; its peak in bytes."""
    result: dict[str, Any] = {
        "side": side.name,
        "kind": side.kind,
        "peak": side.peak,
        "difference": side.difference,
    }
    for kind, taken in (("forward", side.forward_times), ("both", side.both_times)):
        if taken:
            quartiles = statistics.quantiles(taken, n=4) if len(taken) > 1 else [taken[0]] * 3
            result[kind] = {
                "median": statistics.median(taken),
                "spread": quartiles[2] - quartiles[0],
                "times": taken,
            }
    return result


def version(package: str) -> str | None:
    """A package's version, or None where it is not installed. Does not import it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine(threads: int) -> dict[str, Any]:
    """Versions, processor and threads."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    return {
        "npattn": __version__,
        "numpy": np.__version__,
        **{package: version(package) for package in ("torch", "timm", "jax")},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor,
        "available_threads": available_threads(),
        "threads": threads,
        "tile_bytes": tiles.tile_bytes(),
    }


def figure(value: float) -> str:
    """A number of at most six characters: two decimals, fewer where it is large."""
    digits = math.floor(math.log10(value)) + 1 if value >= 1 else 1
    return f"{value:.{min(2, max(0, 5 - digits))}f}"


def times(value: float) -> str:
    """A ratio in few characters."""
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def cells(entry: dict[str, Any], kind: str, by: float | None) -> str:
    """Milliseconds, their spread, and the ratio to ours."""
    if kind not in entry:
        return " " * 22
    median, spread = (figure(entry[kind][key] * 1e3) for key in ("median", "spread"))
    return f"{median:>8}{spread:>7}{'' if by is None else times(by):>7}"


def report(result: dict[str, Any]) -> str:
    """One block's table."""
    shape = ",".join(map(str, result["shape"]))
    first, usual = result["sides"][0], as_it_comes(result)  # first is ours: fused, or the textbook, on a GPU say
    by = "÷fused" if first["side"] == "fused" else "÷ours"
    lines = [
        *textwrap.wrap(f"{result['name']} ({shape}) {result['dtype']}, {result['data']} data", 80),
        f"  {'':13}{'forward':>22}{'forward + backward':>22}{'as it':>7}{'peak':>6}",
        f"  {'':13}{'ms':>8}{'±':>7}{by:>7}{'ms':>8}{'±':>7}{by:>7}{'comes':>7}{'MB':>6}{'differs':>8}",
    ]
    for side in result["sides"]:
        ratios = {kind: ratio(result, side["side"], kind) for kind in ("forward", "both")}
        comes = ratio(usual, side["side"], "both") if usual else None
        peak = "" if side["peak"] is None else f"{side['peak'] / 1e6:.0f}"
        differs = f"{side['difference']:.0e}" if side is not first else ""
        lines.append(
            f"  {side['side']:<13}{cells(side, 'forward', ratios['forward'])}{cells(side, 'both', ratios['both'])}"
            f"{'' if comes is None else times(comes):>7}{peak:>6}{differs:>8}"
        )
    lines += floor_lines(result) if "floor" in result else []
    for group in ("eager", "compiled"):
        found = [(kind, quickest(result, group, kind)) for kind in ("forward", "both")]
        said = [f"{kind} {times(pair[1])} ({pair[0]})" for kind, pair in found if pair]
        lines += [f"  best {group} {by}: {', '.join(said)}"] if said else []
    if result["block"] == "train step" and first["side"] == "fused":
        lines.append("  fused: two ranks of MPI share the batch, as in `npattn train`; threads: one process")
    lines += [cut(f"  {name} left out: {why}") for name, why in result["left_out"].items()]
    return "\n".join(line.rstrip() for line in lines)


def floor_lines(result: dict[str, Any]) -> list[str]:
    """The memory floor as a row of the table, and how far from it we are."""
    floor, first = result["floor"], result["sides"][0]
    forward, both = (floor[kind] / first[kind]["median"] for kind in ("forward", "both"))
    usual, best = result["bandwidth"], result["best_bandwidth"]
    return [
        f"  {'floor':<13}{figure(floor['forward'] * 1e3):>8}{'':>7}{forward:>7.2f}"
        f"{figure(floor['both'] * 1e3):>8}{'':>7}{both:>7.2f}",
        f"  copying at {usual / 1e9:.1f} GB/s; {first['side']} takes {1 / both:.1f} floors"
        f" ({best / usual / both:.1f} at the best copy's {best / 1e9:.1f})",
    ]


def cut(line: str, columns: int = 80) -> str:
    """The line, with its end left out if it is longer than that."""
    return line if len(line) <= columns else line[: columns - 1] + "…"
