"""What a file of weights is, by its first bytes and never by its name."""

from __future__ import annotations

import zipfile
from typing import BinaryIO

from npattn.files import archive

OTHERS = (
    (b"\x93NUMPY", "one array of NumPy without a name: save a dict of them with numpy.savez"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it"),
    (b"\x1f\x8b", "compressed by gzip: unpack it first"),
    (b"BZh", "compressed by bzip2: unpack it first"),
    (b"\xfd7zXZ", "compressed by xz: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it first"),
    (b"GGUF", "a GGUF file, as llama.cpp has it"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file that it points to: fetch it with `git lfs pull`"),
)
"""First bytes of what is met under the names of weights and is read by nothing here, and what it is."""

TORCH, NPZ, SAFETENSORS = "torch", "npz", "safetensors"


class OtherError(ValueError):
    """It is something else. The message says what."""


def kind_of(file: BinaryIO, size: int) -> str:
    """TORCH, NPZ or SAFETENSORS, by what the file begins with, and of a zip by the names of its entries.

    Raises
    ------
    OtherError
        If it is something else.
    zipfile.BadZipFile, NotImplementedError, ValueError
        If it is a broken zip.
    """
    start = file.read(512)
    file.seek(0)
    if not start:
        raise OtherError("it is empty")
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return of_zip(archive(file))
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size - 8:
        return SAFETENSORS  # before pickles: the length of a header may look like one
    if start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return TORCH
    if start[257:262] == b"ustar":
        raise OtherError("it is a tar archive: unpack it first")
    if start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise OtherError("it is a web page: what was downloaded is not the file, but a page about it")
    for first, what in OTHERS:
        if start.startswith(first):
            raise OtherError(f"it is {what}")
    raise OtherError(f"it is no .npz, no .safetensors and no file of torch.save: it begins with {start[:8]!r}")


def of_zip(found: zipfile.ZipFile) -> str:
    """The same of a zip."""
    names = found.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        why = "load it with torch.jit.load, and save its state_dict() with torch.save"
        raise OtherError(f"it is a program of TorchScript, not weights alone: {why}")
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return TORCH
    if not names or any(name.endswith(".npy") for name in names):
        return NPZ
    raise OtherError(f"it is a zip, but none of NumPy's or torch's: it holds {names[0][:60]!r}")
