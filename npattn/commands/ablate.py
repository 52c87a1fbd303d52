"""`npattn ablate`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from npattn.ablation.report import FIGURE, RESULTS, TABLE
from npattn.ablation.rows import Settings, chosen
from npattn.ablation.trainings import LARGEST, MOST_JOBS, ablate
from npattn.files import read_text
from npattn.fused.threads import available_threads
from npattn.training import need_matplotlib


def add_parser(commands: Any) -> None:
    """Add the sub-command to the parser of `npattn`."""
    usual = Settings()
    sub = commands.add_parser(
        "ablate",
        help="train the network with one thing changed, over several seeds, and compare",
        description="Train every row of the table with every seed, and write a table and a figure with the spread. "
        "What is finished is kept: an interrupted command, given again, goes on where it was.",
    )
    sub.add_argument("--out", default="runs/ablation", metavar="DIR", help="where the results go (runs/ablation)")
    sub.add_argument("--only", nargs="+", metavar="NAME", help="rows or groups of them; see --list")
    sub.add_argument("--seeds", type=int, default=5, metavar="N", help="how many, from 0 (5)")
    sub.add_argument("--digits", type=int, default=usual.digits, metavar="N", help=f"to train on ({usual.digits})")
    sub.add_argument("--epochs", type=int, default=usual.epochs, metavar="N", help=f"passes over them ({usual.epochs})")
    sub.add_argument("--batch-size", type=int, default=usual.batch_size, metavar="N", help=f"({usual.batch_size})")
    sub.add_argument(
        "--test-digits", type=int, default=usual.test_digits, metavar="N", help=f"to test with ({usual.test_digits})"
    )
    sub.add_argument("--jobs", type=int, default=cores(), metavar="N", help=f"trainings at a time ({cores()})")
    sub.add_argument("--list", action="store_true", help="say what there is to train, and train nothing")
    sub.set_defaults(run=run, leaves_files=lambda arguments: not arguments.list)


def cores() -> int:
    """The processor cores that this process may use, as far as there can be jobs for them."""
    return min(available_threads(), MOST_JOBS)


def run(arguments: argparse.Namespace) -> int:
    """Train and report. Returns 130 if it was interrupted."""
    if arguments.list:
        for row in chosen(arguments.only):
            sys.stdout.write(f"{row.group:<18}{row.name:<20}{row.what}\n")
        return 0
    need_matplotlib()
    total = len(chosen(arguments.only)) * arguments.seeds
    tell, close = shown(total)
    there = 0

    def told(done: int, line: str) -> None:
        nonlocal there
        there = done
        tell(done, line)

    try:
        complete = ablate(
            arguments.out,
            only=arguments.only,
            seeds=arguments.seeds,
            settings=Settings(arguments.digits, arguments.epochs, arguments.batch_size, arguments.test_digits),
            jobs=arguments.jobs,
            tell=told,
        )
    finally:
        close()
    out = Path(arguments.out)
    if there:  # else a table that lies there is not of these trainings
        sys.stdout.write(read_text(out / TABLE, LARGEST))
        sys.stdout.write(f"written: {out / TABLE}, {out / RESULTS}, {out / FIGURE}\n")
    if not complete:
        sys.stdout.write("interrupted; the same command goes on with what is missing\n")
    return 0 if complete else 130


def shown(total: int) -> tuple[Any, Any]:
    """A function that is told of each training, and one that ends it: a bar on a terminal, else lines."""
    if not (sys.stderr.isatty() and sys.stdout.isatty()):
        return lambda done, line: print(line, flush=True), lambda: None
    from tqdm import tqdm

    bar = tqdm(total=total, unit="training")

    def tell(done: int, line: str) -> None:
        tqdm.write(line, file=sys.stdout)
        bar.update(done - bar.n)

    return tell, bar.close
