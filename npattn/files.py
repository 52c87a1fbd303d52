"""One door to the disk: what is written is there whole or not at all, and what is read is a file, and not too large.

Every file that the package reads comes through `opened` or `read_bytes`, and every zip through `archive`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

DIRECTORY = 2**21  # bytes that the list of a zip's entries may have: some 20,000 of them
AT_ONCE = 2**20  # bytes that are asked for at a time, so that a file's claim costs nothing


# Reading


class FileRefused(OSError):
    """What was to be read is no regular file, or too large a one.

    As with every OSError, `filename` is the file and `strerror` says what is wrong, without its name.
    """

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


def kind(mode: int) -> str:
    """What a file is that is none, in words, by its mode."""
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


class Steady(io.FileIO):
    """A file that was opened not to wait. Some of /proc have nothing to read yet: an error, where FileIO gives None."""

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer)
        if count is None:
            why = "expected a regular file, got one that keeps its reader waiting"
            raise FileRefused(errno.EAGAIN, why, self.name)
        return count


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], most: int) -> Iterator[BinaryIO]:
    """Open a file to read its bytes: a regular one, of at most so many.

    A directory, a FIFO, a device or a socket is refused at once, and never waited for; a link is followed. Read it in
    parts: it may have grown since its size was looked at.

    Parameters
    ----------
    path
        The file.
    most
        How many bytes it may have.

    Raises
    ------
    FileRefused
        If it is no regular file, or larger.
    OSError
        If it is missing or may not be read.
    """
    path = os.fspath(path)
    if "\0" in path:
        raise FileRefused(errno.EINVAL, "expected a path, got one with a null character in it", path)
    look(os.stat(path), path, most)  # before it is opened: to open a device may do something
    flags = (getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY"))  # not all are on all systems
    descriptor = os.open(path, os.O_RDONLY | sum(flags))
    try:
        look(os.fstat(descriptor), path, most)  # it may have become another since
        steady = Steady(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    steady.name = path
    with io.BufferedReader(steady) as file:
        yield file


def look(found: os.stat_result, path: str, most: int) -> None:
    """Raise FileRefused if it is no regular file, or larger than `most` bytes."""
    if not stat.S_ISREG(found.st_mode):
        number = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
        raise FileRefused(number, f"expected a regular file, got {kind(found.st_mode)}", path)
    if found.st_size > most:
        raise FileRefused(errno.EFBIG, f"expected at most {most:,} bytes, got {found.st_size:,}", path)


def read_bytes(path: str | os.PathLike[str], most: int) -> bytes:
    """The bytes of a regular file that has at most so many, also while it grows. Raises as `opened`."""
    with opened(path, most) as file:
        whole = bytearray()
        while part := file.read(min(AT_ONCE, most + 1 - len(whole))):
            whole += part
            if len(whole) > most:
                raise FileRefused(errno.EFBIG, f"expected at most {most:,} bytes, got more", os.fspath(path))
    return bytes(whole)


def read_text(path: str | os.PathLike[str], most: int) -> str:
    """The same as text, UTF-8. Raises UnicodeDecodeError, which is a ValueError, if it is none."""
    return read_bytes(path, most).decode()


class Sparing:
    """An open file that gives at most `most` bytes at a time, and refuses to if it is asked for more by number."""

    def __init__(self, file: BinaryIO, most: int | None) -> None:
        self.file, self.most = file, most

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET and offset < 0:
            raise zipfile.BadZipFile("an entry that begins before the file does")
        return self.file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        if self.most is not None and size > self.most:
            raise zipfile.BadZipFile(f"a directory of {size:,} bytes; expected at most {self.most:,}")
        return self.file.read(self.most if self.most is not None and size < 0 else size)


class Entries(zipfile.ZipFile):
    """A zip of which no two entries at one place are read. Other overlaps zipfile refuses itself; of these it warns."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        places = Counter(member.header_offset for member in self.infolist())
        self.shared = {place for place, count in places.items() if count > 1}

    def open(self, name: str | zipfile.ZipInfo, *how: Any, **options: Any) -> Any:
        member = name if isinstance(name, zipfile.ZipInfo) else self.getinfo(name)
        if member.header_offset in self.shared:
            raise zipfile.BadZipFile(f"{member.filename}: another entry stands at the same place")
        return super().open(member, *how, **options)


def archive(file: BinaryIO) -> zipfile.ZipFile:
    """The zip in an open file. Its directory is read here, which zipfile would do whatever size it claims.

    What its entries claim is not checked: compare their `file_size` with the file's size before you read one.

    Raises
    ------
    zipfile.BadZipFile, NotImplementedError, ValueError
        If it is no zip, or a broken one, or its directory is larger than two megabytes.
    """
    sparing = Sparing(file, DIRECTORY)
    found = Entries(sparing)
    sparing.most = None  # entries may be larger
    return found


# Writing

ENDING = ".npattn.part"
LEFT = r"\.(?:{})\.[a-z0-9_]{{8}}" + re.escape(ENDING)  # what `atomic` calls a file that is not yet whole


@contextlib.contextmanager
def atomic(path: Path, replace: bool = True) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` at the end of the block, whole and on the disk, or not at all.

    Without `replace` a file that is there stays, whoever wrote it and however late: FileExistsError.

    It is written under a temporary name in the same folder, synced, and renamed. After an exception the temporary file
    is removed and `path` is as it was. A process that is killed leaves the temporary file: see `sweep`.

    Raises
    ------
    OSError
        If it cannot be written: a full disk, a missing folder, no permission. Its `filename` is `path`.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=ENDING, dir=path.parent)
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
        if replace or not linked(name, path):
            os.replace(name, path)
        else:
            os.unlink(name)
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


def linked(name: str, path: Path) -> bool:
    """Give a file a second name that nothing else has. False where files have one name only; `path` is reserved then.

    Raises FileExistsError if there is something of that name.
    """
    try:
        os.link(name, path)
    except FileExistsError:
        raise
    except (OSError, AttributeError, NotImplementedError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        return False
    return True


def sweep(folder: Path, names: Iterable[str], older: float = 0.0) -> None:
    """Remove what processes that were killed while they wrote left in `folder`: `atomic`'s temporary files.

    Parameters
    ----------
    folder
        Where to look; not in folders within it.
    names
        What was being written. Leftovers of other files are not ours to judge.
    older
        Spare those changed in the last so many seconds: another process may be at work on them.
    """
    left = re.compile(LEFT.format("|".join(re.escape(name) for name in names)))
    with contextlib.suppress(OSError):  # what cannot be looked at or removed does no harm
        for entry in list(os.scandir(folder)):
            with contextlib.suppress(OSError):
                ours = left.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
                if ours and time.time() - entry.stat().st_mtime >= older:
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

        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)  # a FIFO would be waited for
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
