"""Reading and writing the files that weights come in: .npz, .safetensors, and PyTorch's .pt.

Nothing is unpickled here. A .pt file is a pickle, and torch itself reads it, with `weights_only=True`.
"""

from __future__ import annotations

import importlib
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from npattn.backend import Array, to_numpy
from npattn.checkpoint import DTYPES, read_member
from npattn.files import atomic

LARGEST = 2**30  # bytes of all arrays of a file that is smaller than this itself
EXPANDS = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}  # how many times its bytes an entry can have at most
TORCH = (".pt", ".pth", ".bin")
ENDINGS = ".npz, .safetensors, .pt, .pth or .bin"


class FileError(ValueError):
    """A file of weights is missing, broken, or cannot be read here. The message names the file and what is wrong."""


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Read a file of weights: key to array.

    Parameters
    ----------
    path
        A file that ends in .npz (read without pickle; floats, whole numbers and bools), .safetensors (needs the library
        of that name), or .pt, .pth or .bin (needs torch, which reads them with `weights_only=True`). A dict inside of a
        .pt file that has its weights under "state_dict" or "model" is understood.

    Raises
    ------
    FileError
        If it is missing, broken, of another kind, an .npz that unpacks to more than a gigabyte and more than its own
        size, or its library is not installed.
    """
    path = Path(path)
    ending = path.suffix.lower()
    try:
        if ending == ".npz":
            return read_npz(path)
        if ending == ".safetensors":
            return read_safetensors(path)
        if ending in TORCH:
            return read_torch(path)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from None
    raise FileError(f"{path}: expected a file that ends in {ENDINGS}")


def write(path: str | Path, state: Mapping[str, Array]) -> None:
    """Write key to array into a file, whole or not at all; the ending decides as in `read`.

    Raises
    ------
    FileError
        If the ending is another one, its library is not installed, or an .npz could not be read back for its dtype.
    OSError
        If the disk refuses.
    """
    path = Path(path)
    ending = path.suffix.lower()
    # safetensors 0.8.0 writes an array that is not contiguous in another order than it reads it, without a word
    arrays = {key: np.ascontiguousarray(to_numpy(value)).reshape(tuple(value.shape)) for key, value in state.items()}
    if ending == ".npz":
        for key, value in arrays.items():
            if value.dtype not in DTYPES.values():
                names = ", ".join(dict.fromkeys(dtype.name for dtype in DTYPES.values()))  # two byte orders each
                raise FileError(f"{path}: {key}: expected a dtype out of {names}, got {value.dtype}")
        with atomic(path) as file, zipfile.ZipFile(file, "w") as archive:
            for key, value in arrays.items():
                with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, value, allow_pickle=False)
    elif ending == ".safetensors":
        content = needed("safetensors.numpy", path).save(arrays)
        with atomic(path) as file:
            file.write(content)
    elif ending in TORCH:
        torch = needed("torch", path)
        with atomic(path) as file:
            torch.save({key: torch.from_numpy(value.copy()) for key, value in arrays.items()}, file)
    else:
        raise FileError(f"{path}: expected a file that ends in {ENDINGS}")


def needed(name: str, path: Path) -> ModuleType:
    """The library that reads this kind of file. Raises FileError if it is not installed."""
    library = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ImportError:
        raise FileError(f"{path}: needs {library}, which is not installed: pip install {library}") from None


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Arrays of numbers only, each checked against its size before memory is taken for it."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > max(LARGEST, path.stat().st_size):
                raise FileError(f"{path}: claims more bytes than it has, and more than {LARGEST:,}")
            size = path.stat().st_size
            for member in members:
                if member.compress_type not in EXPANDS:
                    raise FileError(f"{path}: {member.filename} is compressed in a way that NumPy does not")
                if member.file_size > EXPANDS[member.compress_type] * size:
                    raise FileError(f"{path}: {member.filename} claims more bytes than the file can hold")
            names = [member.filename.removesuffix(".npy") for member in members]
            if len(set(names)) < len(names):
                raise FileError(f"{path}: has two arrays of one name")
            return {name: read_member(archive, member) for name, member in zip(names, members, strict=True)}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise FileError(f"{path}: no .npz of numbers, or a broken one: {error}") from None


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Through the library, which holds the header against the file's own size."""
    library = needed("safetensors", path)
    try:
        with library.safe_open(path, framework="numpy") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except library.SafetensorError as error:
        raise FileError(f"{path}: no .safetensors file, or a broken one: {error}") from None
    except (TypeError, KeyError) as error:
        raise FileError(f"{path}: has an array of a dtype that NumPy has not: {error}") from None


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Through torch, which with weights_only=True makes tensors and plain containers and nothing else."""
    torch = needed("torch", path)
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises many kinds, of pickle, zipfile and its own
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileError(f"{path}: torch cannot read it as weights alone: {first}") from None
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(torch.is_tensor(value) for value in content.values()):
        raise FileError(f"{path}: expected a dict of tensors (or one under 'state_dict' or 'model')")
    try:
        return {str(key): to_numpy(value).copy() for key, value in content.items()}
    except (TypeError, RuntimeError) as error:
        raise FileError(f"{path}: has a tensor that NumPy has not: {error}") from None
