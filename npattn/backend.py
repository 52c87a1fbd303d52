"""Which array library an array belongs to. The one file that names array libraries; everything else asks it.

The pairs in ops/ and attention/ are written in the functions of the Python array API standard only, so one source runs
on NumPy, CuPy, torch and array-api-strict: each function asks here for `xp`, the module its arrays belong to.
"""

from __future__ import annotations

import functools
import importlib
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any, TypeAlias

import array_api_compat
import numpy as np

Array: TypeAlias = Any
"""An array of any supported library. The array API standard has no common base class to name here."""


class DeviceError(RuntimeError):
    """A GPU was asked for, and there is none to be had. The message says why."""


def array_module(*arrays: Array) -> ModuleType:
    """Return the one array module that all `arrays` belong to, in its array API form.

    Parameters
    ----------
    *arrays
        Arrays of any shape and dtype. `None` stands for an absent one (a bias, say) and is passed over.

    Returns
    -------
    module
        `array_api_compat.numpy`, `array_api_compat.torch`, `array_api_strict`, …: the standard's functions.

    Raises
    ------
    TypeError
        If one of them is no array, or one of a class with an arithmetic of its own (numpy.matrix, masked arrays), if
        they belong to different libraries, or if all are None.
    """
    return named_module({f"arrays[{i}]": array for i, array in enumerate(arrays)})


@functools.cache
def numpy_module() -> ModuleType:
    """NumPy, in its array API form; looked up once, at first use, since that takes as long as importing npattn."""
    return array_api_compat.array_namespace(np.empty(0))


def named_module(arrays: dict[str, Array]) -> ModuleType:
    """`array_module` of the dict's values; its errors call each by its key."""
    modules = {}
    for name, array in arrays.items():
        if array is None:
            continue
        if type(array) is np.ndarray:  # asked at every call, and nearly always so: what follows takes 10 times as long
            modules[name] = numpy_module()
            continue
        if computes_otherwise(array):
            kind = type(array).__name__
            raise TypeError(
                f"{name}: expected a plain array, got {kind}; numpy.asarray({name}) forgets what {kind} adds"
            )
        if not known(array):  # NumPy's scalars are: its arithmetic makes them of 0-d arrays
            raise TypeError(
                f"{name}: expected an array (NumPy, CuPy, torch or array-api-strict), got {type(array).__name__}"
            )
        if (fault := numberless(array)) is not None:
            raise TypeError(f"{name}: expected an array with a number at each place, got {fault}")
        modules[name] = array_api_compat.array_namespace(array)
    if not modules:
        raise TypeError(f"{next(iter(arrays), 'arrays')}: expected an array, got None")
    (first, xp), *others = modules.items()
    for name, module in others:
        if module is not xp:
            same = f"the same library as {first} ({library_name(xp)})"
            raise TypeError(f"{name}: expected an array of {same}, got {library_name(module)}")
    return xp


def known(array: Array) -> bool:
    """Whether it is an array of one of the libraries that the pairs run on, and not of another that resembles them."""
    return (
        array_api_compat.is_numpy_array(array)
        or array_api_compat.is_cupy_array(array)
        or array_api_compat.is_torch_array(array)
        or type(array).__module__.partition(".")[0] == "array_api_strict"
    )


ARITHMETIC = (
    "__array_ufunc__", "__array_function__", "__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__",
    "__truediv__", "__rtruediv__", "__matmul__", "__pow__", "__lt__", "__ge__", "sum", "mean", "max",
)  # fmt: skip


def computes_otherwise(array: Array) -> bool:
    """Whether it is a class of NumPy's with an arithmetic of its own: masked arrays, numpy.matrix, units of measure.

    One that only brings its own storage (numpy.memmap) computes as the formulas say.
    """
    kind = type(array)
    if getattr(kind, "only_watches", False):  # ours: npattn.explain.recorded
        return False
    return isinstance(array, np.ndarray) and any(
        getattr(kind, name) is not getattr(np.ndarray, name) for name in ARITHMETIC
    )


def numberless(array: Array) -> str | None:
    """What a tensor of torch's is that has no number of its own at each place: of sizes alone, sparse, or nested."""
    if not array_api_compat.is_torch_array(array):
        return None
    if array.is_nested:
        return "a nested tensor"
    if array.device.type == "meta":
        return "a tensor on the device meta, which has none"
    if str(array.layout) != "torch.strided":
        return f"a tensor of layout {array.layout}"
    return None


def as_module(xp: ModuleType | None) -> ModuleType:
    """Return the array API form of a module that a user names. None means NumPy.

    Raises
    ------
    TypeError
        If `xp` is no array module.
    DeviceError
        If it is CuPy, and there is no GPU.
    """
    if xp is None:
        xp = np
    if getattr(xp, "__name__", "") in ("cupy", "array_api_compat.cupy"):
        return gpu_module()
    try:
        return array_module(xp.zeros(1))
    except Exception:  # whatever comes of asking anything for zeros
        raise TypeError(f"xp: expected an array module such as numpy, cupy or torch, got {xp!r:.80}") from None


def library_name(xp: ModuleType) -> str:
    """The name people know a module by: "numpy" for `array_api_compat.numpy`."""
    return xp.__name__.removeprefix("array_api_compat.")


def is_numpy(xp: ModuleType) -> bool:
    """Whether `xp` is NumPy."""
    return array_api_compat.is_numpy_namespace(xp)


def gpu_module() -> ModuleType:
    """CuPy, in its array API form, where there is a GPU. That it can be imported says nothing: it needs none for that.

    Raises
    ------
    DeviceError
        If CuPy is not installed, cannot be imported, or finds no GPU.
    """
    try:
        cupy = importlib.import_module("cupy")
        available = cupy.cuda.is_available()
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "cupy"
        reason = "which is not installed" if missing else f"which cannot be imported here ({error})"
        raise DeviceError(f'device: a GPU needs CuPy, {reason}: pip install "npattn[cuda]"') from None
    if not available:
        raise DeviceError(
            f"device: CuPy {cupy.__version__} finds no GPU here: cupy.cuda.is_available() is False. "
            "Without one NumPy does the work"
        )
    return array_module(cupy.zeros(1))


def placed(name: str, xp: ModuleType) -> tuple[ModuleType, Any]:
    """The module, and the device of it, that arrays of `xp` move to when they are to go to the device `name`.

    "cuda" makes CuPy of NumPy, and "cpu" NumPy of CuPy. torch keeps its arrays and moves them.

    Raises
    ------
    ValueError
        If the name is not "cpu" or "cuda".
    DeviceError
        If there is no GPU, or the library has none.
    """
    if not isinstance(name, str) or name not in ("cpu", "cuda"):
        raise ValueError(f"device: expected 'cpu' or 'cuda', got {name!r:.80}")
    if is_numpy(xp) or is_cupy(xp):
        return (gpu_module() if name == "cuda" else as_module(None)), None
    if is_torch(xp):
        if name == "cuda" and not importlib.import_module("torch").cuda.is_available():
            raise DeviceError("device: torch finds no GPU here: torch.cuda.is_available() is False")
        return xp, name
    if name == "cuda":
        raise DeviceError(f"device: {library_name(xp)} has no GPU")
    return xp, None


def from_numpy(array: np.ndarray, xp: ModuleType, target: Any = None) -> Array:
    """An array of the module `xp` with the values of `array`, on the device `target`; None means its default."""
    return xp.asarray(array) if target is None else xp.asarray(array, device=target)


def is_cupy(xp: ModuleType) -> bool:
    """Whether `xp` is CuPy."""
    return array_api_compat.is_cupy_namespace(xp)


def is_torch(xp: ModuleType) -> bool:
    """Whether `xp` is torch."""
    return array_api_compat.is_torch_namespace(xp)


def device(array: Array) -> Any:
    """The device that `array` lives on. What a function creates must be created there."""
    return array_api_compat.device(array)


def to_device(array: Array, target: Any) -> Array:
    """`array` on the device `target`, the array itself if it is there already."""
    return array_api_compat.to_device(array, target)


def copied(array: Array) -> Array:
    """A new array with the values of `array`, that shares no memory with it."""
    if array_api_compat.is_torch_array(array):
        return array.clone()  # torch's asarray would warn where autograd is looking on
    return array_module(array).asarray(array, copy=True)


def to_numpy(array: Array) -> np.ndarray:
    """A NumPy array with the values of `array`, wherever it lives. May share memory with it."""
    if array_api_compat.is_cupy_array(array):
        return np.asarray(array.get())  # CuPy copies to the host only when asked by name
    if array_api_compat.is_torch_array(array):
        return np.asarray(array.detach().cpu())
    if array_api_compat.is_array_api_strict_namespace(array_api_compat.array_namespace(array)):
        xp = array_api_compat.array_namespace(array)
        return np.asarray(array_api_compat.to_device(array, xp.Device("CPU_DEVICE")))
    return np.asarray(array)


def quiet() -> AbstractContextManager[Any]:
    """Within, NumPy does not warn of an overflow or of ∞ − ∞. Where `numpy.errstate` says "raise", it still raises."""
    warns: Any = {kind: "ignore" for kind, action in np.geterr().items() if action == "warn"}
    return np.errstate(**warns) if warns else nullcontext()
