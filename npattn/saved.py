"""A layer's arrays in a file: NumPy's .npz, without pickle, or .safetensors. Written whole or not at all."""

from __future__ import annotations

import importlib
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np

from npattn.checkpoint import read_member, write_members
from npattn.files import archive, atomic, opened, read_bytes

LARGEST = 2**32  # bytes of a file that is read


def write(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write name to array; the ending of the file's name decides how.

    Raises
    ------
    ValueError
        If it ends otherwise, or its library is not installed.
    OSError
        If the disk refuses.
    """
    path = as_path(path)
    plain = {key: np.ascontiguousarray(value).reshape(value.shape) for key, value in arrays.items()}
    if ending(path) == ".npz":
        with atomic(path) as file:
            write_members(file, plain)
    else:  # safetensors 0.8.0 writes an array that is not contiguous in another order than it reads it, without a word
        content = safetensors(path).numpy.save(plain)
        with atomic(path) as file:
            file.write(content)


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """What `write` wrote.

    Raises
    ------
    ValueError
        If the name ends otherwise, its library is not installed, or it is no such file, or a broken one.
    OSError
        If it is missing, no regular file, or may not be read.
    """
    path = as_path(path)
    if ending(path) == ".safetensors":
        library, content = safetensors(path), read_bytes(path, LARGEST)
        try:
            return dict(library.numpy.load(content))
        except (library.SafetensorError, KeyError, AttributeError, TypeError) as error:  # F8, BF16: a KeyError
            raise ValueError(f"{path}: no .safetensors file, or a broken one: {error}") from None
    try:
        with opened(path, LARGEST) as file, archive(file) as entries:
            members = entries.infolist()
            size = os.fstat(file.fileno()).st_size
            if sum(member.file_size for member in members) > size or any(m.compress_type for m in members):
                raise ValueError("its entries claim more bytes than it has, or are compressed")
            return {member.filename.removesuffix(".npy"): read_member(entries, member) for member in members}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path}: no .npz file, or a broken one: {error}") from None


def as_path(path: str | os.PathLike[str]) -> Path:
    """A path. Raises TypeError if it is none."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path: expected a path, got {type(path).__name__}")
    return Path(path)


def ending(path: Path) -> str:
    """The ending of a file's name, one of the two. Raises ValueError."""
    found = path.suffix.lower()
    if found not in (".npz", ".safetensors"):
        others = "; weights in other files: npattn dialect FILE" if found else ""
        raise ValueError(f"path: expected a name that ends in .npz or .safetensors, got {path.name!r}{others}")
    return found


def safetensors(path: Path) -> ModuleType:
    """The library of that name. Raises ValueError if it is not installed."""
    try:
        importlib.import_module("safetensors.numpy")
        return importlib.import_module("safetensors")
    except ImportError:
        raise ValueError(f"{path}: needs safetensors, which is not installed: pip install safetensors") from None
