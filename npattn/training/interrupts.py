"""Ctrl-C that waits for the end of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_listening: list[threading.Event] = []  # of the blocks that the main thread is in


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Within the block the first Ctrl-C (or SIGTERM) sets the event instead of raising; the second one raises.

    A block around it hears the first one too: a run that is at its end must not swallow what was meant for all.
    """
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted  # only the main thread hears signals
        return

    def note(number: int, frame: Any) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        for event in _listening:
            event.set()

    _listening.append(interrupted)
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _listening.remove(interrupted)
