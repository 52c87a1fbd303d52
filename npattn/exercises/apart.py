"""An answer judged in a process of its own: it may loop for ever, or end its process, and there is still a verdict.

The process is asked where the answer is when its time is up, or when somebody presses Ctrl-C.
"""

from __future__ import annotations

import contextlib
import linecache
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from types import FrameType

from npattn.exercises.exercise import Exercise, exercise
from npattn.exercises.judge import judge, unable
from npattn.exercises.verdict import Verdict

GRACE = 2.0
"""Seconds for a process to say where it is, or to end."""


def judge_apart(chosen: Exercise, source: str, file: str, limit: float) -> Verdict:
    """As `judge`, but in another process, which is ended after `limit` seconds.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C; its text says where the answer was.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=judging, args=(there, chosen.name, source, file), daemon=True)
    with deaf():
        process.start()
    there.close()
    began = time.monotonic()
    try:
        try:
            if here.poll(limit):
                return received(here, chosen, process)
        except KeyboardInterrupt:
            told = f"interrupted after {time.monotonic() - began:.1f} s{asked(here)}"
            raise KeyboardInterrupt(told) from None
        return unable(chosen, f"no verdict after {limit:g} s{asked(here)}; --limit sets another time")
    finally:
        process.kill()
        process.join()
        here.close()


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Ctrl-C does nothing within; a process that starts here keeps to that, and is ended by the one that started it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def received(here: Connection, chosen: Exercise, process: multiprocessing.process.BaseProcess) -> Verdict:
    """The verdict, or that the process has ended without one."""
    try:
        verdict = here.recv()
    except EOFError:
        process.join(GRACE)
        return unable(chosen, f"it ended its process, with status {process.exitcode}, before there was a verdict")
    assert isinstance(verdict, Verdict)
    return verdict


def asked(here: Connection) -> str:
    """Where the answer is, in words; nothing if it does not say, in a call that never comes back, say."""
    with contextlib.suppress(OSError, EOFError):
        here.send("where?")
        if here.poll(GRACE):
            where = here.recv()
            return where if isinstance(where, str) else ""
    return ""


def judging(there: Connection, name: str, source: str, file: str) -> None:
    """In the other process: judge, and send the verdict; or say where it is when that is asked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where that is not inherited
    main = threading.get_ident()

    def watch() -> None:
        with contextlib.suppress(OSError, EOFError):
            there.recv()
            there.send(line_of(sys._current_frames().get(main), file))

    threading.Thread(target=watch, daemon=True).start()
    verdict = judge(exercise(name), source, file)
    with contextlib.suppress(OSError):  # who asked may have gone
        there.send(verdict)
    sys.stdout.flush()
    os._exit(0)  # whatever threads and exit handlers the answer has left


def line_of(frame: FrameType | None, file: str) -> str:
    """The line of the answer that runs."""
    while frame is not None and frame.f_code.co_filename != file:
        frame = frame.f_back
    if frame is None:
        return ""
    return f", at line {frame.f_lineno}: {linecache.getline(file, frame.f_lineno).strip().removesuffix(':')}"
