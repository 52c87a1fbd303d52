"""What a layer holds: parameters, gradients and running statistics by name; saving, loading and moving them."""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Mapping, MutableMapping
from inspect import Signature
from types import ModuleType
from typing import Any, ClassVar, Self

import numpy as np

from npattn import saved
from npattn.arguments import called_with, constructor, explained
from npattn.backend import Array, as_module, copied, from_numpy, library_name, placed, to_numpy
from npattn.checks import floating, same_shape, shown, true_or_false
from npattn.parameters import Parameters


class Takes:
    """What a class is called with, for `inspect.signature`, `help` and a notebook's tooltip. Not its objects."""

    def __get__(self, layer: object, kind: type) -> Signature | None:
        return constructor(kind) if layer is None else None


class State:
    """The base of `npattn.Layer`: everything about a layer but its forward and backward."""

    __signature__ = Takes()
    internal: ClassVar[tuple[str, ...]] = ()  # those of the constructor's arguments that only classes made from it give

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Check the constructor's arguments before it runs: one deep down has other names. Raises TypeError."""
        given = called_with(cls, args, kwargs)
        layer = super().__new__(cls)
        layer._note(given)
        return layer

    def _note(self, given: dict[str, Any]) -> None:
        """Take note of the constructor's own arguments, by name, before it runs."""

    def __init__(
        self,
        *,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
        xp: ModuleType | None = None,
    ) -> None:
        self.xp = as_module(xp)
        self.device: Any = None
        self.dtype = dtype_name(dtype)
        self.rng = generator(rng)
        self.training = True
        self.params: MutableMapping[str, Array] = {}
        self._grads: MutableMapping[str, Array] = {}
        self.buffers: MutableMapping[str, Array] = {}

    @property
    def grads(self) -> MutableMapping[str, Array]:
        """The gradients that the last backward set: name to array, the keys and shapes of `params`."""
        grads = self._grads  # before the check: what comes after it may be another thread's
        self._check_grads()
        return grads

    @grads.setter
    def grads(self, grads: MutableMapping[str, Array]) -> None:
        self._grads = grads

    def to_array(self, values: Any) -> Array:
        """`values` as an array of the layer's library, device and dtype."""
        return from_numpy(np.asarray(values, dtype=self.dtype), self.xp, self.device)

    def placement(self) -> str:
        """Library, device and dtype in words: "torch on cuda and float32"."""
        return library_name(self.xp) + ("" if self.device is None else f" on {self.device}") + f" and {self.dtype}"

    def parameters(self) -> Parameters:
        """The parameters and their gradients, for an optimiser: `npattn.SGD(layer.parameters(), lr=0.1)`."""
        return Parameters(self)

    def by_field(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Parameters or gradients, given by key, by the names that the formulas have for them ("w1")."""
        return dict(arrays)

    def _forget(self, reason: str) -> None:
        """Drop what belongs to the last forward; `reason` is what a backward then says."""

    def _check_grads(self) -> None:
        """Raise RuntimeError if the gradients are not those of this thread's last backward."""

    # Saving and loading

    def state_dict(self) -> dict[str, Array]:
        """Copies of the parameters and buffers, by PyTorch's keys, in PyTorch's shapes."""
        return {key: copied(value) for key, value in {**self.params, **self.buffers}.items()}

    @explained
    def load_state_dict(self, state: Mapping[str, Array]) -> Self:
        """Take over parameters and buffers: all of them, or none if anything does not fit. Returns the layer.

        Parameters
        ----------
        state
            Key to float array (NumPy's, or the layer's library); exactly the keys and shapes of `state_dict`. PyTorch
            has a `num_batches_tracked` beside running statistics, which nothing here depends on: it may be there too.

        Raises
        ------
        KeyError
            If a key is missing or unknown; the message lists each.
        TypeError
            If it is no dict, or a value no float array.
        ValueError
            If a shape differs, or a number is too large for the layer's dtype.
        """
        self._assign(self._checked(state))
        return self

    @explained
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the `state_dict` to a file, whole or not at all.

        Parameters
        ----------
        path
            A name that ends in .npz (NumPy's format), or in .safetensors (needs the library of that name).

        Raises
        ------
        ValueError
            If it ends otherwise, or the library is not installed.
        OSError
            If the disk refuses.
        """
        saved.write(path, {key: to_numpy(value) for key, value in self.state_dict().items()})

    @explained
    def load(self, path: str | os.PathLike[str]) -> Self:
        """Take over the parameters and buffers of a file that `save` wrote: all of them, or none. Returns the layer.

        Raises
        ------
        ValueError
            If it is no such file, or a broken one, or a shape differs.
        KeyError, TypeError
            As `load_state_dict`.
        OSError
            If it is missing, no regular file, or may not be read.
        """
        return self.load_state_dict(saved.read(path))

    def _checked(self, state: Mapping[str, Array]) -> dict[str, Array]:
        """New arrays for every key, after checking all of `state`."""
        if not isinstance(state, Mapping):
            raise TypeError(f"state: expected a dict of arrays by key, got {type(state).__name__}")
        here = {**self.params, **self.buffers}
        missing = [key for key in here if key not in state]
        unknown = [key for key in state if key not in here and not counts(key, here)]
        if missing or unknown:
            raise KeyError(
                f"state: expected the keys {list(here)}; missing: {missing or 'none'}; unknown: {unknown or 'none'}"
            )
        loaded = {}
        for key, old in here.items():
            try:
                value = to_numpy(state[key]) if floating(**{key: state[key]}) else None
            except TypeError as error:
                raise TypeError(f"state[{key!r}]: {str(error).removeprefix(key + ': ')}") from None
            same_shape(f"state[{key!r}]", value, tuple(old.shape), "the layer's own")
            loaded[key] = self._converted(key, np.array(value))
        return loaded

    def _converted(self, key: str, value: np.ndarray) -> Array:
        """A value of a state_dict as an array of the layer's own, after checking that its numbers fit."""
        if np.iscomplexobj(value):
            raise TypeError(f"state[{key!r}]: expected dtype float32 or float64, got {value.dtype}")
        with np.errstate(over="ignore"):
            converted = self.to_array(value)
            if np.isinf(value).sum() != np.isinf(to_numpy(converted)).sum():
                raise ValueError(
                    f"state[{key!r}]: expected numbers that {self.dtype} can hold, got {np.abs(value).max()}"
                )
        return converted

    def _assign(self, loaded: Mapping[str, Array]) -> None:
        for mine in (self.params, self.buffers):
            for key in list(mine):
                mine[key] = loaded[key]

    # Moving

    @explained
    def to(self, device: str | None = None, *, dtype: Any = None, xp: ModuleType | None = None) -> Self:
        """Move parameters and buffers to another device, dtype or array module; caches are dropped. Returns the layer.

        Parameters
        ----------
        device
            "cuda": to the GPU. A layer of NumPy's becomes one of CuPy's, and takes CuPy's arrays from then on; one of
            torch's stays torch's. "cpu": the way back.
        dtype
            float32 or float64.
        xp
            The array module. On its default device, unless `device` says otherwise.

        Raises
        ------
        TypeError
            If dtype is not float32 or float64, or xp no array module.
        ValueError
            If device is not "cpu" or "cuda".
        npattn.backend.DeviceError
            If a GPU is asked for and there is none. The layer stays as it was.
        """
        state = {key: to_numpy(value) for key, value in {**self.params, **self.buffers}.items()}
        to_dtype = self.dtype if dtype is None else dtype_name(dtype)
        to_xp, to_device = (self.xp, self.device) if xp is None else (as_module(xp), None)
        if device is not None:
            to_xp, to_device = placed(device, to_xp)
        self.dtype, self.xp, self.device = to_dtype, to_xp, to_device
        self._assign({key: self.to_array(value) for key, value in state.items()})
        self.grads = {}
        self._forget("backward after to(), which drops the cache: call the layer on an input first")
        return self

    @explained
    def train(self, mode: bool = True) -> Self:
        """Set training mode, which only batch normalisation asks for. Returns the layer.

        Raises
        ------
        TypeError
            If mode is neither True nor False.
        """
        self.training = true_or_false("mode", mode)
        return self

    def eval(self) -> Self:
        """Set evaluation mode. Gradients still work. Returns the layer."""
        return self.train(False)

    def count(self) -> int:
        """The number of learnable parameters."""
        return sum(math.prod(value.shape) for value in self.params.values())

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __reduce__(self) -> tuple[Any, ...]:
        """How it is copied and pickled: made without its constructor's arguments, then given its state."""
        return blank, (type(self),), self.__getstate__()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle takes along. A module goes by its name."""
        return {**self.__dict__, "xp": self.xp.__name__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {**state, "xp": importlib.import_module(state["xp"])}


def blank(kind: type[State]) -> State:
    """An object of a layer's class to which nothing has been done."""
    return object.__new__(kind)


def counts(key: Any, here: Mapping[str, Array]) -> bool:
    """Whether this is the key of PyTorch's counter of batches, beside running statistics that are here."""
    before = key.removesuffix("num_batches_tracked") if isinstance(key, str) else key
    return before != key and f"{before}running_mean" in here


def dtype_name(dtype: Any) -> str:
    """ "float32" or "float64", for a name or a dtype of any library. Raises TypeError for everything else.

    That of the other byte order is none: nothing here computes in it.
    """
    if dtype is not None:  # to NumPy that is float64
        name = numpy_name(dtype) or library_dtype(dtype)
        if name in ("float32", "float64"):
            return name
    raise TypeError(f"dtype: expected float32 or float64, got {shown(dtype)}")


def numpy_name(dtype: Any) -> str:
    """The name of what is a dtype to NumPy, in this machine's byte order; nothing for anything else."""
    try:
        found = np.dtype(dtype)
    except Exception:  # whatever comes of reading an object as a dtype: also a SyntaxError, of a text
        return ""
    return str(found.name) if found.isnative else ""


def library_dtype(dtype: Any) -> str:
    """The name of another library's dtype, "float32" for torch.float32, if that is what it is: found there by name."""
    if isinstance(dtype, str):
        return ""
    try:
        module, _, name = str(dtype).rpartition(".")
    except Exception:
        return ""
    return name if getattr(sys.modules.get(module), name, None) is dtype else ""


def generator(rng: np.random.Generator | int | None) -> np.random.Generator:
    """The generator itself, or one of that seed: layers that are handed the same one do not start alike.

    Raises
    ------
    TypeError, ValueError
        If it is no generator, no seed and not None.
    """
    try:
        if isinstance(rng, bool | np.bool_):
            raise TypeError
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        wanted = "expected a numpy.random.Generator, a seed (a whole number from 0) or None"
        raise kind(f"rng: {wanted}, got {shown(rng)}") from None


def uniform(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
    """First weights, uniform in ±1/√fan_in: PyTorch's default for Linear and Conv2d.

    PyTorch calls it kaiming_uniform with a = √5: a bound of √(6 / ((1 + a²) · fan_in)), which is 1/√fan_in.
    """
    bound = 1 / math.sqrt(fan_in)
    return rng.uniform(-bound, bound, shape)
