"""`npattn bench`: what is asked for, measured and printed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from npattn.backend import as_module, placed
from npattn.bench import device
from npattn.bench.growth import growth
from npattn.bench.measure import threads_set
from npattn.bench.report import machine, report
from npattn.bench.runs import BESIDE, bench_block, bench_train_step
from npattn.bench.sides import DATA, GPU_TABLE, TABLE
from npattn.blocks import blocks
from npattn.commands.bar import Bar
from npattn.commands.names import listing, name_of, what_blocks_are
from npattn.commands.shapes import lengths
from npattn.commands.usage import UsageError, refuse
from npattn.fused.threads import get_num_threads

MOST_THREADS = 1024
USUAL = {"block": "cbam", "shape": (8, 32, 300, 300), "dtype": "float32", "data": "dense", "device": "cpu", "runs": 7}
NO_EFFECT = {
    "list": ("shape", "dtype", "data", "device", "threads", "no_textbook", "runs", "json"),
    "table": ("shape",),
    "train_step": ("shape", "dtype", "data", "no_textbook"),
    "growth": ("shape", "dtype", "data", "no_textbook", "json"),
}
"""What is measured, and the options that would change nothing there."""


def add_parser(commands: Any) -> None:
    """Add the sub-command to the parser of `npattn`."""
    sub = commands.add_parser(
        "bench",
        help="time the fused pairs against PyTorch and the memory floor",
        description="Time fused, textbook and, where torch is installed, PyTorch, in turns: for the article's blocks "
        "modules of its own, eager and compiled; for the others its autograd on our textbook. On a GPU: the textbook, "
        "by CuPy, and PyTorch's.",
    )
    what = sub.add_mutually_exclusive_group()
    what.add_argument("--block", type=name_of(blocks), metavar="B", help=f"a block of --list ({USUAL['block']})")
    what.add_argument("--list", action="store_true", help="say which blocks there are, and time nothing")
    what.add_argument("--table", action="store_true", help="all blocks and shapes of the documentation's table")
    what.add_argument("--train-step", action="store_true", help="one training step of the demo's network, batch 128")
    what.add_argument("--growth", metavar="F", help="draw into that file the fused CBAM's time against N, H·W and C")
    sub.add_argument("--shape", type=lengths(4), metavar="N,C,H,W", help="of x (8,32,300,300)")
    sub.add_argument("--dtype", choices=["float32", "float64"], help="of x (float32)")
    sub.add_argument("--data", choices=DATA, help="normal numbers, half of them 0, or all 0 (dense)")
    sub.add_argument("--device", choices=["cpu", "cuda"], help="where; cuda needs CuPy (cpu)")
    sub.add_argument("--threads", type=threads, metavar="N", help="of every side (as many as the process may use)")
    sub.add_argument(
        "--no-textbook", action="store_true", help="leave the textbook out beside a fused form: it is slow"
    )
    sub.add_argument("--runs", type=count, metavar="N", help="timed runs a side (7)")
    sub.add_argument("--json", metavar="FILE", help="write everything that was measured, every run included")
    sub.set_defaults(run=run, leaves_files=leaves_files)


def leaves_files(arguments: argparse.Namespace) -> bool:
    """Whether more than the text is left of it."""
    return not arguments.list and (arguments.json is not None or arguments.growth is not None)


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


def run(arguments: argparse.Namespace) -> int:
    """Measure what was asked for, and print it. Returns 0."""
    for mode, without in NO_EFFECT.items():
        if getattr(arguments, mode):
            refuse(arguments, without, f"with --{mode.replace('_', '-')}")
    if arguments.list:
        print(listing(what_blocks_are()), end="")
        return 0
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
    print(
        f"npattn {about['npattn']}, NumPy {about['numpy']}, PyTorch {about['torch'] or 'not installed'}, "
        f"Python {about['python']}, {about['processor']}, {number} of {about['available_threads']} threads, "
        f"tiles of {about['tile_bytes'] // 1024} KiB, medians of {arguments.runs} runs in turns"
    )
    results = []
    with threads_set(number):
        if arguments.growth:
            with Bar(None, "series") as bar:
                bar.now("timing the fused CBAM at growing sizes")
                growth(arguments.growth, arguments.runs, tell=bar.say)
        elif arguments.train_step:
            with Bar(None, "step") as bar:
                bar.now("timing a training step, each side in turn")
                results.append(bench_train_step(runs=arguments.runs, on=on))
                bar.say(report(results[-1]))
        else:
            beside = BESIDE - {"textbook"} if arguments.no_textbook else BESIDE
            table = TABLE if on == "cpu" else GPU_TABLE + TABLE
            wanted = table if arguments.table else [(arguments.block, arguments.shape)]
            with Bar(len(wanted) if arguments.table else None, "row") as bar:
                for name, shape in wanted:
                    bar.now(f"timing {name} at {', '.join(map(str, shape))}, each side in turn")
                    settings = {"runs": arguments.runs, "dtype": arguments.dtype, "data": arguments.data}
                    results.append(bench_block(name, shape, beside=beside, on=on, **settings))
                    bar.say(report(results[-1]))
                    bar.done()
    if arguments.json:
        Path(arguments.json).write_text(
            json.dumps({"machine": about, "results": results}, indent=1) + "\n", encoding="utf-8"
        )
    return 0
