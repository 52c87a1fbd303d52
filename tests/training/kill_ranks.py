"""Does a training in ranks that are killed lose anything? `python -m tests.training.kill_ranks` kills one 30 times.

Each run is a small training that mpiexec has started, in so many ranks. SIGKILL, which no program can notice, goes to

    first      rank 0, which writes
    last       the last rank, which only works
    all        every rank
    mpiexec    mpiexec itself
    inside     rank 0 by itself, before or after it syncs or renames a file

at a random moment. All the others must then end within seconds, and everything on the disk must be readable and hold
what was saved, as kill_and_resume.py asks of one process. The run is resumed, in as many ranks, and must end in the
bits of a run that was never touched.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from npattn.training.mpiexec import in_ranks, surroundings
from npattn.training.ranks import place
from tests.training.kill_and_resume import Lost, digits, examine, notes, parts, result, same, suicide, train

WHOM = ("first", "last", "all", "mpiexec", "inside")
PATIENCE = 10  # seconds in which all are to be gone
ROOT = Path(__file__).parents[2]


def start(count: int, out: Path, deadly: str = "") -> subprocess.Popen[str]:
    """A run in so many ranks, that begins or goes on with what stands in `out`."""
    return subprocess.Popen(
        in_ranks(count, [sys.executable, "-m", "tests.training.kill_ranks", "--rank", str(out), deadly]),
        env={**surroundings(), "NPATTN_NUM_THREADS": "1"},
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def journal_of(out: Path) -> Path:
    return out.with_suffix(".journal")


def rank(out: Path, deadly: str) -> None:
    """What each rank does: it says who it is, and trains; rank 0 keeps the journal."""
    out.with_suffix(f".pid{place()}").write_text(str(os.getpid()))
    if deadly and place() == 0:
        suicide(random.Random(deadly))()
    train(out, journal_of(out) if place() == 0 else Path(os.devnull), digits())


def pids(out: Path, count: int) -> list[int]:
    """The ranks' process numbers, once all have one."""
    found = []
    while len(found) < count:
        files = [out.with_suffix(f".pid{i}") for i in range(count)]
        found = [int(text) for file in files if file.exists() and (text := file.read_text())]
        time.sleep(0.005)
    for file in files:
        file.unlink()
    return found


def gone(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def kill_one(whom: str, count: int, out: Path, rng: random.Random, longest: float) -> tuple[bool, float]:
    """Start or resume the run and kill it. Returns whether that was before its end, and how long the others lived."""
    process = start(count, out, str(rng.random()) if whom == "inside" else "")
    ranks = pids(out, count)
    if whom == "inside":
        process.wait(60)
        began = time.monotonic()
    else:
        time.sleep(rng.uniform(0, longest))
        chosen = {"first": ranks[:1], "last": ranks[-1:], "all": ranks, "mpiexec": [process.pid]}[whom]
        began = time.monotonic()
        for pid in chosen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    while not all(map(gone, ranks)):
        if time.monotonic() > began + PATIENCE:
            raise Lost(f"{out}: killed {whom}, and {PATIENCE} seconds later a rank lives on")
        time.sleep(0.01)
    lived = time.monotonic() - began
    process.communicate(timeout=PATIENCE)
    return process.returncode != 0, lived


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.training.kill_ranks", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--kills", type=int, default=30, metavar="N", help="how often to kill (30)")
    parser.add_argument("--ranks", type=int, default=2, metavar="N", help="in how many ranks (2)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the random moments (0)")
    parser.add_argument("--rank", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank:
        rank(Path(arguments.rank[0]), arguments.rank[1])
        return 0
    rng, count = random.Random(arguments.seed), arguments.ranks
    kills: Counter[str] = Counter()
    runs = early = left = again = 0
    slowest = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = start(count, folder / "whole")
        pids(folder / "whole", count)
        began = time.monotonic()
        said = process.communicate()[0]
        if process.returncode:
            raise Lost(said)
        longest = time.monotonic() - began
        whole = result(folder / "whole")
        while kills.total() < arguments.kills:
            runs += 1
            out = folder / f"run{runs}"
            for _ in range(min(rng.randint(1, 3), arguments.kills - kills.total())):
                whom = WHOM[kills.total() % len(WHOM)]
                killed, lived = kill_one(whom, count, out, rng, longest)
                if not killed:
                    early += 1
                    break
                kills[whom] += 1
                slowest = max(slowest, lived)
                left += bool(parts(out))
                again += max(
                    0, max(notes(journal_of(out), "done", last=True), default=0) - examine(out, journal_of(out))
                )
            holds = examine(out, journal_of(out))
            process = start(count, out)
            said = process.communicate()[0]
            if process.returncode:
                raise Lost(f"{out}: does not go on: {said}")
            begun = notes(journal_of(out), "begin", last=True)
            if begun and begun[0] != holds:
                raise Lost(f"{out}: goes on at step {begun[0]} instead of {holds}")
            for file in folder.glob("*.pid*"):
                file.unlink()
            if not same(result(out), whole):
                raise Lost(f"{out}: ends in other bits than the run that was never touched")
    each = ", ".join(f"{kills[whom]} {whom}" for whom in WHOM)
    print(f"{kills.total()} kills of {runs} runs in {count} ranks ({each}; seed {arguments.seed})")
    print(
        f"the other ranks were gone after {slowest:.1f} seconds at most; {early} runs came to their end before the kill"
    )
    print(f"{left} kills left a half-written file behind; {again} steps done again in all; no unreadable file")
    print(f"{runs} of {runs} runs ended in the same bits as the run that was never touched")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Lost as error:
        print(error, file=sys.stderr)
        sys.exit(1)
