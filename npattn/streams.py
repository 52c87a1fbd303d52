"""Where text is printed to: in the spelling that the encoding has, and without ending the program that prints.

A console of Windows knows no "─", a pipe may have lost its reader, a disk may be full, and a program without a console
(pythonw, a service) has no streams at all. None of these is a reason for a training of an hour to end.

Plain(stream, name)    a stream around another one; the command puts one around sys.stdout and one around sys.stderr
say(text)              a line by a function of the library that shows how it gets on
width()                how wide a line may be
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import sys
from typing import Any

SPELLED = {
    "×": "x", "·": "*", "÷": "/", "−": "-", "±": "+-", "½": "1/2", "²": "2", "–": "-", "—": "-", "─": "-", "…": "...",
    "³": "3", "⁴": "4", "′": "'",
    "→": "->", "←": "<-", "≤": "<=", "≥": ">=", "√": "sqrt ", "∞": "inf", "Σ": "sum ", "∂": "d", "ᵀ": ".T", "∗": "*",
    "‖": "|", "σ": "sigma", "μ": "mu", "ρ": "rho", "γ": "gamma", "β": "beta", "Δ": "Delta",
    "α": "alpha", "ε": "eps", "η": "eta", "θ": "theta", "λ": "lambda", "ν": "nu", "π": "pi", "\u0302": "^", "✗": "x",
}  # fmt: skip
"""How what we print is spelled where the encoding has no such letter."""


class LostOutput(OSError):
    """What was printed did not arrive, and nothing else was to come of the command. The message says why."""


class Plain(io.TextIOBase):
    """A text stream around another one, or around none.

    What the encoding lacks is written as in `SPELLED`, anything else that it lacks (a file's name) as Python escapes
    it. A failure is kept in `lost` and the program goes on; where the text is `needed` it is raised.

    Parameters
    ----------
    stream
        sys.stdout, say. None, where a program has none, loses everything.
    name
        What a message calls it.
    needed
        Whether there is nothing to go on for once the text is lost.
    """

    def __init__(self, stream: Any, name: str, needed: bool = False) -> None:
        self.stream, self.name, self.needed = stream, name, needed
        self.lost: Exception | None = None

    def write(self, text: str) -> int:
        if self.stream is None:
            self._failed(OSError(errno.EBADF, "is closed"))
            return len(text)
        try:
            self._attempt(text)
        except (OSError, ValueError) as error:  # a ValueError: the file object is closed
            self._failed(error)
        return len(text)

    def _attempt(self, text: str) -> None:
        try:
            self.stream.write(spelled(text, self.encoding, self.errors))
        except UnicodeEncodeError as error:  # a stream that does not tell its encoding
            self.stream.write(spelled(text, error.encoding))

    def flush(self) -> None:
        if self.stream is None or not hasattr(self.stream, "flush"):
            return
        try:
            self.stream.flush()
        except (OSError, ValueError) as error:
            self._failed(error)

    def close(self) -> None:
        """Called when nobody holds it any more, and there is nobody who could hear of a failure."""
        with contextlib.suppress(LostOutput):
            super().close()

    def _failed(self, error: Exception) -> None:
        self.lost = self.lost or error
        if self.needed:
            raise LostOutput(self.reason()) from None

    def reason(self) -> str:
        """What went wrong, in words; nothing where a reader had enough (`| head`), which is no fault."""
        if self.lost is None or isinstance(self.lost, BrokenPipeError):
            return ""
        reason = getattr(self.lost, "strerror", None) or str(self.lost) or type(self.lost).__name__
        return f"{self.name}: {reason}"

    def finish(self) -> None:
        """Write what is left. What cannot be written is dropped, so that Python does not stumble over it as it ends."""
        with contextlib.suppress(LostOutput):
            self.flush()
        if self.lost is not None and self.stream in (sys.__stdout__, sys.__stderr__) and self.stream is not None:
            with contextlib.suppress(OSError, ValueError):  # it has no number, or is closed: nothing is left to write
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.stream.fileno())
                os.close(nowhere)

    # What others ask of a stream

    @property
    def encoding(self) -> Any:  # type: ignore[override]
        return getattr(self.stream, "encoding", None)

    @property
    def errors(self) -> Any:  # type: ignore[override]
        return getattr(self.stream, "errors", None)

    @property
    def buffer(self) -> Any:
        return self.stream.buffer

    def fileno(self) -> int:
        if not hasattr(self.stream, "fileno"):
            raise io.UnsupportedOperation("fileno")
        return int(self.stream.fileno())

    def isatty(self) -> bool:
        return is_terminal(self.stream)

    def writable(self) -> bool:
        return True


def is_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal's: not where there is none, or it is closed."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError, OSError):
        return False


def width(most: int = 80) -> int:
    """How wide a line may be: that of a terminal, and nowhere more than `most`. In a file or a pipe it is `most`."""
    if not is_terminal(sys.stdout):
        return most
    return max(1, min(most, shutil.get_terminal_size((most, 24)).columns or most))


def plain(stream: Any, name: str) -> Plain:
    """The stream itself if it is one of these, else one around it."""
    return stream if isinstance(stream, Plain) else Plain(stream, name)


def say(text: str) -> None:
    """Print a line on standard output, if that can be."""
    out = plain(sys.stdout, "standard output")
    out.write(text + "\n")
    out.flush()


def spelled(text: str, encoding: str | None, errors: str | None = None) -> str:
    """`text` in letters that the encoding has; None has all."""
    if encoding is None or text.isascii():
        return text
    how = errors if errors in ("surrogateescape", "surrogatepass") else "strict"
    if has(text, encoding, how):
        return text
    done: list[str] = []
    for char in text:
        new = letter(char, encoding, how)
        for _ in new[1:]:  # so that what stands in columns stays there
            if done[-2:] == [" ", " "]:
                done.pop()
        done.append(new)
    return "".join(done)


def letter(char: str, encoding: str, how: str) -> str:
    """A character as the encoding can have it."""
    if char.isascii() or has(char, encoding, how):
        return char
    return SPELLED.get(char) or char.encode("ascii", "backslashreplace").decode()


def has(text: str, encoding: str, how: str) -> bool:
    """Whether the encoding has all of the text. One that Python does not know has to see to itself."""
    try:
        text.encode(encoding, how)
    except UnicodeEncodeError:
        return False
    except LookupError:
        return True
    return True


def keep_numbers() -> None:
    """Point the numbers 0, 1 and 2 at nothing where they are closed.

    The next files to be opened would get them, a checkpoint say, and then whatever prints would print into those.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(nowhere, True)  # for the processes that are started, too
