"""Checkpoints: named arrays and a dict of plain values in one .npz file, without pickle.

Written whole or not at all, and read with every size checked before memory is taken for it.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from npattn.files import atomic

VERSION = 1
LARGEST = 2**30  # bytes of all arrays of a checkpoint together


class CheckpointError(Exception):
    """A checkpoint is missing, broken, or of another format. The message names the file and what is wrong."""


def save(path: Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Write arrays and meta (whatever JSON can hold) to `path`, atomically. Raises OSError if the disk refuses."""
    text = json.dumps({"format": "npattn checkpoint", "version": VERSION, **meta})
    with atomic(path) as file:
        np.savez(file, meta=np.frombuffer(text.encode(), np.uint8), **dict(arrays))  # type: ignore[arg-type]


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `save` wrote: (arrays, meta).

    Raises CheckpointError if the file is missing, broken, larger than a checkpoint can be, or of another version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > LARGEST:
                raise CheckpointError(f"{path}: claims more than {LARGEST:,} bytes")
            arrays = {member.filename.removesuffix(".npy"): read_member(archive, member) for member in members}
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(f"{path}: no checkpoint, or a broken one: {error}") from None
    try:
        meta = json.loads(arrays.pop("meta").tobytes().decode())
        known = meta["format"] == "npattn checkpoint", meta["version"]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise CheckpointError(f"{path}: no checkpoint of npattn: it has no meta entry that says so") from None
    if known != (True, VERSION):
        raise CheckpointError(f"{path}: expected an npattn checkpoint of version {VERSION}, got {known[1]!r}")
    return arrays, meta


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array of the archive. Raises ValueError if its header does not fit its size."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if header is None:
            raise ValueError(f"{member.filename}: .npy version {version}")
        try:
            shape, fortran, dtype = header(stream)
        except Exception as error:  # NumPy reads it by Python's own parser and tokenizer, which raise many kinds
            raise ValueError(f"{member.filename}: a header that cannot be read: {error}") from None
        size = math.prod(shape) * dtype.itemsize
        if dtype.kind not in "fiub" or size != member.file_size - stream.tell():
            raise ValueError(
                f"{member.filename}: a header of {shape} {dtype} that does not fit its {member.file_size} bytes"
            )
        flat = np.frombuffer(stream.read(size), dtype)  # reading to the end checks the CRC
        return flat.reshape(shape, order="F" if fortran else "C").copy()
