"""Checkpoints: named arrays and a dict of plain values in one .npz file, without pickle.

Written whole or not at all, and read with every size checked before memory is taken for it.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from npattn.files import archive, atomic, opened

VERSION = 1
LARGEST = 2**30  # bytes of all arrays of a checkpoint together
LARGEST_FILE = LARGEST + 2**24  # with what a zip needs beside them
KINDS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
DTYPES = {dtype.str.encode(): dtype for kind in KINDS for dtype in (np.dtype("<" + kind), np.dtype(">" + kind))}
HEADER = re.compile(
    rb"\{'descr': '(?P<dtype>...)', 'fortran_order': (?P<fortran>True|False), "
    rb"'shape': \((?P<shape>(\d{1,18}, )*\d{1,18},?|)\), \} *\n"
)


class CheckpointError(Exception):
    """A checkpoint is missing, broken, or of another format. The message names the file and what is wrong."""


def save(path: Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Write arrays and meta (whatever JSON can hold) to `path`, atomically. Raises OSError if the disk refuses."""
    text = json.dumps({"format": "npattn checkpoint", "version": VERSION, **meta})
    with atomic(path) as file:
        write_members(file, {"meta": np.frombuffer(text.encode(), np.uint8), **arrays})


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `save` wrote: (arrays, meta).

    Raises CheckpointError if the file is missing, broken, larger than a checkpoint can be, or of another version.
    """
    try:
        with opened(path, LARGEST_FILE) as file:
            return read(file, str(path))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None


def read(file: BinaryIO, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The same from an open file, which errors call `name`. Raises CheckpointError, OSError."""
    size = file.seek(0, io.SEEK_END)
    try:
        with archive(file) as entries:
            members = entries.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise CheckpointError(f"{name}: no checkpoint of npattn: it has compressed entries")
            if sum(member.file_size for member in members) > min(size, LARGEST):
                raise CheckpointError(f"{name}: claims more bytes than it has, or more than {LARGEST:,}")
            arrays = {member.filename.removesuffix(".npy"): read_member(entries, member) for member in members}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(f"{name}: no checkpoint, or a broken one: {error}") from None
    try:
        meta = json.loads(arrays.pop("meta").tobytes().decode())
        known = meta["format"] == "npattn checkpoint", meta["version"]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise CheckpointError(f"{name}: no checkpoint of npattn: it has no meta entry that says so") from None
    if known != (True, VERSION):
        raise CheckpointError(f"{name}: expected an npattn checkpoint of version {VERSION}, got {known[1]!r}")
    return arrays, meta


def write_members(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz file, as numpy.savez does, whose older versions leave the archive open where the disk refuses.

    Raises
    ------
    OSError
        If the disk refuses.
    """
    with zipfile.ZipFile(file, "w") as archived:
        for name, value in arrays.items():
            with archived.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(value), allow_pickle=False)


def read_member(entries: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array of the archive. Raises ValueError if its header is not as NumPy writes it or does not fit its size.

    NumPy's own reader evaluates the header as Python, which it limits; nothing here is evaluated.
    """
    with entries.open(member) as stream:
        start = stream.read(10)
        header = stream.read(int.from_bytes(start[8:], "little"))
        match = HEADER.fullmatch(header)
        if start[:8] != b"\x93NUMPY\x01\x00" or match is None or match["dtype"] not in DTYPES:
            raise ValueError(f"{member.filename}: no .npy header of numbers: {(start + header)[:100]!r}")
        shape = tuple(int(size) for size in match["shape"].replace(b",", b" ").split())
        dtype = DTYPES[match["dtype"]]
        size = math.prod(shape) * dtype.itemsize
        if size != member.file_size - len(start) - len(header):
            raise ValueError(
                f"{member.filename}: a header of {shape} {dtype} that does not fit its {member.file_size} bytes"
            )
        flat = np.frombuffer(stream.read(size), dtype)  # reading to the end checks the CRC
        return flat.reshape(shape, order="F" if match["fortran"] == b"True" else "C").copy()
