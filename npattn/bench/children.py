"""A task measured under several allocators, each in a process of its own (child.py), one after another.

    this process                          a child
      task, on its standard input     →     compares, then times all sides in turns
      shown, if there is a terminal   ←     what it does just now
      results, merged (best.py)       ←     its result

Ctrl-C is heard here, and ends the child.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from npattn.bench.allocators import Allocator, environment
from npattn.bench.best import merged
from npattn.bench.measure import Tell
from npattn.bench.runs import Task
from npattn.bench.sides import BenchError

COMMAND = [sys.executable, "-P", "-m", "npattn.bench.child"]
UNTIMED = ["textbook"]  # as it comes: it takes long, and nobody asks


class ChildEnded(BenchError):
    """A child has failed. The message says under which allocator and how; `status` is its exit status."""

    def __init__(self, allocator: Allocator, how: str, status: int) -> None:
        super().__init__(f"allocator {allocator.name}: {how}")
        self.status = status


def in_children(task: Task, allocators: list[Allocator], tell: Tell) -> dict[str, Any]:
    """What `runs.measured` returns for the task, at best over these allocators, with each one's own beside it.

    Raises
    ------
    ChildEnded
        If a child tells an error, or dies.
    """
    keeps = any(allocator.keeps for allocator in allocators)
    results = {}
    for allocator in allocators:
        settings = {**task["settings"], "peaks": not allocator.keeps}
        if keeps and not allocator.keeps:
            settings["untimed"] = UNTIMED
        one: Task = {**task, "settings": settings}
        results[allocator.name] = in_child(one, allocator, tell)
    return merged(results, {allocator.name for allocator in allocators if allocator.keeps})


def surroundings(allocator: Allocator, threads: int) -> dict[str, str]:
    """The environment of a child: its allocator's, our modules, and JAX on as many threads as the others have."""
    places = os.pathsep.join(place or os.getcwd() for place in sys.path)
    jax = {"NPROC": str(threads), "JAX_PLATFORMS": "cpu"}
    return environment(allocator) | jax | {"PYTHONPATH": places}


def in_child(task: Task, allocator: Allocator, tell: Tell) -> dict[str, Any]:
    """What a child returns for the task."""
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as pipe:
        try:
            process = subprocess.Popen(
                [*COMMAND, str(writing)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=surroundings(allocator, task["threads"]),
                pass_fds=(writing,),
                start_new_session=True,  # the terminal's Ctrl-C is for this process alone
                text=True,
            )
        finally:
            os.close(writing)
        try:
            last = messages(process, task, pipe, lambda doing: tell(f"{allocator.name}: {doing}"))
            status = process.wait()
        except BaseException:
            end(process)
            raise
    if "result" in last and status == 0:
        result: dict[str, Any] = last["result"]
        return result
    if status < 0:
        raise ChildEnded(allocator, f"was killed by signal {-status} (is there too little memory?)", 128 - status)
    how = last.get("error") or f"ended with status {status}; its error is on standard error"
    raise ChildEnded(allocator, how, status or 1)


def messages(process: subprocess.Popen[str], task: Task, pipe: Iterable[str], tell: Tell) -> dict[str, Any]:
    """Give the child its task, tell what it does, and return what it says last: its result, its error, or nothing."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:  # broken: it is dead, and its status says how
        json.dump(task, process.stdin)
    last: dict[str, Any] = {}
    for line in pipe:
        last = json.loads(line)
        if "doing" in last:
            tell(last["doing"])
        else:
            break  # not the pipe's end: what it started may hold that open
    return last


def end(process: subprocess.Popen[str]) -> None:
    """End the child, and wait until it is gone."""
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
