"""The door to the disk: only regular files of a bounded size are read, and only our own leftovers are removed."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import npattn
from npattn import checkpoint, data, files
from npattn.ablation import AblationError
from npattn.ablation.rows import Settings, chosen
from npattn.ablation.trainings import file_of, stored
from npattn.checkpoint import CheckpointError
from npattn.cli import main
from npattn.commands import users_target
from npattn.data import DataError
from npattn.dialects import weights_file
from npattn.explain.images import ImageError, read_digit
from npattn.files import FileRefused

MOST = 1000


@pytest.fixture(autouse=True)
def never_waits() -> Iterator[None]:
    """A read that waits for ever ends the test instead."""

    def late(number: int, frame: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's address has room for 100 letters
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(here)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def link(to: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(to)


SPECIAL = {
    "fifo": (fifo, "expected a regular file, got a FIFO"),
    "directory": (Path.mkdir, "expected a regular file, got a directory"),
    "socket": (listening, "expected a regular file, got a socket"),
    "null": (link("/dev/null"), "expected a regular file, got a device"),
    "zero": (link("/dev/zero"), "expected a regular file, got a device"),
    "a terabyte": (sparse, r"expected at most [\d,]+ bytes, got 1,099,511,627,776"),
}
each = pytest.mark.parametrize(("make", "message"), SPECIAL.values(), ids=SPECIAL)


def digits(path: Path) -> None:
    data.load(path.parent)


def kept(path: Path) -> None:
    """What `npattn ablate` keeps of a finished training."""
    row = chosen(None)[0]
    there = file_of(path.parent, row, 0)
    there.parent.mkdir()
    path.rename(there)
    stored(path.parent, row, 0, Settings())


DOORS = {
    "opened": ("a file", lambda path: files.opened(path, MOST).__enter__(), FileRefused),
    "read_bytes": ("a file", lambda path: files.read_bytes(path, MOST), FileRefused),
    "checkpoint": ("checkpoint.npz", checkpoint.load, CheckpointError),
    "run": ("checkpoint.npz", lambda path: npattn.load_model(path.parent), CheckpointError),
    "digits": (data.TRAIN_IMAGES.name, digits, DataError),
    "digits, gzipped": (f"{data.TRAIN_IMAGES.name}.gz", digits, DataError),
    "image": ("digit.png", read_digit, ImageError),
    "ablation": ("a file", kept, AblationError),
    "weights": ("weights.npz", weights_file.read, weights_file.FileError),
    "a target": ("mine.py", lambda path: users_target.load(f"{path}:make"), users_target.UsageError),
}


@each
@pytest.mark.parametrize("door", DOORS)
def test_no_door_reads_what_is_no_file_or_too_large(tmp_path, door: str, make, message: str):
    name, read, error = DOORS[door]
    path = tmp_path / name
    make(path)
    with pytest.raises(error, match=message):
        read(path)


@each
def test_the_command_says_so_in_a_line(tmp_path, capsys, make, message: str):
    path = tmp_path / "checkpoint.npz"
    make(path)
    for command in (["cam", str(tmp_path)], ["train", "--resume", str(tmp_path)]):
        assert main(command) == 1
        said = capsys.readouterr().err
        assert said.startswith((f"npattn: {path}: cannot be read: expected ", f"npattn: {path}: expected a file"))
        assert said.count("\n") == 1


def test_a_file_is_read_whatever_its_path_is_called(tmp_path):
    path = tmp_path / "é"
    path.write_bytes(bytes(range(250)) * 4)
    (tmp_path / "link").symlink_to(path)
    for way in (path, str(path), tmp_path / "link"):
        assert files.read_bytes(way, MOST) == path.read_bytes()
    with files.opened(path, MOST) as file:
        assert file.seek(0, io.SEEK_END) == MOST
    with pytest.raises(FileRefused, match="expected at most 999 bytes, got 1,000"):
        files.read_bytes(path, MOST - 1)
    with pytest.raises(FileRefused, match="a null character"):
        files.read_bytes("a\0b", MOST)
    with pytest.raises(FileNotFoundError):
        files.read_bytes(tmp_path / "none", MOST)


def test_a_file_that_grows_while_it_is_read(tmp_path, monkeypatch):
    """Its size is looked at, then it grows: no more is read than was asked for."""
    path = tmp_path / "log"
    path.write_bytes(b"x")
    looked = files.look

    def late(found, *arguments) -> None:
        looked(found, *arguments)
        calls.append(found.st_size)
        if len(calls) == 2:
            path.write_bytes(bytes(2 * MOST))  # after the last look

    calls: list[int] = []
    monkeypatch.setattr(files, "look", late)
    with pytest.raises(FileRefused, match="expected at most 1,000 bytes, got more"):
        files.read_bytes(path, MOST)


def test_a_file_that_becomes_a_fifo_before_it_is_opened(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"x")
    looked = files.look

    def swapped(*arguments) -> None:
        looked(*arguments)
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        monkeypatch.setattr(files, "look", looked)

    monkeypatch.setattr(files, "look", swapped)
    with pytest.raises(FileRefused, match="got a FIFO"):
        files.read_bytes(path, MOST)


def test_files_without_a_size(tmp_path):
    """Those of /proc say that they have no bytes, and have some."""
    assert files.read_bytes("/proc/self/status", 2**16).startswith(b"Name:")
    with pytest.raises(FileRefused, match="expected at most 10 bytes, got more"):
        files.read_bytes("/proc/self/status", 10)


def test_no_descriptor_stays_open(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(5):
        files.read_bytes(tmp_path / "file", MOST)
        for path in (tmp_path, "/dev/null"):
            with pytest.raises(FileRefused):
                files.read_bytes(path, MOST)
    assert set(os.listdir("/proc/self/fd")) == before


# Zips


def claims(path: Path, size: int, entries: int = 1) -> None:
    """A zip, sparse, whose end says that its directory has `size` bytes."""
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, entries, entries, size, 0, 0))


@pytest.mark.parametrize("size", [files.DIRECTORY + 1, checkpoint.LARGEST])
def test_a_zip_that_claims_a_huge_directory(tmp_path, size: int):
    import tracemalloc

    path = tmp_path / "checkpoint.npz"
    claims(path, size)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=rf"a directory of {size:,} bytes; expected at most 2,097,152"):
            checkpoint.load(path)
        assert tracemalloc.get_traced_memory()[1] < 2 * files.DIRECTORY
    finally:
        tracemalloc.stop()


def test_a_zip_with_entries_larger_than_a_directory_may_be(tmp_path):
    path = tmp_path / "checkpoint.npz"
    checkpoint.save(path, {"a": np.arange(files.DIRECTORY, dtype=np.int64)}, {})
    np.testing.assert_array_equal(checkpoint.load(path)[0]["a"], np.arange(files.DIRECTORY))
    with files.opened(path, 2**30) as file, files.archive(file) as entries:
        assert entries.namelist() == ["meta.npy", "a.npy"]
    with pytest.raises(zipfile.BadZipFile, match="not a zip"):
        files.archive(io.BytesIO(b"no"))


# What is removed


def test_only_our_own_leftovers_are_removed(tmp_path):
    """What a killed `atomic` left of the files that are named; nothing that only looks like it."""
    theirs = [
        ".thesis.chapter1.part", ".thesis.chapter1.npattn.part", ".checkpoint.npz.chapter1.part", "checkpoint.npz",
        ".checkpoint.npz.part", ".checkpoint.npz.chapter12.npattn.part", "checkpoint.npz.chapter1.npattn.part",
        ".checkpointxnpz.chapter1.npattn.part", ".checkpoint.npz.chapter1.npattn.part.txt",
        ".x.checkpoint.npz.chapter1.npattn.part",
    ]  # fmt: skip
    for name in theirs:
        (tmp_path / name).write_bytes(b"years of work")
    (tmp_path / ".checkpoint.npz.a_folder.npattn.part").mkdir()
    (tmp_path / ".checkpoint.npz.a_link_8.npattn.part").symlink_to(tmp_path / "checkpoint.npz")
    before = set(os.listdir(tmp_path))
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException), files.atomic(tmp_path / "checkpoint.npz") as file:
            file.write(b"half")
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    (left,) = set(os.listdir(tmp_path)) - before
    files.sweep(tmp_path, ["metrics.json", "curves.png"])
    files.sweep(tmp_path, ["checkpoint.npz"], older=3600)
    assert (tmp_path / left).exists()
    files.sweep(tmp_path, ["metrics.json", "checkpoint.npz"])
    assert set(os.listdir(tmp_path)) == before
