"""Does a training that is killed lose anything? `python -m tests.training.kill_and_resume` kills one 50 times.

Each run is a small training in a process of its own, ended by SIGKILL, which no program can notice:

    moment   at a random moment
    seen     when a file that is not yet whole (.part) is seen in its folder: in the middle of a write
    inside   by itself, before or after it syncs or renames a file

Then everything on the disk must be readable, and what was saved must not be lost: a journal, which the run writes
aside, says which steps it did and which it saved. The run is resumed, perhaps killed again, and at last left to end;
its weights, moments and history must then be those of a run that was never touched, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage  # noqa: F401  # here, so that no process needs to

import npattn
from npattn import checkpoint, data, training

MODES = ("moment", "seen", "inside")
DIGITS, BATCH, EPOCHS, SAVE_EVERY = 56, 8, 2, 2


class Lost(AssertionError):
    """Something was lost that must not be."""


def digits() -> data.Digits:
    images = data.read(data.EMBEDDED, data.SOME_TRAIN_IMAGES)[:DIGITS]
    labels = data.read(data.EMBEDDED, data.SOME_TRAIN_LABELS)[:DIGITS]
    return data.Digits(images, labels, images, labels, "embedded 10,000")


def train(out: Path, journal: Path, few: data.Digits) -> None:
    """Begin the run in `out`, or go on with it, and note every step and every save in the journal."""
    note = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(note, b"start 0\n")
    step, save = training.Run.step, checkpoint.save

    def noted_step(run: training.Run, order: np.ndarray) -> None:
        os.write(note, f"begin {run.state.epoch * run.steps + run.state.step}\n".encode())
        step(run, order)
        os.write(note, f"done {run.state.epoch * run.steps + run.state.step}\n".encode())

    def noted_save(path: Path, arrays: Any, meta: Any) -> None:
        save(path, arrays, meta)
        os.write(note, f"saved {meta['optimizer_steps']}\n".encode())

    training.Run.step, checkpoint.save = noted_step, noted_save  # type: ignore[method-assign]
    training.start.write_figures = lambda run, confusion: None
    data.load = lambda *args, **options: few
    if (out / training.CHECKPOINT).exists():
        training.train(resume=out, progress=False)
    else:
        config = training.TrainConfig(
            epochs=EPOCHS, batch_size=BATCH, save_every=SAVE_EVERY, test_every=1, out=str(out), seed=1
        )
        training.train(config, progress=False)


def start(out: Path, journal: Path, few: data.Digits, prepare: Callable[[], None] = lambda: None) -> int:
    """The process number of a run. It ends with status 0 or, with its error printed, 1."""
    pid = os.fork()
    if pid == 0:
        try:
            prepare()
            train(out, journal, few)
            os._exit(0)
        except BaseException as error:
            print(f"the run failed: {error!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(1)
    return pid


def ended(pid: int) -> int:
    """The exit status of a process, minus the signal if it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def parts(folder: Path) -> list[str]:
    """The files in it that are not yet whole."""
    try:
        return [entry.name for entry in os.scandir(folder) if entry.name.endswith(".part")]
    except FileNotFoundError:
        return []


def suicide(rng: random.Random) -> Callable[[], None]:
    """Let the process kill itself at one of the calls by which a file is written."""
    name, before, count = rng.choice(("fsync", "replace", "chmod")), rng.random() < 0.5, rng.randrange(20)

    def prepare() -> None:
        real, left = getattr(os, name), [count]

        def deadly(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0 and before:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*args, **options)
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(os, name, deadly)

    return prepare


def kill_one(mode: str, out: Path, journal: Path, few: data.Digits, rng: random.Random, longest: float) -> bool:
    """Start or resume the run and kill it. Returns False if it came to its end before."""
    if mode == "inside":
        return ended(start(out, journal, few, suicide(rng))) == -signal.SIGKILL
    left = set(parts(out))
    pid = start(out, journal, few)
    if mode == "moment":
        time.sleep(rng.uniform(0, longest))
    else:
        for _ in range(rng.randrange(8) + 1):  # the first, second, … write
            while not (new := set(parts(out)) - left) and os.waitid(os.P_PID, pid, KILLABLE) is None:
                time.sleep(1e-4)
            left |= new
        time.sleep(rng.choice((0, 0, 0.001, 0.003)))
    os.kill(pid, signal.SIGKILL)
    return ended(pid) == -signal.SIGKILL


KILLABLE = os.WEXITED | os.WNOHANG | os.WNOWAIT


def notes(journal: Path, what: str, *, last: bool = False) -> list[int]:
    """The numbers that the journal has for `what`, from all processes of a run, or from the last one only."""
    text = journal.read_text() if journal.exists() else ""
    if last:
        text = text.rpartition("start 0\n")[2]
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith(what)]


def examine(out: Path, journal: Path) -> int:
    """Check what a killed run left. Returns the steps that its checkpoint holds."""
    saved, done = max(notes(journal, "saved"), default=-1), max(notes(journal, "done"), default=0)
    holds = -1
    if (out / training.CHECKPOINT).exists():
        _, state, _, optimizer, _ = training.restored(out)
        holds = optimizer.steps
        if holds != state.epoch * -(-DIGITS // BATCH) + state.step:
            raise Lost(f"{out}: epoch {state.epoch}, step {state.step} with {holds} updates")
    if (out / training.METRICS).exists():
        json.loads((out / training.METRICS).read_text())
    if not saved <= holds <= done:
        raise Lost(f"{out}: {done} steps done, {saved} saved, but the checkpoint holds {holds}")
    if done - max(holds, 0) > SAVE_EVERY:
        raise Lost(f"{out}: {done - holds} steps since the last checkpoint")
    for path in out.iterdir() if out.exists() else ():
        if path.name not in (training.CHECKPOINT, training.METRICS) and not path.name.endswith(".part"):
            raise Lost(f"{path}: what is this?")
    return max(holds, 0)


def result(out: Path) -> tuple[dict[str, np.ndarray], Any]:
    """What a run came to: all arrays of its checkpoint, and its history without the times."""
    arrays, _ = checkpoint.load(out / training.CHECKPOINT)
    metrics = json.loads((out / training.METRICS).read_text())
    if not metrics["finished"] or parts(out):
        raise Lost(f"{out}: not finished, or not tidied up: {parts(out)}")
    return arrays, [{key: value for key, value in row.items() if key != "seconds"} for row in metrics["epochs"]]


def same(one: tuple[dict[str, np.ndarray], Any], other: tuple[dict[str, np.ndarray], Any]) -> bool:
    """Whether two results agree in every bit."""
    return (
        one[0].keys() == other[0].keys()
        and all(one[0][key].tobytes() == other[0][key].tobytes() for key in one[0])
        and one[1] == other[1]
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.training.kill_and_resume", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="how often to kill (50)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the random moments (0)")
    arguments = parser.parse_args()
    rng, few = random.Random(arguments.seed), digits()
    npattn.set_num_threads(1)  # the steps are small
    kills: Counter[str] = Counter()
    runs = lost = left = early = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.monotonic()
        if ended(start(folder / "whole", folder / "whole.journal", few)):
            return 1
        longest = time.monotonic() - began
        whole = result(folder / "whole")
        while kills.total() < arguments.kills:
            runs += 1
            out, journal = folder / f"run{runs}", folder / f"run{runs}.journal"
            for _ in range(min(rng.randint(1, 3), arguments.kills - kills.total())):
                mode = MODES[kills.total() % len(MODES)]
                if not kill_one(mode, out, journal, few, rng, longest):
                    early += 1
                    break
                kills[mode] += 1
                left += bool(parts(out))
                lost += max(0, max(notes(journal, "done", last=True), default=0) - examine(out, journal))
            holds = examine(out, journal)
            if status := ended(start(out, journal, few)):
                raise Lost(f"{out}: does not go on: exit status {status}")
            begun = notes(journal, "begin", last=True)
            if begun and begun[0] != holds:
                raise Lost(f"{out}: goes on at step {begun[0]} instead of {holds}")
            if not same(result(out), whole):
                raise Lost(f"{out}: ends in other bits than the run that was never touched")
    total = kills.total()
    print(
        f"{total} kills of {runs} runs ({', '.join(f'{kills[mode]} {mode}' for mode in MODES)}; seed {arguments.seed})"
    )
    print(f"{left} of them left a half-written file behind; {early} runs came to their end before the kill")
    print(
        f"{lost} steps done again in all, never more than the {SAVE_EVERY} between two checkpoints; no unreadable file"
    )
    print(f"{runs} of {runs} runs ended in the same bits as the run that was never touched")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Lost as error:
        print(error, file=sys.stderr)
        sys.exit(1)
