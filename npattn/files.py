"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` at the end of the block, whole and on the disk, or not at all.

    It is written under a temporary name in the same folder, synced, and renamed. After an exception the temporary file
    is removed and `path` is as it was. A process that is killed leaves the temporary file: see `sweep`.

    Raises
    ------
    OSError
        If it cannot be written: a full disk, a missing folder, no permission. Its `filename` is `path`.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp makes it private; the file in its place would not have been
        os.replace(name, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(name)
        if isinstance(error, OSError) and error.errno is not None:  # whose own name, if any, is the temporary one
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    with contextlib.suppress(OSError, AttributeError):  # the new name too, where a folder can be synced
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


LEFT = re.compile(r"\..+\.[a-z0-9_]{8}\.part")  # what `atomic` calls a file that is not yet whole


def sweep(folder: Path, older: float = 0.0) -> None:
    """Remove what processes that were killed while they wrote left in `folder`: `atomic`'s temporary files.

    Parameters
    ----------
    folder
        Where to look; not in folders within it.
    older
        Spare those changed in the last so many seconds: another process may be at work on them.
    """
    with contextlib.suppress(OSError):  # what cannot be looked at or removed does no harm
        for entry in list(os.scandir(folder)):
            with contextlib.suppress(OSError):
                if LEFT.fullmatch(entry.name) and time.time() - entry.stat().st_mtime >= older:
                    os.unlink(entry.path)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Within the block no other process gets into `alone(folder)`. The lock ends with the process, however that ends.

    Where the system or the file system has no such locks, nothing is locked.

    Raises
    ------
    BlockingIOError
        If another process is within.
    """
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"{folder}: in use by another process") from None
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)
