"""Reading and writing the files that weights come in: NumPy's .npz, .safetensors, and what torch.save writes.

Nothing is unpickled here. What torch.save writes is a pickle, and torch itself reads it, with `weights_only=True`. What
kind of file it is, its first bytes say.
"""

from __future__ import annotations

import importlib
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from npattn import saved
from npattn.arguments import explained
from npattn.backend import Array, to_numpy
from npattn.capacity import need
from npattn.checkpoint import DTYPES, read_member
from npattn.dialects.containers import chosen, is_array
from npattn.dialects.formats import NPZ, SAFETENSORS, OtherError, kind_of
from npattn.dialects.keys import shown
from npattn.dialects.numbers import SAFETENSORS as NAMES
from npattn.dialects.numbers import NotRead, array_of, bytes_of, converted, dtype_of, from_safetensors
from npattn.dialects.torch_file import Unreadable, content_of
from npattn.files import archive, atomic, opened
from npattn.state import dtype_name

LARGEST = 2**30  # bytes of all arrays of a file that is smaller than this itself
MOST = 2**34  # bytes of a file
EXPANDS = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}  # how many times its bytes an entry can have at most
TORCH = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".tar")
ENDINGS = ".npz, .safetensors, .pt, .pth, .bin, .ckpt, .pkl or .pth.tar"
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError)


class FileError(ValueError):
    """A file of weights is missing, broken, or cannot be read here. The message names the file and what is wrong."""


class Contents(NamedTuple):
    """What a file of weights holds.

    Attributes
    ----------
    state
        Key to array.
    under
        The names on the way to the weights, joined by dots; "" if they are all that there is.
    others
        What else in the file holds weights, and could be asked for by `under`.
    left_out
        The keys beside the weights whose entries are no arrays, and what they are.
    dtypes
        The dtype of each array in the file, by its key.
    """

    state: dict[str, np.ndarray]
    under: str
    others: list[str]
    left_out: dict[str, str]
    dtypes: dict[str, str]


@explained
def read(path: str | os.PathLike[str], *, under: str | None = None, dtype: Any = None) -> dict[str, np.ndarray]:
    """Read a file of weights: key to array.

    Parameters
    ----------
    path
        An .npz (read without pickle; floats, whole numbers and bools), a .safetensors (needs the library of that name),
        or what torch.save wrote (needs torch, which reads it with `weights_only=True`). Its first bytes say which, not
        its name.
    under
        Which weights, where a file holds several or keeps them within dicts: the names on the way, joined by dots,
        "model.state_dict". By default those with most numbers, and no average over the training (`model_ema`) where
        there are the weights themselves. `contents` says what was taken.
    dtype
        float32 or float64: what floats are converted to. By default they stay as they are in the file; bfloat16, which
        NumPy has not, is an error then.

    Returns
    -------
    dict of str to numpy.ndarray
        In the order of the file.

    Raises
    ------
    FileError
        If it is missing, broken, no regular file, of another kind, larger than 16 gigabytes, would unpack to more than
        a gigabyte and more than its own size, holds no weights, or its library is not installed.
    TypeError
        If dtype is neither.
    """
    return contents(path, under=under, dtype=dtype).state


@explained
def contents(path: str | os.PathLike[str], *, under: str | None = None, dtype: Any = None) -> Contents:
    """Read a file of weights, and say what was taken, what was left, and what dtypes it has.

    Parameters
    ----------
    path, under, dtype
        As in `read`.

    Returns
    -------
    Contents

    Raises
    ------
    FileError, TypeError
        As in `read`.
    """
    wanted = None if dtype is None else dtype_name(dtype)
    try:
        with opened(path, MOST) as file:
            size = os.fstat(file.fileno()).st_size
            return parsed(file, size, os.fspath(path), under, wanted)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise FileError(f"{path}: does not fit into the memory") from None


def parsed(file: BinaryIO, size: int, path: str, under: str | None, dtype: str | None) -> Contents:
    """The contents of an open file."""
    try:
        kind = kind_of(file, size)
    except OtherError as error:
        raise FileError(f"{path}: no file of weights: {error}") from None
    except BROKEN as error:
        raise FileError(f"{path}: a broken zip, and so no .npz and no file of torch.save: {error}") from None
    file.seek(0)
    if kind == NPZ:
        return flat(npz_arrays(file, size, path), path, under, dtype)
    if kind == SAFETENSORS:
        return read_safetensors(all_of(file, path), path, under, dtype)
    torch = needed("torch", path)
    check_zip(file, size, path)
    file.seek(0)
    try:
        content = content_of(all_of(file, path), path, torch)
    except Unreadable as error:
        raise FileError(f"{path}: {error}") from None
    return within(content, size, path, under, dtype)


def all_of(file: BinaryIO, path: str) -> bytes:
    """The bytes of an open file, which may have grown since its size was looked at."""
    size = os.fstat(file.fileno()).st_size
    need(2 * size, lambda: f"{path}: {size:,} bytes, held twice")  # a hole takes no disk, but memory
    whole = bytearray()
    while part := file.read(2**20):
        whole += part
        if len(whole) > MOST:
            raise FileError(f"{path}: expected at most {MOST:,} bytes, got more")
    return bytes(whole)


def read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Arrays of numbers only, each checked against its size before memory is taken for it."""
    try:
        with opened(path, MOST) as file:
            return npz_arrays(file, os.fstat(file.fileno()).st_size, os.fspath(path))
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from None


def npz_arrays(file: BinaryIO, size: int, path: str) -> dict[str, np.ndarray]:
    """The same from an open file."""
    try:
        with archive(file) as found:
            members = checked_members(found, size, path)
            names = [member.filename.removesuffix(".npy") for member in members]
            if len(set(names)) < len(names):
                raise FileError(f"{path}: has two arrays of one name")
            return {name: read_member(found, member) for name, member in zip(names, members, strict=True)}
    except FileError:
        raise
    except BROKEN as error:
        raise FileError(f"{path}: no .npz of numbers, or a broken one: {error}") from None


def checked_members(found: zipfile.ZipFile, size: int, path: str) -> list[zipfile.ZipInfo]:
    """The entries of a zip, after holding what they claim against the file's size."""
    members = found.infolist()
    if sum(member.file_size for member in members) > max(LARGEST, size):
        raise FileError(f"{path}: claims more bytes than it has, and more than {LARGEST:,}")
    for member in members:
        if member.compress_type not in EXPANDS:
            raise FileError(f"{path}: {shown(member.filename)} is compressed in a way that NumPy and torch do not")
        if member.file_size > EXPANDS[member.compress_type] * size:
            raise FileError(f"{path}: {shown(member.filename)} claims more bytes than the file can hold")
    return members


def check_zip(file: BinaryIO, size: int, path: str) -> None:
    """Refuse what torch.save never writes, where it is a zip: torch takes memory for what entries claim."""
    if file.read(2) != b"PK":
        return
    file.seek(0)
    try:
        with archive(file) as found:
            checked_members(found, size, path)
    except FileError:
        raise
    except BROKEN as error:
        raise FileError(f"{path}: a broken zip, and so no file of torch.save: {error}") from None


def flat(arrays: Mapping[str, np.ndarray], path: str, under: str | None, dtype: str | None) -> Contents:
    """The contents of a file that has no dicts within dicts."""
    nothing_within(path, under)
    state = {}
    for key, value in arrays.items():
        try:
            state[key] = converted(value, dtype)
        except NotRead as error:
            raise FileError(f"{path}: {shown(key)}: {error}") from None
    return Contents(state, "", [], {}, {key: dtype_of(value) for key, value in arrays.items()})


def nothing_within(path: str, under: str | None) -> None:
    """Raise FileError if something is asked for within a file that has its arrays side by side."""
    if under:
        raise FileError(f"{path}: under: expected None, since this kind of file has no dicts within it, got {under!r}")


def read_safetensors(data: bytes, path: str, under: str | None, dtype: str | None) -> Contents:
    """Through the library, which holds the header against the file's own size."""
    library = needed("safetensors", path)
    nothing_within(path, under)
    state, dtypes = {}, {}
    try:
        found = sorted(library.deserialize(data), key=lambda entry: entry[0])  # which gives them in any order
    except library.SafetensorError as error:
        raise FileError(f"{path}: no .safetensors file, or a broken one: {error}") from None
    for key, entry in found:
        try:
            state[key] = from_safetensors(entry["dtype"], entry["shape"], entry["data"], dtype)
        except NotRead as error:
            raise FileError(f"{path}: {shown(key)}: {error}") from None
        except ValueError as error:
            raise FileError(f"{path}: no .safetensors file, or a broken one: {shown(key)}: {error}") from None
        dtypes[key] = "bfloat16" if entry["dtype"] == "BF16" else np.dtype(NAMES[entry["dtype"]]).name
    return Contents(state, "", [], {}, dtypes)


def within(content: Any, size: int, path: str, under: str | None, dtype: str | None) -> Contents:
    """The weights in what torch read, wherever in it they are."""
    try:
        place, others = chosen(content, under)
    except ValueError as error:
        raise FileError(f"{path}: {error}") from None
    taken = {key: value for key, value in place.entries.items() if isinstance(key, str) and is_array(value)}
    if sum(map(bytes_of, taken.values())) > max(LARGEST, size):
        raise FileError(f"{path}: its tensors claim more bytes than it has, and more than {LARGEST:,}")
    state = {}
    for key, value in taken.items():
        try:
            state[key] = array_of(value, dtype)
        except NotRead as error:
            raise FileError(f"{path}: {shown(key)}: {error}") from None
    left_out = {str(key): type(value).__name__ for key, value in place.entries.items() if key not in taken}
    return Contents(state, place.name, others, left_out, {key: dtype_of(value) for key, value in taken.items()})


@explained
def write(path: str | os.PathLike[str], state: Mapping[str, Array]) -> None:
    """Write key to array into a file, whole or not at all; the ending decides what kind of file.

    Parameters
    ----------
    path
        Ends in .npz, .safetensors, .pt, .pth, .bin, .ckpt, .pkl or .pth.tar.
    state
        Key to array, of any library.

    Raises
    ------
    FileError
        If the ending is another one, its library is not installed, or an .npz could not be read back for its dtype.
    OSError
        If the disk refuses.
    """
    path = Path(path)
    ending = path.suffix.lower()
    arrays = {key: to_numpy(value) for key, value in state.items()}
    if ending == ".npz":
        for key, value in arrays.items():
            if value.dtype not in DTYPES.values():
                names = ", ".join(dict.fromkeys(dtype.name for dtype in DTYPES.values()))  # two byte orders each
                raise FileError(f"{path}: {key}: expected a dtype out of {names}, got {value.dtype}")
        saved.write(path, arrays)
    elif ending == ".safetensors":
        needed("safetensors.numpy", path)
        saved.write(path, arrays)
    elif ending in TORCH:
        torch = needed("torch", path)
        with atomic(path) as file:
            torch.save({key: torch.from_numpy(value.copy()) for key, value in arrays.items()}, file)
    else:
        raise FileError(f"{path}: expected a file that ends in {ENDINGS}")


def needed(name: str, path: str | Path) -> ModuleType:
    """The library that reads this kind of file. Raises FileError if it is not installed."""
    library = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ImportError:
        raise FileError(f"{path}: needs {library}, which is not installed: pip install {library}") from None
