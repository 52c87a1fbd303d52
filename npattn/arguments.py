"""What a call is told whose arguments do not fit: who was called, what it takes, and which name was probably meant.

fitted(name, takes, args, kwargs)   the arguments by name, or a TypeError with all of that
explained                           a function or class whose calls are checked so
constructor(kind)                   what a layer's class is called with
did_you_mean(word, accepted)        the end of a message about a word that is none of those
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from inspect import Parameter, Signature
from typing import Any, TypeVar

SYNONYMS = (
    ("ratio", "reduction", "reduction_ratio", "r", "rd_ratio", "se_ratio", "squeeze_ratio", "squeeze_factor"),
    ("in_planes", "channel", "in_channels", "channels", "num_channels", "gate_channels", "planes", "dim", "inputs"),
    ("num_features", "channel", "channels", "in_channels", "planes", "dim", "features"),
    ("in_features", "in_channels", "in_dim", "inputs", "input_size"),
    ("out_features", "out_channels", "out_dim", "outputs", "output_size", "out_planes", "filters"),
    ("kernel_size", "kernel", "ks", "k", "k_size", "ksize"),
    ("hidden", "rd_channels", "hidden_channels", "hidden_dim", "mip", "squeeze_channels"),
    ("bias", "use_bias", "add_bias"),
    ("gate", "gate_layer", "gate_activation", "scale_activation"),
    ("act", "act_layer", "activation", "nonlinearity"),
    ("pools", "pool_types", "pooling"),
    ("avg", "average", "mean"),
    ("branch", "body", "main", "residual_branch"),
    ("skip", "shortcut", "downsample", "identity"),
    ("transform", "body", "main"),
    ("rng", "seed", "generator", "random_state", "key"),
    ("xp", "backend", "array_module", "library"),
    ("lr", "learning_rate", "rate", "eta", "step_size", "max_lr"),
    ("decay", "weight_decay", "wd", "l2"),
    ("beta1", "betas", "b1"),
    ("beta2", "betas", "b2"),
    ("eps", "epsilon"),
    ("params", "parameters"),
    ("epochs", "num_epochs", "n_epochs", "max_epochs", "iterations"),
    ("batch_size", "batch", "bs"),
    ("shift", "translate", "translation"),
    ("turn", "rotate", "rotation", "degrees", "angle"),
    ("zoom", "scale"),
    ("out", "out_dir", "output", "output_dir", "save_dir", "folder", "path", "run_dir", "logdir"),
    ("data_dir", "data", "root", "dataset", "folder", "path"),
    ("processes", "workers", "num_workers", "n_jobs", "jobs", "num_processes"),
    ("progress", "verbose", "quiet", "bar", "silent"),
    ("model", "network", "net", "arch", "architecture"),
    ("attention", "attn", "att", "block"),
    ("class_index", "target", "targets", "label", "labels", "class_idx", "classes", "category"),
    ("layer", "target_layer", "target_layers", "layer_name"),
    ("upsample", "resize", "interpolate"),
    ("normalise", "normalize", "norm"),
    ("strength", "alpha", "opacity"),
    ("maps", "cam", "cams", "heatmap", "mask"),
    ("x", "input", "inputs", "images", "image", "img", "input_tensor"),
    ("rtol", "tol", "tolerance", "rel_tol"),
    ("atol", "tol", "tolerance", "abs_tol"),
    ("raise_exception", "raises", "raise_on_failure"),
    ("wrt", "argnums", "argnum"),
    ("dialect", "codebase", "library"),
    ("state_dict", "state", "weights", "params"),
    ("shape", "size", "input_shape"),
)  # fmt: skip
"""What one and the same argument is called here and elsewhere, where the spelling does not tell."""

ELSEWHERE = {
    "device": ("xp", 'a layer is moved by layer.to("cuda")'),
    "inplace": ("xp", "nothing here is done in place"),
    "strict": ("state", "all keys must be there and no others"),
    "closure": ("grads", "the gradients are those of the last backward"),
}
"""What is taken elsewhere and not here: beside which argument, and what holds in its place."""

OPTIONS = {"dtype": "float32", "rng": None, "xp": None, "fused": True}
"""What every layer takes besides, with the defaults: a signature ends in `**options: Unpack[Options]` for these."""

BY_PLACE = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
ANY_NUMBER = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
Target = TypeVar("Target", bound=Callable[..., Any])
Classes = Mapping[str, Callable[..., Any]]


# Which name was meant


def nearest(word: str, accepted: Iterable[str]) -> list[str]:
    """Those of the accepted names that whoever wrote `word` probably means, mostly one; none if nothing is close."""
    names = {alike(name): [name] for name in accepted}
    synonyms: dict[str, list[str]] = {}
    for group in SYNONYMS:
        for spelling in group:
            synonyms.setdefault(spelling, []).extend(name for key in group for name in names.get(key, ()))
    synonyms = {spelling: list(dict.fromkeys(meant)) for spelling, meant in synonyms.items() if meant}
    wanted = alike(word)
    for known, cutoff in ((names, 1.0), (synonyms, 1.0), (names, 0.65), (synonyms, 0.85)):
        if close := difflib.get_close_matches(wanted, known, n=1, cutoff=cutoff):
            return known[close[0]]
    within = [name for spelling, (name,) in names.items() if len(wanted) > 2 and wanted in spelling]
    return within if len(within) <= 3 else []  # part of a few names: "cbam" of "CbamModule"


def alike(word: str) -> str:
    """A word without what people write in several ways: capitals, and hyphens for underscores."""
    return word.lower().replace("-", "_").strip("_ ")


def did_you_mean(word: Any, accepted: Iterable[str]) -> str:
    """ "; did you mean ratio?", the end of a message about a word that is not among the accepted ones, or nothing."""
    meant = nearest(word, accepted) if isinstance(word, str) else []
    return f"; did you mean {' or '.join(meant)}?" if meant else ""


# What a call takes


@functools.cache
def signature_of(function: Any) -> Signature | None:
    """What a function or method takes, without `self`, the options of every layer by name; None if nobody knows."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    parameters = [p for i, p in enumerate(signature.parameters.values()) if i or p.name != "self"]
    if parameters and parameters[-1].kind is Parameter.VAR_KEYWORD and "Options" in str(parameters[-1].annotation):
        parameters[-1:] = [Parameter(name, Parameter.KEYWORD_ONLY, default=value) for name, value in OPTIONS.items()]
    return signature.replace(parameters=parameters, return_annotation=Signature.empty)


@functools.cache
def constructor(kind: type) -> Signature | None:
    """What a class is called with, without what it names as `internal`, which its subclasses give; None as above."""
    own = signature_of(kind.__init__)  # type: ignore[misc]
    if own is None:
        return None
    internal = getattr(kind, "internal", ())
    return own.replace(parameters=[p for p in own.parameters.values() if p.name not in internal])


def called_with(kind: type, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A constructor's own arguments by name, the defaults too, without the options of every layer.

    Raises
    ------
    TypeError
        If the arguments do not fit.
    """
    takes = constructor(kind)
    if takes is None:
        return {}
    bound = fitted(kind.__name__, takes, args, kwargs)
    bound.apply_defaults()
    own = [p.name for p in takes.parameters.values() if p.kind not in ANY_NUMBER and p.name not in OPTIONS]
    return {name: bound.arguments[name] for name in own}


def arguments_text(kind: type, given: Mapping[str, Any]) -> str:
    """The arguments as one would write them: "8, ratio=4, bias=True". Keyword-only ones only where they were chosen."""
    takes, parts = constructor(kind), []
    for name, p in ({} if takes is None else takes.parameters).items():
        if name not in given or (p.kind is p.KEYWORD_ONLY and given[name] == p.default) or given[name] is None:
            continue
        value = tuple(given[name]) if isinstance(given[name], list) else given[name]
        parts.append(repr(value) if p.default is p.empty else f"{name}={value!r}")
    return ", ".join(parts)


# What does not fit


def fitted(
    name: str, takes: Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any], within: Classes | None = None
) -> inspect.BoundArguments:
    """The arguments of a call, by name.

    Parameters
    ----------
    name
        What the caller calls the function or class.
    takes
        What it takes.
    args, kwargs
        What it was given.
    within
        The class that an argument is made by: the caller may mean an argument of that one.

    Raises
    ------
    TypeError
        If they do not fit. It says what is too much or missing, which name was probably meant, and what there is.
    """
    try:
        return takes.bind(*args, **kwargs)
    except TypeError:
        wrong = "; ".join(misfits(takes, args, kwargs, within or {})).replace("?;", "?")
        end = "" if wrong.endswith("?") else "."
        raise TypeError(f"{name}: {wrong}{end} Its arguments: {listed(takes)}") from None


def misfits(takes: Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any], within: Classes) -> Iterator[str]:
    """What is wrong with the arguments of a call, in words."""
    placed = [p.name for p in takes.parameters.values() if p.kind in BY_PLACE]
    unknown = [key for key in kwargs if key not in takes.parameters]
    for key in unknown:
        yield f"unknown argument {key}{instead(key, takes, within)}"
    if len(args) > len(placed) and not any(p.kind is p.VAR_POSITIONAL for p in takes.parameters.values()):
        most = f"at most {len(placed)} without a name" if placed else "none without a name"
        yield f"expected {most}, got {len(args)}"
    for key in placed[: len(args)]:
        if key in kwargs:
            yield f"{key} is given twice, by its place and by its name"
    needed = [p.name for p in takes.parameters.values() if p.default is p.empty and p.kind not in ANY_NUMBER]
    missing = [key for key in needed if key not in kwargs and key not in placed[: len(args)]]
    if missing and not unknown:  # else it is probably the one of another name
        yield f"missing {' and '.join(missing)}"


def instead(key: str, takes: Signature, within: Classes) -> str:
    """What was probably meant by an unknown argument, as the end of a sentence; nothing if that cannot be told."""
    beside, words = ELSEWHERE.get(key, ("", ""))
    if beside in takes.parameters:
        return f": {words}"
    found = did_you_mean(key, takes.parameters)
    for argument, kind in within.items():
        for name in nearest(key, inspect.signature(kind).parameters) if not found else ():
            found = f"; did you mean {argument}={kind.__name__}({name}=…)?"
    return found


def listed(takes: Signature) -> str:
    """The arguments in a line: "in_planes, ratio=16, kernel_size=7, dtype, rng, xp, fused"."""
    parts = []
    for name, p in takes.parameters.items():
        stars = "*" if p.kind is p.VAR_POSITIONAL else "**" if p.kind is p.VAR_KEYWORD else ""
        plain = p.default is p.empty or callable(p.default) or (name in OPTIONS and p.default == OPTIONS[name])
        parts.append(f"{stars}{name}" if plain else f"{name}={p.default!r}")
    return ", ".join(parts) or "none"


def explained(target: Target) -> Target:
    """A function or class whose calls say what it takes, where they give something else. A decorator."""
    return explained_within()(target)


def explained_within(**within: Callable[..., Any]) -> Callable[[Target], Target]:
    """`explained`, where an argument is made by a class, whose own arguments may be meant: see `fitted`."""

    def decorate(target: Target) -> Target:
        function: Any = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
        bound = "self" in function.__code__.co_varnames[:1]  # a method, which is called with its object

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            takes = signature_of(function)
            if takes is not None:
                fitted(target.__name__, takes, args[bound:], kwargs, within)
            return function(*args, **kwargs)

        if not isinstance(target, type):
            return call  # type: ignore[return-value]
        target.__init__ = call  # type: ignore[misc]
        return target

    return decorate
