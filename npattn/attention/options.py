"""What the layers can be asked for beyond the article: the options' names, their checks, the weights they need.

The article's blocks are the defaults. With any other choice a layer runs a pair of npattn.variants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from npattn.checks import hidden_width, odd, one_of, real_number, whole_number
from npattn.layer import uniform

POOLS = ("avg", "max", "lp", "lse")
MAPS = ("mean", "max")
GATES = ("sigmoid", "hard_sigmoid", "torch_hard_sigmoid")
TIES = ("first", "even")
ORDERS = ("channel-first", "spatial-first", "parallel")


class ChannelOptions(TypedDict, total=False):
    """The options of a channel gate, by name, as CBAM takes them."""

    hidden: int | None
    bias: bool
    pools: Sequence[str]
    mix: str
    layers: int
    gate: str
    max_tie: str


class SpatialOptions(TypedDict, total=False):
    """The options of a spatial gate, by name, as CBAM takes them."""

    maps: Sequence[str]
    mix: str
    bias: bool
    norm: bool
    momentum: float
    gate: str
    max_tie: str


class ChannelForm(NamedTuple):
    """Those options of a channel gate that its parameters do not show."""

    pools: tuple[str, ...] = ("avg", "max")
    mix: str = "after"
    gate: str = "sigmoid"
    max_tie: str = "first"


class SpatialForm(NamedTuple):
    """Those options of a spatial gate that its parameters do not show."""

    maps: tuple[str, ...] = ("mean", "max")
    mix: str = "concat"
    gate: str = "sigmoid"
    max_tie: str = "first"


class CbamForm(NamedTuple):
    """Those options of CBAM that its parameters do not show."""

    order: str = "channel-first"
    residual: bool = False
    channel: ChannelForm = ChannelForm()
    spatial: SpatialForm = SpatialForm()


def several(name: str, values: Sequence[str], accepted: tuple[str, ...]) -> tuple[str, ...]:
    """`values` as a tuple, after checking that there is at least one, each is among `accepted`, and none comes twice.

    Raises
    ------
    TypeError
        If it is one name and no sequence of names.
    ValueError
        If it is empty, a name is unknown, or one comes twice.
    """
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"{name}: expected a tuple of names out of {', '.join(map(repr, accepted))}, got {values!r}")
    if not values or len(set(values)) < len(values) or not set(values) <= set(accepted):
        raise ValueError(
            f"{name}: expected at least one of {', '.join(map(repr, accepted))}, none of them twice, "
            f"got {tuple(values)!r}"
        )
    return tuple(values)


def shown(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """What a layer's repr says of the options that are not the default ones."""
    return "".join(f", {name}={value!r}" for name, value in given.items() if value != defaults[name])


SE_ARTICLE = ChannelOptions(
    hidden=None, bias=False, pools=("avg",), mix="after", layers=2, gate="sigmoid", max_tie="first"
)
CHANNEL_ARTICLE = ChannelOptions(**{**SE_ARTICLE, "pools": ("avg", "max")})
SPATIAL_ARTICLE = SpatialOptions(
    maps=("mean", "max"), mix="concat", bias=False, norm=False, momentum=0.1, gate="sigmoid", max_tie="first"
)


class ChannelPlan(NamedTuple):
    """A channel gate that was asked for: its form, its initial weights, and what to show of it."""

    form: ChannelForm
    weights: dict[str, Any]  # "1.weight" (R, K), "1.bias" (R), "2.weight" (C, R), "2.bias" (C)
    article: bool  # whether the article's pair computes it
    shown: str

    def convolutions(self) -> dict[str, Any]:
        """The weights by the names and in the shapes of 1×1 convolutions: "fc1.weight" (R, K, 1, 1), …"""
        return {f"fc{name}": w[:, :, None, None] if w.ndim == 2 else w for name, w in self.weights.items()}


def channel_plan(
    rng: Any, channels: tuple[str, int], ratio: tuple[str, int], given: ChannelOptions,
    article: ChannelOptions, called: str = "{}",
) -> ChannelPlan:  # fmt: skip
    """Check the options of a channel gate and draw its weights. `channels` and `ratio` come with their names; `called`
    is what errors call an option.

    Raises
    ------
    TypeError, ValueError
        If a number is no whole number of at least 1, the ratio is larger than the channels and decides the hidden
        width, a name is unknown, or a hidden width is given where there is no hidden layer.
    """
    C = whole_number(*channels)
    form = ChannelForm(
        several(called.format("pools"), given["pools"], POOLS),
        one_of(called.format("mix"), given["mix"], ("after", "before", "concat")),
        one_of(called.format("gate"), given["gate"], GATES),
        one_of(called.format("max_tie"), given["max_tie"], TIES),
    )
    layers, hidden = whole_number(called.format("layers"), given["layers"]), given["hidden"]
    if layers > 2:
        raise ValueError(f"{called.format('layers')}: expected 1 (one FC) or 2 (FC, ReLU, FC), got {layers}")
    if layers == 1 and hidden is not None:
        raise ValueError(
            f"{called.format('hidden')}: expected None where layers=1, since one FC has no hidden units, got {hidden!r}"
        )
    whole_number(*ratio)
    K = C * len(form.pools) if form.mix == "concat" else C
    widths = [(C, K)]  # of each FC: out, in
    if layers == 2:
        R = hidden_width(*channels, *ratio) if hidden is None else whole_number(called.format("hidden"), hidden)
        widths = [(R, K), (C, R)]
    weights = {}
    for number, (out, fan_in) in enumerate(widths, 1):
        weights[f"{number}.weight"] = uniform(rng, (out, fan_in), fan_in)
        if given["bias"]:
            weights[f"{number}.bias"] = uniform(rng, (out,), fan_in)
    given = ChannelOptions(**{**given, "bias": bool(given["bias"]), "pools": form.pools})
    of_article = all(given[name] == article[name] for name in given if name != "hidden")  # type: ignore[literal-required]
    return ChannelPlan(form, weights, of_article, shown(given, article))


class SpatialPlan(NamedTuple):
    """A spatial gate that was asked for: its form, its initial values, and what to show of it."""

    form: SpatialForm
    params: dict[str, Any]
    buffers: dict[str, Any]
    momentum: float
    article: bool  # whether the article's pair computes it
    shown: str


def spatial_plan(rng: Any, kernel_size: int, given: SpatialOptions, called: str = "{}") -> SpatialPlan:
    """Check the options of a spatial gate and draw its weights; `called` is what errors call an option.

    Raises
    ------
    TypeError, ValueError
        If kernel_size is no odd whole number, a name is unknown, momentum is outside [0, 1], or given without a norm.
    """
    k = odd("kernel_size", kernel_size)
    form = SpatialForm(
        several(called.format("maps"), given["maps"], MAPS),
        one_of(called.format("mix"), given["mix"], ("concat", "mean")),
        one_of(called.format("gate"), given["gate"], GATES),
        one_of(called.format("max_tie"), given["max_tie"], TIES),
    )
    momentum = real_number(called.format("momentum"), given["momentum"], least=0, most=1)
    if momentum != SPATIAL_ARTICLE["momentum"] and not given["norm"]:
        raise ValueError(
            f"{called.format('momentum')}: expected norm=True with it, whose statistics it moves, got {momentum}"
        )
    n = len(form.maps) if form.mix == "concat" else 1
    params: dict[str, Any] = {"conv1.weight": uniform(rng, (1, n, k, k), fan_in=n * k * k)}
    if given["bias"]:
        params["conv1.bias"] = uniform(rng, (1,), fan_in=n * k * k)
    buffers = {}
    if given["norm"]:
        params |= {"bn.weight": [1.0], "bn.bias": [0.0]}
        buffers = {"bn.running_mean": [0.0], "bn.running_var": [1.0]}
    given = SpatialOptions(
        **{**given, "maps": form.maps, "bias": bool(given["bias"]), "norm": bool(given["norm"]), "momentum": momentum}
    )
    return SpatialPlan(form, params, buffers, momentum, given == SPATIAL_ARTICLE, shown(given, SPATIAL_ARTICLE))


def chosen(name: str, given: Any, article: Mapping[str, Any]) -> dict[str, Any]:
    """The options of one of CBAM's gates: the article's, with those in the dict `given` in their place.

    Raises
    ------
    TypeError
        If `given` is neither None nor a dict.
    ValueError
        If one of its names is unknown.
    """
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"{name}: expected None, False or a dict of options, got {given!r}")
    unknown = [option for option in given or {} if option not in article]
    if unknown:
        raise ValueError(f"{name}: expected only the options {', '.join(article)}, got {', '.join(map(str, unknown))}")
    return {**article, **(given or {})}


class CbamPlan(NamedTuple):
    """A CBAM that was asked for: its form, its initial values, and what to show of it."""

    form: CbamForm
    params: dict[str, Any]
    buffers: dict[str, Any]
    momentum: float
    article: bool  # whether the article's pair computes it
    shown: str


def cbam_plan(
    rng: Any, in_planes: int, ratio: int, kernel_size: int, order: str, residual: bool, channel: Any,
    spatial: Any,
) -> CbamPlan:  # fmt: skip
    """Check the options of CBAM and of its gates, and draw the weights.

    Raises
    ------
    TypeError, ValueError
        As the two gates' own; and if both are left out, or an order is asked for with one left out.
    """
    whole_number("in_planes", in_planes)
    one_of("order", order, ORDERS)
    if channel is False and spatial is False:
        raise ValueError("channel, spatial: expected at most one of them False, got both: there would be no gate")
    if order != ORDERS[0] and (channel is False or spatial is False):
        raise ValueError(f"order: expected two gates to put in order, got {order!r} and one of them False")
    form = CbamForm(order, bool(residual))
    said = shown({"order": order, "residual": form.residual}, {"order": ORDERS[0], "residual": False})
    article = not said and channel is not False and spatial is not False
    params: dict[str, Any] = {}
    buffers: dict[str, Any] = {}
    momentum = 0.1
    if channel is not False:
        options: Any = chosen("channel", channel, CHANNEL_ARTICLE)
        widths = ("in_planes", in_planes), ("ratio", ratio)
        ca = channel_plan(rng, *widths, options, CHANNEL_ARTICLE, called="channel[{!r}]")
        form, article = form._replace(channel=ca.form), article and ca.article
        params |= {f"ca.{name}": value for name, value in ca.convolutions().items()}
    if spatial is not False:
        options = chosen("spatial", spatial, SPATIAL_ARTICLE)
        sa = spatial_plan(rng, kernel_size, options, called="spatial[{!r}]")
        form, article, momentum = form._replace(spatial=sa.form), article and sa.article, sa.momentum
        params |= {f"sa.{name}": value for name, value in sa.params.items()}
        buffers |= {f"sa.{name}": value for name, value in sa.buffers.items()}
    for name, given in (("channel", channel), ("spatial", spatial)):
        if given or given is False:
            said += f", {name}={given!r}"
    return CbamPlan(form, params, buffers, momentum, article, said)
