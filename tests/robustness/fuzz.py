"""What can a hostile file do? `python -m tests.robustness.fuzz --inputs 1000000` asks a million times.

Every input is made from a seed: a valid one with some bytes changed, cut or doubled, or one built of parts that lie. A
parser may take it or refuse it with one of its documented errors. Everything else is a finding, and ends the command
with status 1: another exception, a warning, more than five seconds, more memory than the bound, an unpickled object, a
process, a connection, a file opened for writing, or a result that contradicts the input. The parsers are in
tests/robustness/fuzz_targets.py and fuzz_doors.py: bytes of every kind of file, what is no file at all, dicts within
dicts, settings, and streams that fail.

`--atheris NAME` lets atheris choose the inputs of one parser by the lines of code that they reach.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gzip
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import tracemalloc
import warnings
import zipfile
from pathlib import Path
from types import FunctionType
from typing import Any

from npattn import checkpoint, data, training
from tests.robustness.fuzz_targets import TARGETS, Target

SECONDS = 5.0  # of the processor, that an input may take
BLOCK = 1000  # inputs from one seed of Python's generator
MEMORY = 640 << 20  # bytes of address space beyond what the process has at the start
TRACED = 256  # one input in so many is measured exactly, and may take no more than
ALLOWED = 2 << 20  # bytes, and forty times its own length


class Hang(BaseException):
    """An input took longer than `SECONDS`."""


class Forbidden(BaseException):
    """An input made the parser do what no parser may."""


watching = False


def watch(event: str, arguments: Any) -> None:
    """An audit hook: within a parser, no unpickling, processes, connections, or files opened for writing."""
    if watching and (
        event.startswith(("pickle.", "subprocess.", "os.", "socket.", "shutil.", "ctypes.dlopen"))
        or (event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"))
    ):
        raise Forbidden(f"{event} {arguments!r:.200}")


def expired(number: int, frame: Any) -> None:
    raise Hang(f"more than {SECONDS:g} seconds of the processor, or {20 * SECONDS:g} of the clock")


def ask(target: Target, given: Any, traced: bool = False) -> str:
    """Give one input to a parser. Returns "taken" or "refused"; everything else is raised."""
    global watching
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, 20 * SECONDS)  # of the clock: other processes want the processor too
    watching = True
    if traced:
        tracemalloc.start()
    try:
        target.parse(given)
        answer = "taken"
    except target.errors as error:
        answer = "refused"
        if not str(error):
            raise AssertionError(f"{type(error).__name__} without a message") from error
    finally:
        watching = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        peak = tracemalloc.get_traced_memory()[1] if traced else 0
        if traced:
            tracemalloc.stop()
    allowed = target.memory + ALLOWED + 40 * (len(given) if isinstance(given, bytes) else 0)
    if peak > allowed:
        raise MemoryError(f"{peak:,} bytes, {allowed:,} allowed")
    return answer


def guard() -> None:
    """Set this process's bounds: memory, time, no warnings, and the audit hook."""
    import resource

    faulthandler.enable()
    warnings.simplefilter("error")
    signal.signal(signal.SIGALRM, expired)
    signal.signal(signal.SIGPROF, expired)
    sys.addaudithook(watch)
    for target in TARGETS:  # import and allocate once what every input needs
        rng = random.Random(0)
        for _ in range(20):
            with contextlib.suppress(Exception, Forbidden, Hang):  # what is found here will be found again
                ask(target, target.make(rng))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))


def fuzz(target: Target, inputs: int, seed: int) -> bool:
    """Ask one parser `inputs` times and print the counts. Returns whether nothing was found."""
    counts = {"taken": 0, "refused": 0}
    began = time.monotonic()
    for i in range(inputs):
        if i % BLOCK == 0:
            rng = random.Random(f"{target.name} {seed} {i}")
        given = target.make(rng)
        try:
            counts[ask(target, given, traced=i % TRACED == 0)] += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            traceback.print_exc()
            print(f"{target.name}: FOUND {type(error).__name__} with input {i} of seed {seed}: {given!r:.2000}")
            return False
    seconds = time.monotonic() - began
    print(
        f"{target.name:<12} {inputs:>9,} inputs  {counts['taken']:>9,} taken  {counts['refused']:>9,} refused  "
        f"{seconds:6.1f} s",
        flush=True,
    )
    return True


def covered(target: Target, inputs: int, seed: int) -> int:
    """The same with inputs that atheris chooses. Returns its exit status, 0 if nothing was found."""
    import atheris  # type: ignore[import-not-found]

    def one(given: bytes) -> None:
        ask(target, given)

    for module in (checkpoint, data, training, zipfile, gzip):
        for thing in list(vars(module).values()):
            for function in [*vars(thing).values()] if isinstance(thing, type) else [thing]:
                if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                    atheris.instrument_func(function)
    with tempfile.TemporaryDirectory() as corpus:
        for i in range(300):
            (Path(corpus) / str(i)).write_bytes(target.make(random.Random(i)))
        pid = os.fork()  # atheris ends its process, without tidying up
        if pid == 0:
            atheris.Setup([sys.argv[0], f"-runs={inputs}", f"-seed={seed + 1}", "-max_len=4096", corpus], one)
            atheris.Fuzz()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.robustness.fuzz", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--inputs", type=int, default=1_000_000, metavar="N", help="how many, of all parsers (1000000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all inputs (0)")
    parser.add_argument("--only", choices=[target.name for target in TARGETS], help="one parser, with all the inputs")
    parser.add_argument(
        "--atheris",
        choices=[target.name for target in TARGETS if target.bytes],
        help="one parser that reads bytes, by coverage; needs atheris",
    )
    arguments = parser.parse_args()
    guard()
    if arguments.atheris:
        return covered(next(t for t in TARGETS if t.name == arguments.atheris), arguments.inputs, arguments.seed)
    chosen = [target for target in TARGETS if arguments.only in (None, target.name)]
    shares = sum(target.share for target in chosen)
    counts = [-(-arguments.inputs * target.share // shares) for target in chosen]
    good = [fuzz(target, count, arguments.seed) for target, count in zip(chosen, counts, strict=True)]
    wrong = good.count(False)  # all are asked, whatever the first finds
    print(f"{sum(counts):,} inputs in one piece, seed {arguments.seed}: {wrong or 'no'} finding{'s' * (wrong > 1)}")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
