"""One result made of several allocators': each side at its best, and what it takes with memory as it comes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from npattn.bench.allocators import AS_IT_COMES

Result = dict[str, Any]


def merged(results: Mapping[str, Result], keeping: Collection[str]) -> Result:
    """The result at best, of several by the allocator's name.

    A side's times are those of the allocator of `keeping` that has the least median, forward alone and forward and
    backward each for itself. Where none of these was measured, all count. What each of them measured is kept under
    "allocators".
    """
    counting = {name: result for name, result in results.items() if name in keeping} or dict(results)
    first = next(iter(counting.values()))
    best = {key: value for key, value in first.items() if key not in ("sides", "left_out")}
    if "floor" in first:
        quickest = max(counting.values(), key=lambda result: result["bandwidth"])
        best |= {"floor": quickest["floor"], "bandwidth": quickest["bandwidth"]}
        best["best_bandwidth"] = max(result["best_bandwidth"] for result in counting.values())
    best["left_out"] = {name: why for result in results.values() for name, why in result["left_out"].items()}
    names = dict.fromkeys(side["side"] for result in counting.values() for side in result["sides"])
    best["sides"] = [at_best(name, counting, results) for name in names]
    best["allocators"] = dict(results)
    return best


def at_best(name: str, counting: Mapping[str, Result], results: Mapping[str, Result]) -> dict[str, Any]:
    """One side: its times with the best of the allocators that count, its memory and difference from all."""
    found = [side for result in results.values() if (side := by_name(result, name))]
    peaks = [side["peak"] for side in found if side["peak"] is not None]
    best: dict[str, Any] = {
        "side": name,
        "kind": found[0]["kind"],
        "peak": max(peaks) if peaks else None,
        "difference": max(side["difference"] for side in found),
    }
    for kind in ("forward", "both"):
        timed = [
            {**side[kind], "allocator": allocator}
            for allocator, result in counting.items()
            if kind in (side := by_name(result, name) or {})
        ]
        if timed:
            best[kind] = min(timed, key=lambda entry: float(entry["median"]))
    return best


def by_name(result: Result, name: str) -> dict[str, Any] | None:
    """The side of that name, if the result has it."""
    return next((side for side in result["sides"] if side["side"] == name), None)


def ratio(result: Result, name: str, kind: str) -> float | None:
    """How many times as long as ours a side took; None if one of both was not timed."""
    ours, side = result["sides"][0], by_name(result, name)
    if side is None or kind not in side or kind not in ours:
        return None
    return float(side[kind]["median"] / ours[kind]["median"])


def quickest(result: Result, group: str, kind: str) -> tuple[str, float] | None:
    """The quickest peer, "eager" or "compiled", and how many times as long as ours it took; None without one."""
    names = [side["side"] for side in result["sides"] if side["kind"] == group]
    found = [(name, value) for name in names if (value := ratio(result, name, kind)) is not None]
    return min(found, key=lambda pair: pair[1], default=None)


def as_it_comes(result: Result) -> Result | None:
    """What was measured with memory as it comes, if that is another result than this one."""
    others = result.get("allocators", {})
    return others.get(AS_IT_COMES) if len(others) > 1 else None
