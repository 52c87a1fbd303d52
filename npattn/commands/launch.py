"""The command's ranks: how `npattn train` starts them on one machine, and how each behaves, whoever has started it.

    this process            mpiexec             rank 0, rank 1, …
      waits              →    starts them    →    run the command again, and print where this process does
      passes Ctrl-C on   →    passes it on   →    save after the step (training/interrupts.py)
      tells, in a line   ←    ends with      ←    one that was killed, and all with it
      is killed          →                   →    end: a pipe that only this process held is closed

mpiexec is that of the package `mpich`, which `pip install "npattn[mpi]"` brings. On more than one machine, or with
another MPI, one calls mpiexec oneself.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from npattn.training.mpiexec import in_ranks, surroundings
from npattn.training.ranks import Several, place, started, world
from npattn.training.settings import TrainingError

STATUSES = (0, 1, 2, 130)  # of the command itself; another one is that of a rank that was killed
LIFE = "NPATTN_LIFE"  # the number of the pipe that ends with the process that has started the ranks
CALMED = ("Sending Ctrl-C", "Press Ctrl-C")  # what mpiexec says to Ctrl-C

RANK = """
import os, sys
out, err, *command = sys.argv[1:]
for number, name in enumerate((os.devnull, out, err)):
    os.dup2(os.open(name, os.O_RDONLY) if number == 0 else int(name), number)
os.execv(command[0], command)
"""
"""A rank's first steps: from mpiexec's pipes back to the streams of the command."""


def launched(count: int, argv: Sequence[str]) -> int:
    """Run `npattn` with these arguments in so many ranks, and wait for them. Returns the exit status."""
    life, ours = os.pipe()
    kept = [os.dup(number) for number in (1, 2)]
    start = [sys.executable, "-I", "-S", "-c", RANK, *map(str, kept)]
    command = [sys.executable, "-P", "-m", "npattn", *argv]
    interrupted = 0
    process: subprocess.Popen[str] | None = None

    def pass_on(number: int, frame: Any) -> None:
        nonlocal interrupted
        interrupted += 1
        if process is not None:
            process.send_signal(signal.SIGINT)

    heard = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, pass_on) for number in heard if in_main_thread()}
    try:
        process = subprocess.Popen(
            in_ranks(count, [*start, *command]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # its report of a rank that has died, in ten lines
            stderr=subprocess.PIPE,
            env={**surroundings(), LIFE: str(life)},
            pass_fds=(life, *kept),
            start_new_session=True,  # the terminal's Ctrl-C is for this process, which passes it on
            encoding="utf-8",
            errors="replace",
        )
        said = process.communicate()[1]
    finally:
        for number in (life, ours, *kept):
            os.close(number)
        for number, handler in before.items():
            signal.signal(number, handler)
    return told(process.returncode, said, interrupted)


def in_main_thread() -> bool:
    """Whether signals may be listened to here."""
    return threading.current_thread() is threading.main_thread()


def told(status: int, said: str, interrupted: int) -> int:
    """The command's exit status for mpiexec's, after a line that says what has happened if no rank can have said it."""
    # after a second Ctrl-C mpiexec may say 0, whatever has become of the ranks
    if status != 130 and (interrupted > 1 or (interrupted and status in (signal.SIGINT, signal.SIGTERM))):
        print("npattn: interrupted", file=sys.stderr)
        return 130
    if status in STATUSES and not (status == 1 and said.strip()):
        return status
    if 0 < status < signal.NSIG:
        why = f"a process of the training was killed by signal {status} (is there too little memory?), and so all ended"
        print(f"npattn: {why}; --resume goes on from its last checkpoint", file=sys.stderr)
    else:
        lines = [line for line in said.splitlines() if not any(words in line for words in CALMED)]
        print(f"npattn: mpiexec ended with status {status}: {' '.join(lines)[:500]}", file=sys.stderr)
    return 1


def end_with_launcher() -> None:
    """In a rank: end when the process that has started all of them ends, even if it is killed and cannot say so."""
    number = os.environ.pop(LIFE, "")
    if number.isdecimal():
        threading.Thread(target=wait_for_end, args=(int(number),), daemon=True).start()


def wait_for_end(pipe: int) -> None:
    """Wait until nobody holds the other end of the pipe, then end this process, whatever it is doing."""
    os.read(pipe, 1)
    os._exit(1)


def as_rank(act: Callable[[Any, Any], int]) -> int:
    """Run the command as one of several ranks, `act(standard output, standard error)`. Returns its exit status.

    Rank 0 speaks for all. One that fails by itself, the others being well, says so and ends all.
    """
    end_with_launcher()
    rank, said = place(), io.StringIO()
    streams = (sys.stdout, sys.stderr) if rank == 0 else (io.StringIO(), said)
    error: BaseException | None = None
    try:
        status = act(*streams)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException as unexpected:
        status, error = 1, unexpected
    if status:
        try:
            ranks = world()
        except TrainingError:
            return status  # each says that there is no MPI
        if isinstance(ranks, Several) and not ranks.all_failed():
            if error is not None:
                traceback.print_exception(error, file=sys.__stderr__)
            print(
                f"npattn: rank {rank} of {started()} failed: {said.getvalue()}".rstrip(),
                file=sys.__stderr__,
                flush=True,
            )
            ranks.abort(status)
    if error is not None:
        raise error
    return status
