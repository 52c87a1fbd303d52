"""CBAM's spatial attention with options: which maps in which order, side by side or averaged, normalised or not.

    x (N, C, H, W)   n maps   w (1, n, k, k), for "mean" (1, 1, k, k), k odd   b (1) or none   norm: gamma, beta (1)

    VSA.1   m_i = mean or maximum over the channels of x       (N, 1, H, W)   for i = 1 … n, in the order asked for
    VSA.2   m = the maps together:
            "concat"   m = [m_1, …, m_n]                       (N, n, H, W)
            "mean"     m = (m_1 + … + m_n) / n                 (N, 1, H, W)
    VSA.3   c = w ∗ m + b                                      (N, 1, H, W)
    VSA.4   a = batch norm of c, where there is one, else c    (N, 1, H, W)
    VSA.5   g = gate(a)                                        (N, 1, H, W)

With the mean, then the maximum, no bias, no norm and the sigmoid these are SA.1 to SA.5. Derivation: docs/variants.md
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any, NamedTuple, Unpack

from npattn.backend import Array, array_module
from npattn.block import Block, Card, Form, Weight
from npattn.checks import floating, names_of, odd, odd_kernel, one_of, real_number, same_shape, true_or_false
from npattn.layer import Options
from npattn.ops import batch_norm, channel_even_max, channel_max, channel_mean, conv2d
from npattn.ops.gate_functions import GATES

MAPS: dict[str, Any] = {"mean": channel_mean, "max, first": channel_max, "max, even": channel_even_max}


class Settings(NamedTuple):
    """Those options that the parameters do not show."""

    maps: tuple[str, ...] = ("mean", "max")
    mix: str = "concat"
    gate: str = "sigmoid"
    max_tie: str = "first"

    def pairs(self) -> list[Any]:
        """The pairs that make the maps, in order."""
        return [MAPS[f"max, {self.max_tie}" if name == "max" else name] for name in self.maps]

    @property
    def n(self) -> int:
        """How many maps the kernel reads."""
        return len(self.maps) if self.mix == "concat" else 1


class Params(NamedTuple):
    w: Array  # (1, n, k, k), for "mean" (1, 1, k, k)
    b: Array | None = None  # (1)
    norm: batch_norm.Params | None = None


class Running(NamedTuple):
    norm: batch_norm.Running


class Cache(NamedTuple):
    settings: Settings
    maps: tuple[Any, ...]  # one cache a map
    conv: conv2d.Cache
    norm: batch_norm.Cache | None
    gate: Any
    g: Array  # (N, 1, H, W)


def forward(
    x: Array,
    params: Params,
    settings: Settings = Settings(),  # noqa: B008
    running: Running | None = None,
) -> tuple[Array, Cache]:
    """The spatial gate of x.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w and, if there are, b and norm.
    settings
        Which maps, mixed and gated how.
    running
        The statistics to normalise by, mean and variance (1), or None for those of the batch.

    Returns
    -------
    g : (N, 1, H, W)
        In [0, 1].
    cache : Cache

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape that does not match or an even k.
    """
    w, b, of_norm = params
    floating(x=x, w=w, b=b, **({} if of_norm is None else of_norm._asdict()))
    settings = checked_settings(*settings)
    odd_kernel("w", w, "1 n k k", n=settings.n)

    maps, of_maps = zip(*(pair.forward(x) for pair in settings.pairs()), strict=True)  # VSA.1
    m = reduce(add, maps) / len(maps) if settings.mix == "mean" else array_module(x).concat(maps, axis=1)  # VSA.2
    c, conv = conv2d.forward(m, conv2d.Params(w, b))  # VSA.3
    a, norm = c, None
    if of_norm is not None:
        a, norm = batch_norm.forward(c, of_norm, None if running is None else running.norm)  # VSA.4
    g, gate = GATES[settings.gate].forward(a)  # VSA.5
    return g, Cache(settings, of_maps, conv, norm, gate, g + 0)


def backward(dg: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients, None where there is no parameter.

    Parameters
    ----------
    dg : (N, 1, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params

    Raises
    ------
    TypeError, ValueError
        If dg does not match the gate.
    """
    settings, of_maps, conv, norm, gate, g = cache
    floating(dg=dg, g=g)
    same_shape("dg", dg, tuple(g.shape), "the output gate")

    # VSA.5 was g = gate(a)
    da = GATES[settings.gate].backward(dg, gate)  # VSA.5

    # VSA.4 was a normalisation, by statistics that x had a hand in or by constants
    dc, dnorm = da, None
    if norm is not None:
        dc, dnorm = batch_norm.backward(da, norm)  # VSA.4

    # VSA.3 was c = w ∗ m + b
    dm, (dw, db) = conv2d.backward(dc, conv)  # VSA.3

    # VSA.2 laid the maps on each other, and each takes its own back; or took their mean, and each has the same share
    n = len(of_maps)
    parts = [dm / n if settings.mix == "mean" else dm[:, i : i + 1, :, :] for i in range(n)]  # VSA.2

    # VSA.1 made n maps of x: its gradient comes back from all of them
    dx = [
        pair.backward(dm_i, cache_i) for pair, dm_i, cache_i in zip(settings.pairs(), parts, of_maps, strict=True)
    ]  # VSA.1
    return reduce(add, dx), Params(dw, db, dnorm)


def updated(running: Running, cache: Cache, momentum: float = 0.1) -> Running:
    """The running statistics moved towards those of the batch, as `npattn.ops.batch_norm.updated` does."""
    return Running(batch_norm.updated(running.norm, cache.norm, momentum))  # type: ignore[arg-type]


def checked_settings(maps: Sequence[str], mix: str, gate: str, max_tie: str) -> Settings:
    """The settings of these options, after checking each. Raises TypeError or ValueError for one that is unknown."""
    return Settings(
        names_of("maps", maps, ("mean", "max")),
        one_of("mix", mix, ("concat", "mean")),
        one_of("gate", gate, tuple(GATES)),
        one_of("max_tie", max_tie, ("first", "even")),
    )


class SpatialAttention(Block):
    """Spatial attention with options as a layer: x (N, C, H, W), any C, to its gate (N, 1, H, W).

    Parameters
    ----------
    kernel_size
        k, odd.
    maps
        What describes a pixel, in this order: ("mean", "max"), ("max", "mean"), ("mean",) or ("max",).
    mix
        "concat": the maps side by side, one after the other in the kernel. "mean": their mean as the only map.
    bias
        Whether the convolution has a bias.
    norm
        Whether there is a batch norm between convolution and gate. It has running statistics, as `npattn.BatchNorm2d`.
    momentum
        The share of the batch in those statistics, in [0, 1]. Only with norm=True.
    gate
        "sigmoid", or "hard_sigmoid": a/6 + 1/2 between 0 and 1; "torch_hard_sigmoid" has PyTorch's rounded slope.
    max_tie
        Which of several equal maxima gets the gradient: the "first", or all an "even" part.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        "conv1.weight" (1, 2, k, k), with one map (1, 1, k, k); "conv1.bias" (1,); "bn.weight" and "bn.bias" (1,).
    buffers
        With a norm "bn.running_mean" and "bn.running_var" (1,); `num_batches_tracked` counts their moves.
    attention
        "spatial" (N, 1, H, W).

    Raises
    ------
    TypeError, ValueError
        If kernel_size is no odd whole number, an option is not among those named, bias or norm no bool, or `momentum`
        is given without a norm.

    Notes
    -----
    Derivation: docs/variants.md
    """

    input_axes = "N C H W"
    state = (
        Weight("conv1.weight", "w", "1 n k k"),
        Weight("conv1.bias", "b", "1", fan_in="n k k"),
        *batch_norm.declared("bn", "norm", "1"),
    )
    gates = {"spatial": ("g", "N 1 H W")}
    arguments = {"kernel_size": "k"}
    card = Card(
        "variants.spatial",
        "spatial attention with options",
        asks="where does it matter?",
        gives="g (N, 1, H, W)",
        source="Woo et al., ECCV 2018, section 3.2, and the codebases that vary it",
        page="variants",
        size=(1, 2, 3, 3),
        seed=56,
        gate=True,
        group=None,
        forms=(
            Form("spatial-mean", "spatial attention from the mean only", {"maps": ("mean",)}, "poolings"),
            Form("spatial-max", "spatial attention from the maximum only", {"maps": ("max",)}, "poolings"),
            Form("spatial-swapped", "spatial attention, maximum before mean", {"maps": ("max", "mean"), "bias": True}),
            Form("spatial-mixed", "spatial attention of the mean of both maps", {"mix": "mean"}),
            Form("spatial-even-ties", "spatial attention, even ties", {"maps": ("max",), "max_tie": "even"}),
            Form("spatial-hard-sigmoid", "spatial attention, hard sigmoid", {"gate": "hard_sigmoid"}),
            Form("spatial-norm", "spatial attention, batch norm", {"norm": True}),
        ),
    )  # fmt: skip

    def __init__(
        self,
        kernel_size: int = 7,
        *,
        maps: Sequence[str] = ("mean", "max"),
        mix: str = "concat",
        bias: bool = False,
        norm: bool = False,
        momentum: float = 0.1,
        gate: str = "sigmoid",
        max_tie: str = "first",
        **options: Unpack[Options],
    ) -> None:
        settings = checked_settings(maps, mix, gate, max_tie)
        share = real_number("momentum", momentum, least=0, most=1)
        bias, norm = true_or_false("bias", bias), true_or_false("norm", norm)
        if share != 0.1 and not norm:
            raise ValueError(f"momentum: expected norm=True with it, whose statistics it moves, got {momentum}")
        sizes = {"k": odd("kernel_size", kernel_size), "n": settings.n}
        without = (() if bias else ("b",)) + (() if norm else ("norm",))
        super().__init__(sizes, without=without, settings={"settings": settings}, momentum=share, **options)
