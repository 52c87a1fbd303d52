"""Weights from other codebases: SE and CBAM as they write it, with equal outputs and gradients.

    layer = npattn.dialects.load("timm", "CbamModule", state_dict, channels=64)     # arguments as timm names them
    layer(x), layer.backward(dy)                                                    # what timm's module computes
    npattn.dialects.dump(layer)                                                     # a state_dict again, byte for byte

A dialect is a file here (timm a folder), and a class of that codebase a function in it: `DIALECTS` has their names.
table.py is the form that they share. candidates.py and detect.py ask which class a state_dict is of, network.py where
in a network there is one. weights_file.py reads and writes files, containers.py finds the weights among what else a
file holds. What differs, and why it matters: docs/dialects.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from npattn.arguments import did_you_mean, explained
from npattn.backend import Array, copied
from npattn.checks import floating
from npattn.dialects import (
    article,
    changzy00,
    dli14,
    ghostnet,
    lukemelas,
    luuuyi,
    mmpretrain,
    moskomule,
    official,
    paddleclas,
    paper,
    timm,
    torchvision,
    ultralytics,
    xmu,
)
from npattn.dialects.candidates import Candidate, candidates
from npattn.dialects.detect import AmbiguousError, UnknownError, detect
from npattn.dialects.keys import part, unwrapped
from npattn.dialects.network import inside
from npattn.dialects.numbers import HALF, NotRead, array_of, dtype_of
from npattn.dialects.spoken import Spoken
from npattn.dialects.table import COUNTER, TABLE, Misfit, Module, fit, own, shapes_of
from npattn.dialects.weights_file import Contents, FileError, contents, read, write
from npattn.layer import Layer
from npattn.state import dtype_name

FILES = (
    article,
    timm,
    torchvision,
    official,
    luuuyi,
    xmu,
    changzy00,
    ultralytics,
    mmpretrain,
    paddleclas,
    lukemelas,
    ghostnet,
    dli14,
    moskomule,
    paper,
)
DIALECTS = tuple(file.__name__.rpartition(".")[2] for file in FILES)
"""The codebases, by the names that `load` and `detect` have for them."""

__all__ = [
    "DIALECTS",
    "AmbiguousError",
    "Candidate",
    "Contents",
    "FileError",
    "Spoken",
    "UnknownError",
    "build",
    "candidates",
    "contents",
    "detect",
    "dump",
    "inside",
    "load",
    "part",
    "read",
    "write",
]


@explained
def load(dialect: str, module: str, state_dict: Mapping[str, Array], *, dtype: Any = None, **args: Any) -> Spoken:
    """Make a layer that computes what a module of another codebase does with these weights.

    Parameters
    ----------
    dialect
        One of `DIALECTS`.
    module
        The name of the class there, "CbamModule" say.
    state_dict
        Its keys and shapes, arrays of any library, float32 or float64. What wrappers put before all keys (`module.` and
        the like) is passed over, and so is what is known to be no weight, such as a profiler's `total_ops`.
    dtype
        float32 or float64: the layer's, and what the weights are converted to, from float16 and bfloat16 too. By
        default the layer has that of the weights.
    **args
        The constructor's arguments, named as there; what is left out has the default there.

    Returns
    -------
    Spoken
        A layer of that dtype, in training mode, whose parameters, buffers and gradients have the keys and shapes there.
        It returns what the module returns there: x times the gate, or the gate alone.

    Raises
    ------
    ValueError
        If dialect or module is unknown, an argument has a value that is not spoken, or a shape does not fit.
    TypeError
        If an argument is missing or unknown, or an entry is no float array.
    KeyError
        If a key is missing or unknown; the message lists each.
    """
    row = row_of(dialect, module)
    state = unwrapped(state_dict)
    if row.among:
        state = own(row, state)
    try:
        bound = row.bound(args)
    except TypeError as error:
        raise TypeError(f"{error}{hint(row, state)}") from None
    own_keys = {key.theirs for key in row.keys if key.ours != COUNTER}
    floats = {key: value for key, value in state.items() if key in own_keys}
    for key, value in floats.items():
        if not hasattr(value, "shape") or not hasattr(value, "dtype"):
            raise TypeError(f"{key}: expected an array, got {type(value).__name__}")
    wanted = dtype_in(floats) if dtype is None else dtype_name(dtype)
    layer = Spoken(row, bound, row.build(**bound, dtype=wanted))
    wrong = wrong_shapes(row, layer, state)
    if wrong:
        raise ValueError(f"{row.title}({row.arguments_text(bound)}): {wrong}{hint(row, state)}")
    if dtype is not None:
        state |= {key: in_dtype(key, value, wanted) for key, value in floats.items()}
    return layer.load_state_dict(state)


@explained
def build(dialect: str, module: str, *, dtype: Any = "float32", rng: Any = None, **args: Any) -> Spoken:
    """Make a layer as `load` does, with initial weights instead of given ones: PyTorch's defaults, drawn by `rng`.

    Parameters
    ----------
    dialect, module
        As in `load`.
    dtype, rng
        As in `npattn.Layer`.
    **args
        As in `load`.

    Returns
    -------
    Spoken
        As from `load`.

    Raises
    ------
    ValueError
        If dialect or module is unknown, or an argument has a value that is not spoken.
    TypeError
        If an argument is missing or unknown.
    """
    row = row_of(dialect, module)
    bound = row.bound(args)
    return Spoken(row, bound, row.build(**bound, dtype=dtype, rng=rng))


def dtype_in(floats: Mapping[str, Array]) -> str:
    """The dtype that all of these have. Raises TypeError if it is none to compute in, or they differ."""
    if not floats:
        return "float32"
    try:
        floating(**floats)
    except TypeError as error:
        coarse = any(dtype_of(value) in HALF for value in floats.values())
        more = '; dtype="float32" converts it' if coarse else ""
        raise TypeError(f"{error}{more}") from None
    return dtype_of(next(iter(floats.values())))


def in_dtype(key: str, value: Array, dtype: str) -> Array:
    """The value in that dtype if it is of floats. Raises TypeError if it has no numbers that NumPy could hold."""
    try:
        return array_of(value, dtype)
    except NotRead as error:
        raise TypeError(f"{key}: {error}") from None


@explained
def dump(layer: Layer, what: str = "state") -> dict[str, Array]:
    """Copy a loaded layer's parameters and buffers, or its gradients, in the keys and shapes of its codebase.

    Parameters
    ----------
    layer
        What `load` or `build` returned. A layer of npattn's own classes has its own keys: `layer.state_dict()`.
    what
        "state": everything that the state_dict has there, `num_batches_tracked` included. "grads": the gradients of the
        last backward, one for every parameter.

    Returns
    -------
    dict of str to array
        In the order that they have there.

    Raises
    ------
    TypeError
        If layer is not from `load` or `build`.
    ValueError
        If what is neither.
    RuntimeError
        If there are no gradients yet.
    """
    if not isinstance(layer, Spoken):
        raise TypeError(f"layer: expected one that npattn.dialects.load returned, got {type(layer).__name__}")
    if what == "state":
        return layer.state_dict()
    if what != "grads":
        raise ValueError(f"what: expected 'state' or 'grads', got {what!r}")
    if layer.params and not layer.grads:
        raise RuntimeError("grads before backward: call the layer on an input, and its backward, first")
    return {key: copied(gradient) for key, gradient in layer.grads.items()}


def row_of(dialect: str, module: str) -> Module:
    """The class in the table. Raises ValueError if there is none."""
    if dialect not in TABLE:
        raise ValueError(
            f"dialect: expected one of {', '.join(DIALECTS)}, got {dialect!r}{did_you_mean(dialect, DIALECTS)}"
        )
    if module not in TABLE[dialect]:
        meant = did_you_mean(module, TABLE[dialect])
        raise ValueError(f"module: expected one of {', '.join(TABLE[dialect])} in {dialect}, got {module!r}{meant}")
    return TABLE[dialect][module]


def hint(row: Module, state: Mapping[str, Array]) -> str:
    """The arguments that this state would fit, as the end of an error's message."""
    try:
        args = row.arguments(fit(row, {key: tuple(value.shape) for key, value in state.items()}))
    except (Misfit, AttributeError):
        return ""
    return f"; this state fits {row.title}({row.arguments_text(args)})"


def wrong_shapes(row: Module, layer: Spoken, state: Mapping[str, Array]) -> str:
    """What is wrong with the shapes, all of it; nothing if only keys are."""
    shapes = {key.theirs: shape for key, shape in shapes_of(row, layer.layer).items() if key.axes}
    wrong = [
        f"state[{key!r}]: expected shape {shape}, got {tuple(state[key].shape)}"
        for key, shape in shapes.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    return "; ".join(wrong)
