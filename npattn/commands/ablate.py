"""`npattn ablate`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, cast

from npattn.ablation.report import FIGURE, RESULTS, TABLE
from npattn.ablation.rows import Settings, chosen, known
from npattn.ablation.trainings import LARGEST, MOST_JOBS, ablate
from npattn.columns import table
from npattn.commands.bar import Bar
from npattn.commands.names import name_of
from npattn.commands.usage import given, refuse
from npattn.files import read_text
from npattn.fused.threads import available_threads
from npattn.streams import width
from npattn.training import TrainingError, need_matplotlib
from npattn.training.ranks import started

OUT, SEEDS = "runs/ablation", 5
OF_A_TRAINING = ("digits", "epochs", "batch_size", "test_digits")


def add_parser(commands: Any) -> None:
    """Add the sub-command to the parser of `npattn`."""
    usual = Settings()
    sub = commands.add_parser(
        "ablate",
        help="train the network with one thing changed, over several seeds, and compare",
        description="Train every row of the table with every seed, and write a table and a figure with the spread. "
        "What is finished is kept: an interrupted command, given again, goes on where it was.",
    )
    sub.add_argument("--out", metavar="DIR", help=f"where the results go ({OUT})")
    sub.add_argument(
        "--only", nargs="+", type=name_of(lambda: known().values()), metavar="NAME", help="rows or groups of --list"
    )
    sub.add_argument("--list", action="store_true", help="say what there is to train, and train nothing")
    sub.add_argument("--seeds", type=int, metavar="N", help=f"how many, from 0 ({SEEDS})")
    sub.add_argument("--digits", type=int, metavar="N", help=f"to train on ({usual.digits})")
    sub.add_argument("--epochs", type=int, metavar="N", help=f"passes over them ({usual.epochs})")
    sub.add_argument("--batch-size", type=int, metavar="N", help=f"digits a step ({usual.batch_size})")
    sub.add_argument("--test-digits", type=int, metavar="N", help=f"to test with ({usual.test_digits})")
    sub.add_argument("--jobs", type=int, metavar="N", help=f"trainings at a time ({cores()}; on ranks, all)")
    sub.set_defaults(run=run, leaves_files=lambda arguments: not arguments.list)


def cores() -> int:
    """The processor cores that this process may use, as far as there can be jobs for them."""
    return min(available_threads(), MOST_JOBS)


def pool() -> contextlib.AbstractContextManager[Executor | None]:
    """The ranks that wait for work, under `mpiexec -n N python -m mpi4py.futures`; None elsewhere.

    Raises TrainingError if mpiexec has started several that each would train everything.
    """
    if "mpi4py.futures" in sys.modules:
        from mpi4py.futures import MPIPoolExecutor

        return cast("contextlib.AbstractContextManager[Executor]", MPIPoolExecutor())
    if (started() or 1) > 1:
        raise TrainingError(
            f"mpiexec has started {started()} processes; their work is shared out by "
            f"mpiexec -n {started()} python -m mpi4py.futures -m npattn ablate"
        )
    return contextlib.nullcontext()


def run(arguments: argparse.Namespace) -> int:
    """Train and report. Returns 130 if it was interrupted."""
    if arguments.list:
        refuse(arguments, ("out", "seeds", *OF_A_TRAINING, "jobs"), "with --list")
        rows = [(row.group, row.name, row.what) for row in chosen(arguments.only)]
        sys.stdout.write(table(("group", "row", "what it is"), rows, width()) + "\n")
        return 0
    need_matplotlib()
    seeds = SEEDS if arguments.seeds is None else arguments.seeds
    typed = {name: getattr(arguments, name) for name in given(arguments, OF_A_TRAINING)}
    settings, out = Settings(**typed), Path(OUT if arguments.out is None else arguments.out)
    bar = Bar(len(chosen(arguments.only)) * max(1, seeds), "training")
    there = 0

    def told(done: int, line: str) -> None:
        nonlocal there
        before, there = there, done
        bar.say(line)
        bar.done(done - before)

    with bar, pool() as executor:
        complete = ablate(
            out,
            only=arguments.only,
            seeds=seeds,
            settings=settings,
            jobs=cores() if arguments.jobs is None and executor is None else arguments.jobs,
            executor=executor,
            tell=told,
        )
    if there:  # else a table that lies there is not of these trainings
        sys.stdout.write(read_text(out / TABLE, LARGEST))
        sys.stdout.write(f"written: {out / TABLE}, {out / RESULTS}, {out / FIGURE}\n")
    if not complete:
        sys.stdout.write("interrupted; the same command goes on with what is missing\n")
    return 0 if complete else 130
