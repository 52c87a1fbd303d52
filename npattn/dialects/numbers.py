"""The numbers of one entry of a file, as an array of NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np

from npattn.backend import to_numpy

HALF = ("float16", "bfloat16")  # too coarse to compute in, and converted on request

SAFETENSORS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "?", "C64": "<c8",
}  # fmt: skip


class NotRead(ValueError):
    """NumPy cannot hold these numbers. The message says why, and what to do."""


def dtype_of(value: Any) -> str:
    """The name of an array's or a tensor's dtype, "bfloat16" say; "" of what has none."""
    return str(getattr(value, "dtype", "")).rpartition(".")[2]


def bytes_of(value: Any) -> int:
    """How many bytes an array of these numbers takes."""
    itemsize = getattr(value.dtype, "itemsize", 8)
    return int(np.prod(value.shape, dtype=object)) * int(itemsize)


def array_of(value: Any, dtype: str | None) -> np.ndarray:
    """A copy of an array or a tensor, floats in `dtype` if one is given. Raises NotRead."""
    if isinstance(value, np.ndarray):
        return converted(value, dtype)
    if getattr(value, "is_meta", False):
        raise NotRead("a tensor without numbers, on torch's device meta")
    if str(getattr(value, "layout", "torch.strided")) != "torch.strided":
        raise NotRead(f"a tensor of layout {str(value.layout).removeprefix('torch.')}: save its to_dense()")
    if getattr(value, "is_quantized", False):
        raise NotRead("a quantized tensor: save its dequantize()")
    if dtype_of(value) == "bfloat16":
        if dtype is None:
            raise NotRead(needs_dtype("bfloat16, which NumPy has not"))
        value = value.float()
    try:
        return converted(to_numpy(value.resolve_conj().resolve_neg() if hasattr(value, "layout") else value), dtype)
    except (TypeError, RuntimeError, NotImplementedError):
        raise NotRead(f"{dtype_of(value)}, which NumPy has not") from None


def needs_dtype(what: str) -> str:
    """The end of a message of a dtype that is converted on request."""
    return f'{what}: give dtype="float32", and every float is converted on reading'


def converted(array: np.ndarray, dtype: str | None) -> np.ndarray:
    """A copy, floats in `dtype` if one is given. Raises NotRead for what is no number, or too large for it."""
    if array.dtype.kind not in "fiubc":
        raise NotRead(f"{array.dtype}, which is no dtype of numbers")
    wanted = np.dtype(dtype) if dtype is not None and array.dtype.kind == "f" else array.dtype
    with np.errstate(over="ignore"):
        copy = np.array(array, dtype=wanted)
    if copy.itemsize < array.itemsize and np.isinf(copy).sum() != np.isinf(array).sum():
        raise NotRead(f"numbers that {wanted} cannot hold, up to {np.abs(array[np.isfinite(array)]).max():.3g}")
    return copy


def from_safetensors(name: str, shape: list[int], data: bytes, dtype: str | None) -> np.ndarray:
    """An array from the bytes of a .safetensors file, whose names of dtypes are its own. Raises NotRead."""
    if name == "BF16":
        if dtype is None:
            raise NotRead(needs_dtype("bfloat16, which NumPy has not"))
        high = np.frombuffer(data, "<u2").astype("<u4") << 16  # the upper half of a float32
        return converted(high.view("<f4").reshape(shape), dtype)
    if name not in SAFETENSORS:
        why = "convert it where it was made, with the scales that belong to it"
        raise NotRead(f"{name}, which NumPy has not: {why}")
    return converted(np.frombuffer(data, SAFETENSORS[name]).reshape(shape), dtype)
