"""`npattn bench --atlas`: every block's forward and backward beside SE's, in turns, kept in a file block by block.

The textbook is timed against SE's textbook, and where a block has a fused form, that against SE's. Both of a pair take
turns in one process (beside.py), so that a slow minute of the machine is slow for both. What the file has is not
measured again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from npattn.bench.allocators import Allocator
from npattn.bench.children import ChildEnded, in_child
from npattn.bench.measure import Tell
from npattn.bench.runs import Task, measured
from npattn.bench.sides import BenchError
from npattn.bench.size import check_size
from npattn.blocks import Entry, blocks
from npattn.files import atomic, read_text

SHAPE = (32, 64, 56, 56)
ROUNDS = 5  # turns, unless told
KILLED = 128 + 9  # the status of a process that the system ended, which it does where memory is short
LARGEST = 2**22  # bytes of the file
SAME = ("shape", "dtype", "processor", "threads", "numpy")
"""What of the file's head has to be as it is now: times of several machines make no table."""


def fitting(entry: Entry, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape, or where a block is for smaller maps only, the largest square maps that it takes."""
    N, C, H, W = shape
    most = entry.card.most_pixels
    return (N, C, math.isqrt(most), math.isqrt(most)) if most is not None and most < H * W else shape


def kept(file: Path, head: dict[str, Any]) -> dict[str, Any]:
    """What the file has, or an empty one with that head.

    Raises BenchError if it is no such file, or of another machine, shape or dtype.
    """
    if not file.exists():
        return {"head": head, "blocks": {}}
    try:
        found: dict[str, Any] = json.loads(read_text(file, LARGEST))
        other = [key for key in SAME if found["head"][key] != head[key]]
        fits = isinstance(found["blocks"], dict)
    except (ValueError, KeyError, TypeError):
        other, fits = [], False
    if not fits:
        raise BenchError(f"--atlas: expected a file that this command wrote, or none, got {file}")
    if other:
        said = ", ".join(f"{key} {found['head'][key]} and not {head[key]}" for key in other)
        raise BenchError(f"--atlas: {file} has {said}; give another file, or remove it")
    return found


def atlas(
    file: Path,
    head: dict[str, Any],
    *,
    runs: int,
    allocator: Allocator | None,
    tell: Tell,
    done: Callable[[str], Any],
) -> None:
    """Measure every block that the file does not have yet, and write the file after each.

    Parameters
    ----------
    file
        JSON: "head", what measured; "blocks", by name what `bench_beside` returns, with "shape" where that is another
        one than the head's, or "why" where it could not.
    head
        Of a new file: shape, dtype, threads, and the machine.
    runs
        Turns.
    allocator
        Of the process that measures a block; None measures in this one.
    tell, done
        Get what is being done, and a line about each block that is.
    """
    found = kept(file, head)
    shape, dtype = tuple(head["shape"]), head["dtype"]
    for name, entry in blocks().items():
        if "textbook" in found["blocks"].get(name, {}):
            done(line(name, found["blocks"][name]))
            continue
        where = fitting(entry, shape)
        settings = {"name": name, "shape": list(where), "dtype": dtype, "runs": runs}
        task: Task = {"what": "beside SE", "threads": head["threads"], "settings": settings}

        def doing(what: str, name: str = name) -> None:
            tell(f"{name}: {what}")

        try:
            check_size(entry, where, dtype, {"textbook"})
            result = in_child(task, allocator, doing) if allocator else measured(task, doing)
        except (ChildEnded, MemoryError) as error:
            if isinstance(error, ChildEnded) and error.status != KILLED:
                raise
            result = {"why": str(error)}
        if where != shape:
            result = {"shape": list(where), **result}
        found["blocks"][name] = result
        with atomic(file) as out:
            out.write(text_of(found).encode())
        done(line(name, result))


def text_of(found: dict[str, Any]) -> str:
    """JSON with a block a line, so that a change of one is a change of its line."""
    rows = [f"  {json.dumps(name)}: {json.dumps(result)}" for name, result in found["blocks"].items()]
    return f'{{\n "head": {json.dumps(found["head"])},\n "blocks": {{\n' + ",\n".join(rows) + "\n }\n}\n"


def median(times: list[float]) -> float:
    return float(np.median(times))


def line(name: str, result: dict[str, Any]) -> str:
    """A block in a line of at most 80 columns: milliseconds, and how often SE's time that is."""
    if "why" in result:
        return f"{name:<28} not measured: {result['why']}"[:80]
    said = []
    for path, of in [(path, of) for path, of in result.items() if path in ("textbook", "fused")]:
        ours = median(of["seconds"])
        said.append(f"{path} {ours * 1e3:6.1f} ms {ours / median(of['beside']):5.2f}×")
    return f"{name:<28} {', '.join(said)}"
