"""CBAM of any two gates: which one first, both at once, one alone, a residual around them.

    x (N, C, H, W)   a gate is (N, C, 1, 1) from a channel attention, (N, 1, H, W) from a spatial one

    one after the other, in the order asked for, from u = x on
    VCB.1   g = the next attention of u            of what the gate before has left, not of x
    VCB.2   u ← u · g                  (N, C, H, W)

    in parallel
    VCB.3   g_c = channel attention of x           (N, C, 1, 1)
    VCB.4   g_s = spatial attention of x           (N, 1, H, W)   of x, too
    VCB.5   u = x · g_c · g_s          (N, C, H, W)

    VCB.6   y = u + x where a residual is asked for, else y = u

Channel first without a residual is CBAM.1 to CBAM.4. The attentions are layers, so VCB.1, VCB.3 and VCB.4 are calls of
them; the pair here is the product of three. Derivation: docs/variants.md
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from npattn.attention import gate
from npattn.backend import Array
from npattn.block import Card, Form, Place
from npattn.checks import floating, one_of, same_shape, shaped, true_or_false
from npattn.layer import Layer
from npattn.nested import Joined, Nested
from npattn.samples import Draw
from npattn.state import generator
from npattn.variants.channel import ChannelAttention
from npattn.variants.spatial import SpatialAttention


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    g_c: Array  # (N, C, 1, 1)
    g_s: Array  # (N, 1, H, W)


def forward(x: Array, g_c: Array, g_s: Array) -> tuple[Array, Cache]:
    """Scale x by two gates at once.

    Parameters
    ----------
    x : (N, C, H, W)
    g_c : (N, C, 1, 1)
    g_s : (N, 1, H, W)

    Returns
    -------
    u : (N, C, H, W)
    cache : Cache

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape that does not match.
    """
    floating(x=x, g_c=g_c, g_s=g_s)
    N, C, H, W = shaped("x", x, "N C H W")
    same_shape("g_c", g_c, (N, C, 1, 1), "a gate for each channel of x")
    same_shape("g_s", g_s, (N, 1, H, W), "a gate for each pixel of x")
    u = x * g_c * g_s  # VCB.5
    return u, Cache(x, g_c, g_s)


def backward(du: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return the direct part of dx, dg_c and dg_s.

    Parameters
    ----------
    du : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
        The direct part.
    dg_c : (N, C, 1, 1)
    dg_s : (N, 1, H, W)

    Raises
    ------
    TypeError, ValueError
        If du does not match u.
    """
    x, g_c, g_s = cache
    xp = floating(du=du, x=x)
    same_shape("du", du, tuple(x.shape), "the output u")

    # VCB.5 was u = x · g_c · g_s: each factor receives du times the two others, and a gate, broadcast, the sum
    dx_direct = du * g_c * g_s  # VCB.5
    dg_s = xp.sum(du * x * g_c, axis=1, keepdims=True)  # VCB.5
    dg_c = xp.sum(du * x * g_s, axis=(2, 3), keepdims=True)  # VCB.5
    return dx_direct, dg_c, dg_s


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of the forward, by the name of the case."""
    return {"two gates at once": (draw.x(), draw.w("N C 1 1"), draw.w("N 1 H W"))}


class CBAM(Nested):
    """CBAM of two gates as a layer: x (N, C, H, W) to x times both, the same shape.

    Parameters
    ----------
    channel
        A layer that returns a channel gate, `npattn.ChannelAttention` or `npattn.variants.ChannelAttention` say; None
        for no such gate.
    spatial
        A layer that returns a spatial gate; None for none. One of the two must be there.
    order
        "channel-first", "spatial-first", or "parallel": both gates are made from the same x, y = x · g_c · g_s.
    residual
        Whether x is added at the end.

    Attributes
    ----------
    params
        "ca." and the channel attention's own keys, "sa." and the spatial attention's.
    buffers
        Likewise.
    attention
        "channel" (N, C, 1, 1), "spatial" (N, 1, H, W).

    Raises
    ------
    TypeError
        If one is no layer, the two differ in array module or dtype, or residual is no bool.
    ValueError
        If order is not among those named, both gates are left out, or an order is asked for with one gate left out.

    Notes
    -----
    Derivation: docs/variants.md
    """

    input_axes = "N C H W"
    card = Card(
        "variants.cbam",
        "CBAM of any two gates",
        asks="what matters, and where?",
        gives="x · g_c · g_s",
        source="Woo et al., ECCV 2018, and the codebases that vary it",
        page="variants",
        size=(1, 2, 3, 3),
        seed=930,
        group=None,
        forms=(
            Form("cbam-spatial-first", "CBAM, spatial first", {"order": "spatial-first"}, "order in CBAM"),
            Form("cbam-parallel", "CBAM, both gates from x", {"order": "parallel"}, "order in CBAM"),
            Form("cbam-residual", "CBAM, + x", {"residual": True}, "order in CBAM"),
            Form("cbam-channel-alone", "CBAM without its spatial gate", {"spatial": None}),
            Form("cbam-spatial-alone", "CBAM without its channel gate", {"channel": None}),
            Form(
                "cbam-official",
                "CBAM as its authors released it: FC with biases, batch norm",
                {"channel": {"bias": True}, "spatial": {"maps": ("max", "mean"), "norm": True, "momentum": 0.01}},
            ),
        ),
    )

    def __init__(
        self, channel: Layer | None, spatial: Layer | None, *, order: str = "channel-first", residual: bool = False
    ) -> None:
        for name, layer in (("channel", channel), ("spatial", spatial)):
            if layer is not None and not isinstance(layer, Layer):
                raise TypeError(f"{name}: expected a layer or None, got {type(layer).__name__}")
        both = {"ca": channel, "sa": spatial}
        given = {name: layer for name, layer in both.items() if layer is not None}
        if not given:
            raise ValueError("channel, spatial: expected at most one of them None, got both: there would be no gate")
        self.order = one_of("order", order, ("channel-first", "spatial-first", "parallel"))
        if order != "channel-first" and len(given) < 2:
            raise ValueError(f"order: expected two gates to put in order, got {order!r} and one of them None")
        super().__init__(given)
        self.residual = true_or_false("residual", residual)
        self.sizes = {letter: n for layer in given.values() for letter, n in layer.sizes.items() if letter == "C"}

    @classmethod
    def fitting(
        cls,
        place: Place,
        *,
        channel: Mapping[str, Any] | None = MappingProxyType({}),
        spatial: Mapping[str, Any] | None = MappingProxyType({}),
        order: str = "channel-first",
        residual: bool = False,
        **options: Any,
    ) -> Self:
        """As `Block.fitting`; `channel` and `spatial` are options of the two gates, or None for no such gate."""
        options["rng"] = generator(options.get("rng"))  # one stream, so that the gates do not start alike
        ca = None if channel is None else ChannelAttention.fitting(place, **channel, **options)
        sa = None if spatial is None else SpatialAttention.fitting(place, **spatial, **options)
        return cls(ca, sa, order=order, residual=residual)

    def run(self, x: Array) -> tuple[Array, Any]:
        cache: Any
        if self.order == "parallel":
            g_c = self.layers["ca"].forward(x)  # VCB.3
            g_s = self.layers["sa"].forward(x)  # VCB.4
            u, cache = forward(x, g_c, g_s)  # VCB.5
        else:
            u, steps = x, []
            for layer in self.in_order():
                g = layer.forward(u)  # VCB.1
                u, step = gate.forward(u, g)  # VCB.2
                steps.append(step)
            cache = steps
        y = u + x if self.residual else u  # VCB.6
        self._after_run()
        self._gates = {name: g for layer in self.layers.values() for name, g in layer._gates.items()}
        return y, cache

    def undo(self, dy: Array, cache: Any) -> tuple[Array, MutableMapping[str, Array]]:
        # VCB.6 added x itself where there is a residual: one more way, of slope 1
        du = dy  # VCB.6
        if self.order == "parallel":
            # VCB.5 was a product of three
            dx_direct, dg_c, dg_s = backward(du, cache)  # VCB.5
            # VCB.4 and VCB.3 each made a gate from x: no way leads through both
            dx_s = self.layers["sa"].backward(dg_s)  # VCB.4
            dx_c = self.layers["ca"].backward(dg_c)  # VCB.3
            dx = dx_direct + dx_s + dx_c
        else:
            for layer, step in zip(reversed(self.in_order()), reversed(cache), strict=True):
                # VCB.2 was u · g: each factor receives du times the other
                du_direct, dg = gate.backward(du, step)  # VCB.2
                # VCB.1 made g from u, the second way on which u went on
                du_gate = layer.backward(dg)  # VCB.1
                du = du_direct + du_gate
            dx = du
        return dx + dy if self.residual else dx, Joined(self.layers, "grads")

    def in_order(self) -> list[Layer]:
        """The gates' layers, the one that goes first at the beginning."""
        layers = list(self.layers.values())
        return layers[::-1] if self.order == "spatial-first" else layers

    def __repr__(self) -> str:
        chosen = [] if self.order == "channel-first" else [f"order={self.order!r}"]
        parts = [repr(self.layers.get(name)) for name in ("ca", "sa")] + chosen + ["residual=True"] * self.residual
        return f"CBAM({', '.join(parts)})"
