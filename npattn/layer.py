"""Layers: thin objects that own parameters, run a pair of functions and keep the cache of the last forward.

There is no mathematics here. A layer is made from a pair by two methods: `run(x) -> (y, cache)` calls the pair's
forward with the layer's parameters, `undo(dy, cache) -> (dx, grads)` calls its backward and names the gradients. A
pair comes in two forms, textbook and fused; `self.pair` is the module of the one that the last forward took.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
from collections.abc import Iterator, Mapping, MutableMapping
from contextvars import ContextVar
from types import ModuleType
from typing import Any, Self, TypedDict

import numpy as np

from npattn.backend import (
    Array,
    array_module,
    as_module,
    copied,
    from_numpy,
    library_name,
    placed,
    quiet,
    to_numpy,
)
from npattn.checks import floating, same_shape, shaped

_keep_cache: ContextVar[bool] = ContextVar("keep_cache", default=True)


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Within `with npattn.no_grad():` a forward keeps no cache, which saves memory; `backward` then says so."""
    token = _keep_cache.set(False)
    try:
        yield
    finally:
        _keep_cache.reset(token)


def keeps_cache() -> bool:
    """Whether a forward is to keep what its backward needs: not within `no_grad`."""
    return _keep_cache.get()


@contextlib.contextmanager
def keep_caches() -> Iterator[None]:
    """Within the block a forward keeps its cache, even inside of `no_grad`: for what needs a backward of its own."""
    token = _keep_cache.set(True)
    try:
        yield
    finally:
        _keep_cache.reset(token)


module = functools.cache(importlib.import_module)
"""A module by its name, asked for at every call."""


class Options(TypedDict, total=False):
    """The keyword arguments that every layer takes."""

    dtype: Any
    rng: np.random.Generator | int | None
    xp: ModuleType | None
    fused: bool


def uniform(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
    """Initial weights, uniform in ±1/√fan_in: PyTorch's default for Linear and Conv2d.

    PyTorch calls it kaiming_uniform with a = √5: a bound of √(6 / ((1 + a²) · fan_in)), which is 1/√fan_in.
    """
    bound = 1 / math.sqrt(fan_in)
    return rng.uniform(-bound, bound, shape)


class Layer:
    """The base of all layers.

    Parameters
    ----------
    dtype
        float32 (the default) or float64, as a name or a dtype: that of the parameters, and the one that x must have.
    rng
        A `numpy.random.Generator` or a seed for the initial weights. None takes fresh ones each time.
    xp
        The array module of the parameters: `numpy` (the default), `cupy`, `torch`, …
        `to("cuda")` moves a layer to a GPU.
    fused
        Whether the fused form of the pair may be used where there is one and x is NumPy's. `path` says which ran.

    Attributes
    ----------
    params, grads
        Dicts, name to array, with the same keys and shapes. `backward` replaces `grads`; nothing is accumulated.
    buffers
        What is neither: the running statistics of batch normalisation.
    training
        The mode that `train()` and `eval()` set. Only batch normalisation asks for it.
    path
        "textbook" or "fused", whichever the last forward took; None before it.
    attention
        The gates of the last forward, name to array: "channel" (N, C, 1, 1), "spatial" (N, 1, H, W).
    xp, device
        The array module of the parameters, and the device of it; None is the module's default.

    Raises
    ------
    TypeError
        If dtype is not float32 or float64, rng no generator and no seed, or xp no array module.
    npattn.backend.DeviceError
        If xp is CuPy, and there is no GPU.
    """

    input_axes: str | None = None  # the axes that x must have, "N C H W" say; None leaves it to the pair
    channels: int | None = None  # the length that the axis C of x must have; None takes any
    room: str | None = None  # the module of the pair, "attention.cbam" say, if it has a twin, "fused.cbam"

    def __init__(
        self,
        *,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
        xp: ModuleType | None = None,
        fused: bool = True,
    ) -> None:
        self.xp = as_module(xp)
        self.device: Any = None
        self.dtype = dtype_name(dtype)
        try:
            self.rng = np.random.default_rng(rng)
        except (TypeError, ValueError) as error:
            raise type(error)(f"rng: expected a numpy.random.Generator, a seed or None, got {rng!r}") from None
        self.fused = bool(fused)
        self.signature = ""
        self.training = True
        self.params: MutableMapping[str, Array] = {}
        self.grads: MutableMapping[str, Array] = {}
        self.buffers: MutableMapping[str, Array] = {}
        self.path: str | None = None
        self._pair = ""
        self._gates: dict[str, Array] = {}
        self._cache: Any = None
        self._y: tuple[ModuleType, Any, tuple[int, ...]] | None = None
        self._no_cache = "backward before forward: call the layer on an input first"

    def own(self, values: Any) -> Array:
        """`values` as an array of the layer's library, device and dtype."""
        return from_numpy(np.asarray(values, dtype=self.dtype), self.xp, self.device)

    def where(self) -> str:
        """Library, device and dtype in words: "torch on cuda and float32"."""
        return library_name(self.xp) + ("" if self.device is None else f" on {self.device}") + f" and {self.dtype}"

    # The two that a subclass writes

    def run(self, x: Array) -> tuple[Array, Any]:
        """Return (y, cache) from the pair's forward."""
        raise NotImplementedError

    def undo(self, dy: Array, cache: Any) -> tuple[Array, MutableMapping[str, Array]]:
        """Return (dx, grads by name) from the pair's backward."""
        raise NotImplementedError

    def undo_params(self, dy: Array, cache: Any) -> MutableMapping[str, Array]:
        """The grads of `undo`. A layer overrides it where they take less work without dx."""
        return self.undo(dy, cache)[1]

    # Forward and backward

    def __call__(self, x: Array) -> Array:
        """The same as `forward`."""
        return self.forward(x)

    def forward(self, x: Array) -> Array:
        """Return y for the input x, and keep what `backward` needs. x must not be changed until then.

        Raises
        ------
        TypeError
            If x is no float array, or of another dtype or library than the parameters.
        ValueError
            If its shape does not fit.
        """
        xp = floating(x=x, **self.params)
        if x is None:
            raise TypeError("x: expected an array, got None")
        if self.input_axes is not None:
            shaped("x", x, self.input_axes, **({} if self.channels is None else {"C": self.channels}))
        self._cache = None
        self._no_cache = "backward after a forward that failed: call the layer on an input first"
        self._choose(x)
        with quiet():
            y, cache = self.pair.run(self, x) if self.varied else self.run(x)
        if _keep_cache.get():
            self._cache = cache
            self._y = (xp, y.dtype, tuple(y.shape))
        else:
            self._no_cache = (
                "backward after a forward under npattn.no_grad(), which keeps no cache: run forward outside of it"
            )
        return y

    def _choose(self, x: Array) -> None:
        """Set `pair` and `path`: the fused form of the pair where it may be used and can take x, else the textbook."""
        self.path = "textbook"
        if self.room is None:
            return
        room = self.room
        if self.fused and not self.varied:
            fused = module("npattn.fused")  # not before it is used: npattn imports as fast as NumPy
            if fused.takes(x, *self.params.values()):
                self.path = "fused"
                room = "fused." + room.rpartition(".")[2]
        self._pair = f"npattn.{room}"  # by name: a layer can be copied and pickled, a module cannot

    @property
    def varied(self) -> bool:
        """Whether an option asks for a pair of npattn.variants. Such a module brings `run` and `undo` of its own."""
        return self.room is not None and self.room.startswith("variants.")

    @property
    def pair(self) -> Any:
        """The module of the pair that the last forward took."""
        return module(self._pair)

    def backward(self, dy: Array) -> Array:
        """Return dx for the cotangent dy of the last forward's y, and set `grads`. Called again, it gives the same.

        Raises
        ------
        RuntimeError
            Before a forward, or after one under `npattn.no_grad()`.
        TypeError, ValueError
            If dy has not the library, dtype and shape of y.
        """
        self._fits(dy)
        with quiet():
            dx, grads = self.pair.undo(self, dy, self._cache) if self.varied else self.undo(dy, self._cache)
        self.grads = grads
        return dx

    def backward_params(self, dy: Array) -> None:
        """Set `grads` as `backward` does, with its errors, but leave dx out where that saves work.

        For a network in training, where nobody asks for the gradient of the images.
        """
        if self.varied:
            self.backward(dy)
            return
        self._fits(dy)
        with quiet():
            self.grads = self.undo_params(dy, self._cache)

    def _fits(self, dy: Array) -> None:
        """Check that there is a forward to undo, and that dy is a cotangent of its y."""
        if self._cache is None or self._y is None:
            raise RuntimeError(f"{type(self).__name__}: {self._no_cache}")
        xp, dtype, shape = self._y
        if floating(dy=dy) is not xp:
            same = f"the same library as the output y ({library_name(xp)})"
            raise TypeError(f"dy: expected an array of {same}, got {library_name(array_module(dy))}")
        if dy.dtype != dtype:
            raise TypeError(f"dy: expected dtype {dtype}, that of the output y, got {dy.dtype}")
        same_shape("dy", dy, shape, "the output y")

    @property
    def attention(self) -> dict[str, Array]:
        """Copies of the gates of the last forward, by name; empty before it, and for a layer that does not attend."""
        return {name: copied(gate) for name, gate in self._gates.items()}

    # Parameters and state

    def state_dict(self) -> dict[str, Array]:
        """Copies of the parameters and buffers, by PyTorch's keys, in PyTorch's shapes."""
        return {key: copied(value) for key, value in {**self.params, **self.buffers}.items()}

    def load_state_dict(self, state: Mapping[str, Array]) -> Self:
        """Take over parameters and buffers: all of them, or none if anything does not fit. Returns the layer.

        Parameters
        ----------
        state
            Key to float array (NumPy's, or the layer's library); exactly the keys and shapes of `state_dict`.

        Raises
        ------
        KeyError
            If a key is missing or unknown; the message lists each.
        TypeError
            If a value is no float array.
        ValueError
            If a shape differs, or a number is too large for the layer's dtype.
        """
        self._assign(self._checked(state))
        return self

    def _checked(self, state: Mapping[str, Array]) -> dict[str, Array]:
        """New arrays for every key, after checking all of `state`."""
        here = {**self.params, **self.buffers}
        missing = [key for key in here if key not in state]
        unknown = [key for key in state if key not in here]
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
            loaded[key] = self._taken(key, np.array(value))
        return loaded

    def _taken(self, key: str, value: np.ndarray) -> Array:
        """A value of a state_dict as an array of the layer's own, after checking that its numbers fit."""
        if np.iscomplexobj(value):
            raise TypeError(f"state[{key!r}]: expected dtype float32 or float64, got {value.dtype}")
        with np.errstate(over="ignore"):
            taken = self.own(value)
            if np.isinf(value).sum() != np.isinf(to_numpy(taken)).sum():
                raise ValueError(
                    f"state[{key!r}]: expected numbers that {self.dtype} can hold, got {np.abs(value).max()}"
                )
        return taken

    def _assign(self, loaded: Mapping[str, Array]) -> None:
        for mine in (self.params, self.buffers):
            for key in list(mine):
                mine[key] = loaded[key]

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
        self._assign({key: self.own(value) for key, value in state.items()})
        self.grads, self._gates = {}, {}
        self._cache, self._no_cache = (
            None,
            "backward after to(), which drops the cache: call the layer on an input first",
        )
        return self

    def train(self, mode: bool = True) -> Self:
        """Set training mode, which only batch normalisation asks for. Returns the layer."""
        self.training = bool(mode)
        return self

    def eval(self) -> Self:
        """Set evaluation mode. Gradients still work. Returns the layer."""
        return self.train(False)

    def count(self) -> int:
        """The number of learnable parameters."""
        return sum(math.prod(value.shape) for value in self.params.values())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.signature})"

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle takes along: all but the cache. A module goes by its name."""
        dropped = {"_cache": None, "_y": None, "_no_cache": "backward on a copy, which has no cache: run forward first"}
        return {**self.__dict__, **dropped, "xp": self.xp.__name__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {**state, "xp": importlib.import_module(state["xp"])}


def dtype_name(dtype: Any) -> str:
    """ "float32" or "float64", for a name or a dtype of any library. Raises TypeError for everything else."""
    try:
        name = str(np.dtype(dtype).name)
    except TypeError:
        name = str(dtype).rpartition(".")[2]
    if name not in ("float32", "float64"):
        raise TypeError(f"dtype: expected float32 or float64, got {dtype!r}")
    return name
