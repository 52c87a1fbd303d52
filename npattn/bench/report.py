"""What was measured, as a dict for JSON and as a table."""

from __future__ import annotations

import contextlib
import platform
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from npattn.bench import pytorch
from npattn.bench.sides import Side
from npattn.fused import tiles
from npattn.fused.threads import available_threads
from npattn.version import __version__


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
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    torch = pytorch.torch_module()
    return {
        "npattn": __version__,
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
    first = result["sides"][0]  # ours: fused, or the textbook, on a GPU say
    by = "÷ fused".rjust(9) if first["side"] == "fused" else "÷ ours".rjust(9)
    lines.append(f"  {'':<10}{'forward ms':>12}{'±':>7}{by}{'fwd+bwd ms':>13}{'±':>7}{by}{'peak MB':>9}{'differs':>10}")

    def cells(entry: dict[str, Any], kind: str, width: int) -> str:
        if kind not in entry:
            return " " * (width + 16)
        ratio = entry[kind]["median"] / first[kind]["median"]
        return f"{entry[kind]['median'] * 1e3:>{width}.2f}{entry[kind]['spread'] * 1e3:>7.2f}{ratio:>9.2f}"

    for side in result["sides"]:
        peak = "" if side["peak"] is None else f"{side['peak'] / 1e6:.0f}"
        differs = f"{side['difference']:.0e}" if side is not first else ""
        lines.append(f"  {side['side']:<10}{cells(side, 'forward', 12)}{cells(side, 'both', 13)}{peak:>9}{differs:>10}")
    if result["block"] == "train step" and first["side"] == "fused":
        lines.append("  fused: two processes share the batch, as in `npattn train`; threads: one process")
    if "floor" in result:
        floor = result["floor"]
        forward, both = (floor[kind] / first[kind]["median"] for kind in ("forward", "both"))
        usual, best = result["bandwidth"], result["best_bandwidth"]
        lines.append(
            f"  {'floor':<10}{floor['forward'] * 1e3:>12.2f}{'':>7}{forward:>9.2f}"
            f"{floor['both'] * 1e3:>13.2f}{'':>7}{both:>9.2f}"
            f"   copying at {usual / 1e9:.1f} GB/s; {first['side']} takes {1 / both:.1f} floors"
            f" ({best / usual / both:.1f} at the best copy's {best / 1e9:.1f})"
        )
    return "\n".join(lines)
