"""The trainings of an ablation: each a function of its row, its seed and the settings.

A finished one is a small file, written whole or not at all, and is never repeated: an interrupted command goes on with
those that are missing. The same seed gives all rows the same digits in the same order, moved in the same way, so
two rows are compared seed by seed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from dataclasses import asdict
from pathlib import Path
from typing import Any

from npattn import data
from npattn.ablation.record import checked_record
from npattn.ablation.report import FIGURE, RESULTS, TABLE, write
from npattn.ablation.rows import AblationError, Row, Settings, chosen
from npattn.arguments import explained_within
from npattn.checks import shown, whole_number
from npattn.columns import counted
from npattn.files import atomic, read_text, sweep
from npattn.fused.threads import at_most
from npattn.optimizer import AdamW
from npattn.progress import Silent
from npattn.training import Run, State, TrainConfig, check_places, held, interruptible, network, path_text, versions
from npattn.training.settings import check_batch

TRAININGS = "trainings"  # the folder in the folder
LARGEST = 2**20  # bytes of a finished training's file, which takes some hundred, and of the table
NONE, AGAIN = "holds no finished training", "remove it, and it is run again"
MOST_SEEDS, MOST_JOBS = 1000, 256
Finished = Callable[[Row, int, dict[str, Any]], None]


class Quiet(Run):
    """A training that keeps nothing on the disk: it takes seconds, and what is left of it is its result."""

    def save(self) -> None:
        pass


def first(digits: data.Digits, settings: Settings) -> data.Digits:
    """The first ones of the training and the test digits. Raises AblationError if there are not so many."""
    train, test = slice(settings.digits), slice(settings.test_digits)
    for name, wanted, there in (("digits", settings.digits, digits.train_labels),
                                ("test_digits", settings.test_digits, digits.test_labels)):  # fmt: skip
        if wanted > len(there):
            raise AblationError(f"{name}: expected at most {len(there):,}, got {wanted:,}")
    return data.Digits(digits.train_images[train], digits.train_labels[train],
                       digits.test_images[test], digits.test_labels[test], digits.source)  # fmt: skip


def one_training(row: Row, seed: int, settings: Settings, digits: data.Digits | None = None) -> dict[str, Any]:
    """Train a row with a seed, and return what is to be known of it; an empty dict if it was interrupted."""
    digits = first(data.load() if digits is None else digits, settings)
    config = TrainConfig(
        model=row.model, attention=row.attention, epochs=settings.epochs, batch_size=settings.batch_size,
        seed=seed, test_every=settings.epochs, processes=1,
    )  # fmt: skip
    model = network(config)
    run = Quiet(config, State(), model, AdamW(model.params, decay=config.decay), digits, Path(), Silent())
    if not run.go():
        return {}
    last = run.state.history[-1]
    return {
        "row": row.name,
        "seed": seed,
        "settings": asdict(settings),
        "digits": digits.source,
        "parameters": model.count(),
        "accuracy": last["test_accuracy"],
        "test_loss": last["test_loss"],
        "train_loss": last["loss"],
        "gates": last.get("gates", {}),
        "seconds": round(run.state.seconds, 2),
        "versions": versions(),
    }


def in_a_process(row: Row, seed: int, settings: Settings) -> dict[str, Any]:
    """`one_training` where several run side by side: each has one core for itself."""
    with at_most(1):
        return one_training(row, seed, settings)


# What is kept


def file_of(out: Path, row: Row, seed: int) -> Path:
    """The file of a finished training."""
    plain = "".join(c if c.isalnum() else "-" for c in row.name.lower())
    return out / TRAININGS / f"{plain}-seed{seed}.json"


def stored(out: Path, row: Row, seed: int, settings: Settings) -> dict[str, Any] | None:
    """A finished training, or None if it has not been run.

    Raises AblationError if there is one with other settings, or a file that is none.
    """
    path = file_of(out, row, seed)
    try:
        found = json.loads(read_text(path, LARGEST))
        whole = (found["row"], found["seed"]) == (row.name, seed) and isinstance(found["settings"], dict)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise AblationError(f"{path}: {NONE} ({error!s:.300}); {AGAIN}") from None
    if not whole:
        raise AblationError(f"{path}: {NONE} of {row.name} with seed {seed}; {AGAIN}")
    if found["settings"] != asdict(settings):
        with_others = f"with {found['settings']!s:.200}, not with {asdict(settings)}"
        raise AblationError(f"{path}: was trained {with_others}; choose another folder")
    try:
        return checked_record("training", found)
    except (TypeError, ValueError) as error:
        raise AblationError(f"{path}: {NONE} ({error!s:.300}); {AGAIN}") from None


def store(out: Path, row: Row, seed: int, result: dict[str, Any]) -> None:
    """Write a finished training, whole or not at all."""
    with atomic(file_of(out, row, seed)) as file:
        file.write((json.dumps(result, indent=1) + "\n").encode())


@explained_within(settings=Settings)
def ablate(
    out: str | os.PathLike[str],
    *,
    only: Sequence[str] | None = None,
    seeds: int = 5,
    settings: Settings | None = None,
    jobs: int | None = None,
    executor: Executor | None = None,
    tell: Callable[[int, str], None] = lambda done, line: None,
) -> bool:
    """Train what is missing in the folder `out`, and write ablation.md, ablation.json and ablation.png there.

    Ctrl-C ends it; what is finished stays, and the same call goes on. The three files are written in either case.

    Parameters
    ----------
    out
        The folder, made if it is not there. Trainings of earlier calls with the same settings are taken over.
    only
        Names of rows or of groups; None trains all.
    seeds
        How many: 0 to seeds − 1. 1 to 1000; a spread needs 2.
    settings
        Digits, epochs, batch size; None takes the defaults.
    jobs
        How many trainings run side by side, each in a process and on a core of its own, 1 to 256. 1 trains here, as
        None does. With an `executor`, how many it is given at a time; None gives it all.
    executor
        What runs the trainings, any `concurrent.futures.Executor` whose workers can import npattn: a pool of processes,
        an `mpi4py.futures.MPIPoolExecutor`, a cluster's. It is used, and left open. None takes this machine.
    tell
        Called after each training with the number of those that are finished, and a line about it.

    Returns
    -------
    bool
        Whether everything is there; False if it was interrupted.

    Raises
    ------
    AblationError
        If a name is unknown, the folder holds trainings with other settings, or files that are none, another process
        trains in it, or there are not so many digits.
    TypeError, ValueError
        If an argument is of the wrong type or out of range; the message names it.
    npattn.data.DataError
        If the digits cannot be read.
    OSError
        If the results cannot be written.
    MemoryError
        If the trainings take more memory than this process may have.
    """
    folder, settings = Path(path_text("out", out)), Settings() if settings is None else settings
    if not isinstance(settings, Settings):
        raise TypeError(f"settings: expected a Settings or None, got {shown(settings)}")
    if not callable(tell):
        raise TypeError(f"tell: expected a function, got {shown(tell)}")
    rows = chosen(only)
    seeds = whole_number("seeds", seeds, most=MOST_SEEDS)
    if executor is not None and not isinstance(executor, Executor):
        raise TypeError(f"executor: expected a concurrent.futures.Executor or None, got {shown(executor)}")
    usual = len(rows) * seeds if executor else 1
    jobs = usual if jobs is None else whole_number("jobs", jobs, most=MOST_JOBS)
    digits = data.load()
    first(digits, settings)
    side_by_side = 1 if executor else min(jobs, len(rows) * seeds)  # an executor's may be on other machines
    check_batch(TrainConfig(batch_size=settings.batch_size), settings.digits, side_by_side)
    (folder / TRAININGS).mkdir(parents=True, exist_ok=True)
    with held(folder, AblationError):
        return in_held(folder, rows, seeds, settings, jobs, executor, digits, tell)


def in_held(
    folder: Path,
    rows: Sequence[Row],
    seeds: int,
    settings: Settings,
    jobs: int,
    executor: Executor | None,
    digits: data.Digits,
    tell: Callable[[int, str], None],
) -> bool:
    """`ablate` in a folder that no other process trains in: only now is what it holds of any meaning."""
    check_places(folder, (TABLE, RESULTS, FIGURE), AblationError)
    sweep(folder, (TABLE, RESULTS, FIGURE))
    sweep(folder / TRAININGS, [file_of(folder, row, seed).name for row in rows for seed in range(seeds)])
    # the seeds outside: whoever stops early has all rows with fewer seeds
    missing = [(row, seed) for seed in range(seeds) for row in rows if stored(folder, row, seed, settings) is None]

    total, done = len(rows) * seeds, len(rows) * seeds - len(missing)
    if done:
        tell(done, f"{done} of {counted(total, 'training')} {'is' if done == 1 else 'are'} there already")

    def finished(row: Row, seed: int, result: dict[str, Any]) -> None:
        nonlocal done
        store(folder, row, seed, result)
        done += 1
        tell(
            done,
            f"{done:>{len(str(total))}}/{total}  {row.name:<15} seed {seed}  {result['accuracy']:.2%}  "
            f"{result['seconds']:.0f} s",
        )

    if executor is not None:
        complete = beside(missing, settings, jobs, executor, finished)
    elif jobs == 1:
        complete = here(missing, settings, digits, finished)
    else:  # new processes, not forked ones: threads may be running here
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
            complete = beside(missing, settings, jobs, pool, finished)
    results = [stored(folder, row, seed, settings) for seed in range(seeds) for row in rows]
    write(folder, [result for result in results if result is not None], settings)
    return complete


def here(missing: Sequence[tuple[Row, int]], settings: Settings, digits: data.Digits, finished: Finished) -> bool:
    """Train one after the other. Returns False if interrupted."""
    with interruptible() as interrupted:
        for row, seed in missing:
            result = {} if interrupted.is_set() else one_training(row, seed, settings, digits)
            if not result:
                return False
            finished(row, seed, result)
    return True


def beside(
    missing: Sequence[tuple[Row, int]], settings: Settings, jobs: int, pool: Executor, finished: Finished
) -> bool:
    """Let the pool train them, so many at a time. Returns False if interrupted.

    Each is kept as soon as it is finished, those that are done when another one fails too.
    """
    waiting = list(missing)[::-1]
    running: dict[Future[dict[str, Any]], tuple[Row, int]] = {}
    failed: BaseException | None = None
    with interruptible() as interrupted:
        while running or (waiting and not interrupted.is_set() and not failed):
            while waiting and len(running) < jobs and not interrupted.is_set() and not failed:
                row, seed = waiting.pop()
                try:
                    running[pool.submit(in_a_process, row, seed, settings)] = (row, seed)
                except (BrokenExecutor, RuntimeError) as refused:  # it has lost its workers, or was shut down
                    failed = refused
            if interrupted.is_set() or failed:
                for future in [future for future in running if future.cancel()]:
                    del running[future]
            for future in wait(running, timeout=0.5, return_when=FIRST_COMPLETED).done:
                row, seed = running.pop(future)
                error = CancelledError() if future.cancelled() else future.exception()
                if isinstance(error, KeyboardInterrupt) or (error is None and not future.result()):
                    interrupted.set()  # Ctrl-C has reached a worker
                elif error is None:
                    finished(row, seed, future.result())
                else:
                    failed = failed or error
        if failed is None:
            return not interrupted.is_set()
    if isinstance(failed, BrokenExecutor):
        if interrupted.is_set():  # Ctrl-C goes to all processes, and this one had not begun
            return False
        raise AblationError("a training's process was ended from outside: is there too little memory?") from None
    raise failed
