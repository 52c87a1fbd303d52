"""Layers: thin objects that own parameters, run a pair of functions and keep the cache of the last forward.

A layer keeps one forward: last_forward.py tells when a backward is refused because it may be meant for another.

There is no mathematics here. `forward` checks x and calls `run(x) -> (y, cache)`; `backward` checks dy and calls
`undo(dy, cache) -> (dx, grads)`. A block of one pair gets both from its declaration (block.py); layers that are made of
layers write them (nested.py, attention/gate.py). What a layer holds, and how it is saved and moved, is in state.py.

A pair comes in up to two forms, textbook and fused; `self.pair` is the module of the one that the last forward took.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, MutableMapping
from types import ModuleType
from typing import Any, TypedDict, TypeVar, overload

import numpy as np

from npattn.backend import Array, array_module, copied, is_torch, library_name, quiet
from npattn.checks import floating, same_shape, shaped, true_or_false
from npattn.grad_mode import keeps_cache
from npattn.last_forward import Kept, LastForward, running, undoing
from npattn.state import State

Kind = TypeVar("Kind", bound="np.dtype[Any]")
Other = TypeVar("Other")
"""For a type checker: from a NumPy array comes one of its dtype, with axes of its own; from another library's, its."""


class Options(TypedDict, total=False):
    """The keyword arguments that every layer takes."""

    dtype: Any
    rng: np.random.Generator | int | None
    xp: ModuleType | None
    fused: bool


class Layer(State):
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
        If dtype is not float32 or float64, rng no generator and no seed, xp no array module, or fused no bool.
    npattn.backend.DeviceError
        If xp is CuPy, and there is no GPU.
    """

    input_axes: str | None = None  # the axes that x must have, "N C H W" say; None leaves it to the pair
    textbook: str | None = None  # the name of the module with the layer's pair, if it has one of its own

    def __init__(
        self,
        *,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
        xp: ModuleType | None = None,
        fused: bool = True,
    ) -> None:
        super().__init__(dtype=dtype, rng=rng, xp=xp)
        self.fused = true_or_false("fused", fused)
        self.sizes: Mapping[str, int] = {}  # the lengths of axes that are fixed, by letter
        self.path: str | None = None
        self._pair: ModuleType | None = None
        self._gates: dict[str, Array] = {}
        self._last = LastForward("backward before forward: call the layer on an input first")

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

    @overload
    def __call__(self, x: np.ndarray[Any, Kind]) -> np.ndarray[Any, Kind]: ...
    @overload
    def __call__(self, x: Other) -> Other: ...
    def __call__(self, x: Array) -> Array:
        """The same as `forward`."""
        return self.forward(x)

    @overload
    def forward(self, x: np.ndarray[Any, Kind]) -> np.ndarray[Any, Kind]: ...
    @overload
    def forward(self, x: Other) -> Other: ...
    def forward(self, x: Array) -> Array:
        """Return y for the input x, and keep what `backward` needs, in place of what the last forward kept.

        x must not be changed until then.

        Raises
        ------
        TypeError
            If x is no float array, or of another dtype or library than the parameters.
        ValueError
            If its shape does not fit.
        """
        try:
            xp = floating(x=x, **self.params)
        except TypeError:
            self._check_fits(x)
            raise
        if x is None:
            raise TypeError("x: expected an array, got None")
        if self.input_axes is not None:
            shaped("x", x, self.input_axes, **self.sizes)
        with self._last.turn, running(), quiet():
            self._forget("backward after a forward that failed: call the layer on an input first")
            self._choose(x)
            y, cache = self.run(x)
            if keeps_cache():
                self._last.keep(x, y, cache, xp)
            else:
                self._last.without_cache(
                    "backward after a forward under npattn.no_grad(), which keeps no cache: run forward outside of it"
                )
        return y

    def _check_fits(self, x: Array) -> None:
        """Raise TypeError if x is no float array, or not of the parameters' library and dtype: with both ways out."""
        xp, first = floating(x=x), next(iter(self.params.values()), None)
        if first is None:
            return
        name, here = type(self).__name__, library_name(array_module(first))
        if array_module(first) is not xp:
            inside = "npattn.torch.module(layer), which takes tensors, " if is_torch(xp) else ""
            raise TypeError(
                f"x: expected an array of the same library as the parameters of {name} ({here}), got "
                f"{library_name(xp)}. Convert x, or use {inside}or a layer that works with {library_name(xp)}, "
                f"layer.to(xp={library_name(xp)})"
            )
        if x.dtype != first.dtype:
            theirs, ours = (str(array.dtype).rpartition(".")[2] for array in (x, first))
            raise TypeError(
                f"x: expected dtype {ours}, the same as the parameters of {name}, got {theirs}. Convert x, "
                f'x.astype("{ours}"), or the layer, layer.to(dtype="{theirs}")'
            )

    def _choose(self, x: Array) -> None:
        """Set `pair` and `path`: the fused form of the pair where it may be used and can take x, else the textbook."""
        self.path, self._pair = "textbook", None
        if self.textbook is None:
            return
        if self.fused:
            self._pair = faster(self.textbook, (x, *self.params.values()))
            self.path = "textbook" if self._pair is None else "fused"
        if self._pair is None:
            self._pair = sys.modules[self.textbook]

    @property
    def pair(self) -> Any:
        """The module of the pair that the last forward took."""
        return self._pair

    @overload
    def backward(self, dy: np.ndarray[Any, Kind]) -> np.ndarray[Any, Kind]: ...
    @overload
    def backward(self, dy: Other) -> Other: ...
    def backward(self, dy: Array) -> Array:
        """Return dx for the cotangent dy of the last forward's y, and set `grads`. Called again, it gives the same.

        A layer keeps one forward, the last. Where it went forward twice and dy may be for the first, it refuses.

        Raises
        ------
        RuntimeError
            Before a forward, or after one under `npattn.no_grad()`; where an earlier forward was replaced before its
            backward, and its output is still held, or this is the second backward (the first gives a RuntimeWarning
            then); where another thread's forward took the place of this thread's.
        TypeError, ValueError
            If dy has not the library, dtype and shape of y.
        """
        with self._last.turn, quiet():
            kept = self._to_undo(dy)
            with undoing(kept):
                dx, grads = self.undo(dy, kept.cache)
            self._last.undone()  # first, so that no other thread takes these for its own
            self.grads = grads
        return dx

    def backward_params(self, dy: Array) -> None:
        """Set `grads` as `backward` does, with its errors, but leave dx out where that saves work.

        For a network in training, where nobody asks for the gradient of the images.
        """
        with self._last.turn, quiet():
            kept = self._to_undo(dy)
            with undoing(kept):
                grads = self.undo_params(dy, kept.cache)
            self._last.undone()
            self.grads = grads

    def _to_undo(self, dy: Array) -> Kept:
        """The forward to undo, after checking that dy is a cotangent of its y."""
        try:
            kept = self._last.to_undo()
        except RuntimeError as error:
            raise RuntimeError(f"{type(self).__name__}: {error}") from None
        if floating(dy=dy) is not kept.xp:
            same = f"the same library as the output y ({library_name(kept.xp)})"
            raise TypeError(f"dy: expected an array of {same}, got {library_name(array_module(dy))}")
        if dy.dtype != kept.dtype:
            raise TypeError(f"dy: expected dtype {kept.dtype}, that of the output y, got {dy.dtype}")
        same_shape("dy", dy, kept.shape, "the output y")
        self._last.warn_if_skipped(type(self).__name__)
        return kept

    @property
    def attention(self) -> dict[str, Array]:
        """Copies of the gates of the last forward, by name; empty before it, and for a layer that does not attend."""
        return {name: copied(gate) for name, gate in self._gates.items()}

    def _forget(self, reason: str) -> None:
        self._last.forget(reason)
        self._gates = {}

    def _check_grads(self) -> None:
        try:
            self._last.check_grads()
        except RuntimeError as error:
            raise RuntimeError(f"{type(self).__name__}: {error}") from None

    def __getstate__(self) -> dict[str, Any]:
        """All but what belongs to the last forward."""
        state = {**super().__getstate__(), "_pair": None}
        del state["_last"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._last = LastForward("backward on a copy, which has no cache: run forward first")


Finder = Callable[[str, tuple[Array, ...]], ModuleType | None]
_finders: list[Finder] = []


def offer_faster(find: Finder) -> None:
    """Let layers ask `find(module, arrays)` for a faster form of a pair. npattn.fused, which knows both, calls this."""
    _finders.append(find)


def faster(textbook: str, arrays: tuple[Array, ...]) -> ModuleType | None:
    """A faster form of the pair in that module that takes these arrays, or None."""
    for find in _finders:
        found = find(textbook, arrays)
        if found is not None:
            return found
    return None
