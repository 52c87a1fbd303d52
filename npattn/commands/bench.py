"""`npattn bench`: what is asked for, measured and printed."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from npattn.backend import as_module, placed
from npattn.bench import device
from npattn.bench.allocators import ALLOCATORS, BEST, INHERITED, Allocator, chosen, usual
from npattn.bench.atlas import ROUNDS, SHAPE, atlas
from npattn.bench.children import ChildEnded, in_children
from npattn.bench.growth import growth
from npattn.bench.measure import threads_set
from npattn.bench.report import machine, report
from npattn.bench.runs import BESIDE, Task, measured
from npattn.bench.sides import DATA, GPU_TABLE, TABLE
from npattn.bench.size import check_size
from npattn.bench.winners import winners
from npattn.blocks import blocks
from npattn.commands.bar import Bar
from npattn.commands.names import listing, name_of, what_blocks_are
from npattn.commands.shapes import lengths
from npattn.commands.usage import UsageError, refuse
from npattn.fused.threads import get_num_threads

MOST_THREADS = 1024
USUAL = {"block": "cbam", "shape": (8, 32, 300, 300), "dtype": "float32", "data": "dense", "device": "cpu", "runs": 7}
NO_EFFECT = {
    "list": ("shape", "dtype", "data", "device", "threads", "no_textbook", "beside", "allocator", "runs", "json"),
    "table": ("shape",),
    "train_step": ("shape", "dtype", "data"),
    "growth": ("shape", "dtype", "data", "no_textbook", "beside", "json"),
    "atlas": ("block", "list", "table", "train_step", "growth", "data", "device", "no_textbook", "beside", "json"),
}
"""What is measured, and the options that would change nothing there."""


def add_parser(commands: Any) -> None:
    """Add the sub-command to the parser of `npattn`."""
    sub = commands.add_parser(
        "bench",
        help="time the fused pairs against PyTorch and the memory floor",
        description="Time fused, textbook and every peer that is installed, at its best, in turns: for the article's "
        "blocks PyTorch's modules, timm's and JAX, eager and compiled; for the others autograd on our textbook. "
        "All of it once under each allocator, in a process of its own. On a GPU: the textbook, by CuPy, and PyTorch's.",
    )
    what = sub.add_mutually_exclusive_group()
    what.add_argument("--block", type=name_of(blocks), metavar="B", help=f"a block of --list ({USUAL['block']})")
    what.add_argument("--list", action="store_true", help="say which blocks there are, and time nothing")
    what.add_argument("--table", action="store_true", help="the documentation's table, and who wins where")
    what.add_argument("--train-step", action="store_true", help="one training step of the demo's network, batch 128")
    what.add_argument("--growth", metavar="F", help="draw into that file the fused CBAM's time against N, H·W and C")
    sub.add_argument("--atlas", metavar="F", help="time every block beside SE, into that file; what it has stays")
    sub.add_argument("--shape", type=lengths(4), metavar="N,C,H,W", help="of x (8,32,300,300)")
    sub.add_argument("--dtype", choices=["float32", "float64"], help="of x (float32)")
    sub.add_argument("--data", choices=DATA, help="normal numbers, half of them 0, or all 0 (dense)")
    sub.add_argument("--device", choices=["cpu", "cuda"], help="where; cuda needs CuPy (cpu)")
    sub.add_argument("--threads", type=threads, metavar="N", help="of every side (as many as the process may use)")
    sub.add_argument(
        "--no-textbook", action="store_true", help="leave the textbook out beside a fused form: it is slow"
    )
    sub.add_argument(
        "--beside",
        nargs="+",
        choices=BESIDE,
        metavar="SIDE",
        help=f"what is timed beside ours, of {', '.join(BESIDE)} (all that there is)",
    )
    sub.add_argument(
        "--allocator",
        choices=[BEST, *ALLOCATORS, INHERITED],
        metavar="NAME",
        help="of the processes that measure: "
        + "; ".join(f"{allocator.name}, {allocator.what}" for allocator in ALLOCATORS.values())
        + f"; {BEST}, all that are installed (the usual); {INHERITED}, this process as it is",
    )
    sub.add_argument("--runs", type=count, metavar="N", help="timed runs a side (7)")
    sub.add_argument("--json", metavar="FILE", help="write everything that was measured, every run included")
    sub.set_defaults(run=run, leaves_files=leaves_files)


def leaves_files(arguments: argparse.Namespace) -> bool:
    """Whether more than the text is left of it."""
    return not arguments.list and any((arguments.json, arguments.growth, arguments.atlas))


def check_file(option: str, path: Path, endings: tuple[str, ...]) -> None:
    """Check that a file can stand there, before minutes are spent on what will be in it. Raises ValueError."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"{option}: expected a file in a folder that is there, got {path}")
    if endings and path.suffix.lower() not in endings:
        raise ValueError(f"{option}: expected a file that ends in {' or '.join(endings)}, got {path}")


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def threads(text: str) -> int:
    """The same, of as many threads as the largest machines have: with more PyTorch's would only wait for each other."""
    if count(text) > MOST_THREADS:
        raise argparse.ArgumentTypeError(f"expected at most {MOST_THREADS}, got {text}")
    return count(text)


def tasks(arguments: argparse.Namespace, number: int) -> list[Task]:
    """What was asked for, a row of the results each."""
    on = arguments.device
    beside = [side for side in arguments.beside or BESIDE if side != "textbook" or not arguments.no_textbook]
    common = {"runs": arguments.runs, "beside": beside, "on": on}
    step: Task = {"what": "train step", "threads": number, "settings": common}
    if arguments.train_step:
        return [step]
    rows = (TABLE if on == "cpu" else GPU_TABLE + TABLE) if arguments.table else [(arguments.block, arguments.shape)]
    of_x = {"dtype": arguments.dtype, "data": arguments.data}
    done: list[Task] = [
        {"what": "block", "threads": number, "settings": {"name": name, "shape": list(shape), **of_x, **common}}
        for name, shape in rows
    ]
    return [*done, step] if arguments.table and on == "cpu" else done


def done(task: Task, allocators: list[Allocator], bar: Bar) -> dict[str, Any]:
    """Measure a task, in children or here, and show what is being done meanwhile."""
    settings = task["settings"]
    what = f"{settings['name']} {tuple(settings['shape'])}" if "shape" in settings else task["what"]

    def tell(doing: str) -> None:
        bar.now(f"{what}, {doing}")

    return in_children(task, allocators, tell) if allocators else measured(task, tell)


def run(arguments: argparse.Namespace) -> int:
    """Measure what was asked for, and print it. Returns 0, or the status of a process that failed at it."""
    for mode, without in NO_EFFECT.items():
        if getattr(arguments, mode):
            refuse(arguments, without, f"with --{mode.replace('_', '-')}")
    if arguments.list:
        print(listing(what_blocks_are()), end="")
        return 0
    if arguments.atlas is not None:
        return run_atlas(arguments)
    for option, value in USUAL.items():
        if getattr(arguments, option) is None:
            setattr(arguments, option, value)
    for option, file, endings in (("--json", arguments.json, ()), ("--growth", arguments.growth, (".svg", ".png"))):
        if file is not None:
            check_file(option, Path(file), endings)
    number, on = arguments.threads or get_num_threads(), arguments.device
    about = machine(number)
    if on != "cpu":
        if arguments.growth:
            raise UsageError("--growth draws the fused path, which is the CPU's; leave out --device")
        about["gpu"] = device.name(placed(on, as_module(None))[0])
        print(about["gpu"])
    here = arguments.growth is not None or on != "cpu"
    if here and arguments.allocator not in (None, INHERITED):
        raise UsageError(f"--allocator {arguments.allocator}: expected {INHERITED} with --growth or --device {on}")
    allocators = chosen(INHERITED if here else arguments.allocator or usual(on))
    about["allocators"] = [allocator.name for allocator in allocators]
    print(textwrap.fill(introduced(about, arguments.runs), 80))
    results: list[dict[str, Any]] = []
    wanted = [] if arguments.growth else tasks(arguments, number)
    for settings in [task["settings"] for task in wanted if "shape" in task["settings"]]:  # before any is timed
        check_size(blocks()[settings["name"]], settings["shape"], settings["dtype"], settings["beside"])
    try:
        with (
            contextlib.nullcontext() if allocators else threads_set(number),
            Bar(len(wanted) if len(wanted) > 1 else None, "row") as bar,
        ):
            if arguments.growth:
                bar.now("timing the fused CBAM at growing sizes")
                growth(arguments.growth, arguments.runs, tell=bar.say)
            for task in wanted:
                results.append(done(task, allocators, bar))
                bar.say(report(results[-1]))
                bar.done()
    except ChildEnded as error:
        print(f"npattn: {error}", file=sys.stderr)
        return error.status
    finally:
        if arguments.json and (results or arguments.growth):  # a long table that is broken off leaves its rows
            written = json.dumps({"machine": about, "results": results}, indent=1) + "\n"
            Path(arguments.json).write_text(written, encoding="utf-8")
    if arguments.table:
        print(winners(results), flush=True)
    return 0


def run_atlas(arguments: argparse.Namespace) -> int:
    """Time every block beside SE that the file does not have. Returns 0."""
    file, number = Path(arguments.atlas), arguments.threads or get_num_threads()
    check_file("--atlas", file, (".json",))
    wanted = arguments.allocator or ("kept" if usual("cpu") == BEST else INHERITED)
    if wanted == BEST:
        raise UsageError("--allocator best: expected one of them with --atlas")
    allocator = next(iter(chosen(wanted)), None)
    shape, dtype = arguments.shape or SHAPE, arguments.dtype or "float32"
    head = {"shape": list(shape), "dtype": dtype, "allocator": wanted, **machine(number)}
    with (
        contextlib.nullcontext() if allocator else threads_set(number),
        Bar(len(blocks()), "block") as bar,
    ):

        def done(line: str) -> None:
            bar.say(line)
            bar.done()

        atlas(file, head, runs=arguments.runs or ROUNDS, allocator=allocator, tell=bar.now, done=done)
    return 0


def introduced(about: dict[str, Any], runs: int) -> str:
    """What measures, and on what."""
    versions = {"NumPy": "numpy", "PyTorch": "torch", "timm": "timm", "JAX": "jax"}
    said = [f"{name} {about[key] or 'not installed'}" for name, key in versions.items()]
    where = f"allocators {', '.join(about['allocators'])}" if about["allocators"] else "this process's allocator"
    return (
        f"npattn {about['npattn']}, {', '.join(said)}, Python {about['python']}, {about['processor']}, "
        f"{about['threads']} of {about['available_threads']} threads, tiles of {about['tile_bytes'] // 1024} KiB, "
        f"{where}, medians of {runs} runs in turns"
    )
