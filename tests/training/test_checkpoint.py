"""Checkpoints: whole or not at all, and nothing hostile gets in."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npattn import checkpoint
from npattn.checkpoint import CheckpointError
from npattn.files import atomic

ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "empty": np.zeros((0, 3)), "one": np.array(3.5)}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "checkpoint.npz"
    checkpoint.save(path, ARRAYS, {"epoch": 3, "name": "é"})
    return path


def test_round_trip(path):
    arrays, meta = checkpoint.load(path)
    assert meta == {"format": "npattn checkpoint", "version": 1, "epoch": 3, "name": "é"}
    assert arrays.keys() == ARRAYS.keys()
    for key, value in arrays.items():
        assert value.dtype == ARRAYS[key].dtype
        np.testing.assert_array_equal(value, ARRAYS[key])
        value[...] = 0  # writable


def test_numpy_can_read_it_without_pickle(path):
    with np.load(path, allow_pickle=False) as file:
        np.testing.assert_array_equal(file["a.weight"], ARRAYS["a.weight"])


def test_cut_off_anywhere(path):
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=str(path)):
            checkpoint.load(path)


@given(data=st.data())
def test_bytes_changed_anywhere(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("changed") / "checkpoint.npz"
    checkpoint.save(path, ARRAYS, {"epoch": 3})
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        arrays, _ = checkpoint.load(path)
    except CheckpointError:
        return
    for key in ARRAYS.keys() & arrays.keys():  # what still loads is what was saved: the CRC holds
        np.testing.assert_array_equal(arrays[key], ARRAYS[key])


def member(shape, dtype="<f4", content=b"") -> bytes:
    """An .npy file whose header says whatever is wanted."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": dtype, "fortran_order": False, "shape": shape})
    return out.getvalue() + content


@pytest.mark.parametrize(
    "content",
    [member((2**40,)), member((2**62, 2**62)), member((3,), content=b"abc"), member((1,), "|O", b"x" * 8), b"", b"PK"],
    ids=["terabytes", "overflow", "short", "pickle", "empty", "no npy"],
)
def test_headers_that_lie(path, content):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more.npy", content)
    with pytest.raises(CheckpointError, match="no checkpoint, or a broken one"):
        checkpoint.load(path)


def test_other_files(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        checkpoint.load(path)
    np.savez(path, a=np.zeros(3))
    with pytest.raises(CheckpointError, match="no meta entry"):
        checkpoint.load(path)
    meta = json.dumps({"format": "npattn checkpoint", "version": 99}).encode()
    np.savez(path, meta=np.frombuffer(meta, np.uint8))
    with pytest.raises(CheckpointError, match="expected an npattn checkpoint of version 1, got 99"):
        checkpoint.load(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.npy", bytes(10**6))
    with pytest.raises(CheckpointError, match="it has compressed entries"):
        checkpoint.load(path)
    with path.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("sparse.npy", b"")
        file.seek(checkpoint.LARGEST + 1)  # a hole: it takes no space
        archive.start_dir = file.tell()
        archive.filelist[0].file_size = archive.filelist[0].compress_size = checkpoint.LARGEST + 1
    with pytest.raises(CheckpointError, match="or more than 1,073,741,824"):
        checkpoint.load(path)


def test_entries_that_share_their_bytes(path):
    """A small file whose directory lists one large entry a hundred times claims a hundred times the memory."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", member((10**5,), content=bytes(4 * 10**5)))
        archive.filelist *= 100
    assert path.stat().st_size < 500_000
    with pytest.raises(CheckpointError, match="claims more bytes than it has"):
        checkpoint.load(path)


def test_entries_at_one_place(path):
    """However small: Python 3.14 warns of them, and reads them."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("padding.npy", member((100,), content=bytes(400)))
        archive.writestr("a.npy", member((1,), content=bytes(4)))
        archive.filelist.append(archive.filelist[1])
    with pytest.raises(CheckpointError, match=r"a.npy: another entry stands at the same place"):
        checkpoint.load(path)


def test_a_failed_write_leaves_the_old_file(path):
    before = path.read_bytes()

    class Full(Exception):
        pass

    def write_half() -> None:
        with atomic(path) as file:
            file.write(b"half of i")
            raise Full

    with pytest.raises(Full):
        write_half()
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_atomic_gives_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    with atomic(tmp_path / "atomic") as file:
        file.write(b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode
