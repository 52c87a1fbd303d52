"""Squeeze-and-excitation with options: x times the channel gate of `npattn.variants.channel`.

    x (N, C, H, W)

    VSE.1   g = channel gate of x      (N, C, 1, 1)
    VSE.2   y = x · g                  (N, C, H, W)

With the average, two FC without bias and the sigmoid these are SE.1 to SE.6. Derivation: docs/variants.md
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, NamedTuple

from npattn.attention.options import ChannelForm
from npattn.backend import Array
from npattn.checks import floating, same_shape
from npattn.variants import channel
from npattn.variants.channel import Params

SQUEEZE = ChannelForm(pools=("avg",))


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    g: Array  # (N, C, 1, 1)
    gate: channel.Cache


def forward(x: Array, params: Params, form: ChannelForm = SQUEEZE) -> tuple[Array, Cache]:
    """Scale every channel of x by its gate. Parameters and errors as in `npattn.variants.channel.forward`."""
    g, gate = channel.forward(x, params, form)  # VSE.1
    y = x * g  # VSE.2
    return y, Cache(x, g, gate)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients. Raises TypeError or ValueError if dy (N, C, H, W) does not match y."""
    x, g, gate = cache
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, tuple(x.shape), "the output y")

    # VSE.2 was y = x · g: each factor receives dy times the other, and g, broadcast over the pixels, their sum
    dx_direct = dy * g  # VSE.2
    dg = xp.sum(dy * x, axis=(2, 3), keepdims=True)  # VSE.2

    # VSE.1 made g from x, the second way on which x reached y
    dx_gate, grads = channel.backward(dg, gate)  # VSE.1
    dx = dx_direct + dx_gate
    return dx, grads


# The layer's side: names and shapes

FC = ("fc.0", "fc.2")


def run(layer: Any, x: Array) -> tuple[Array, Cache]:
    """`SELayer.run` with options."""
    y, cache = forward(x, channel.params_of(layer.params, FC), layer.form)
    layer._gates = {"channel": cache.g}
    return y, cache


def undo(layer: Any, dy: Array, cache: Cache) -> tuple[Array, MutableMapping[str, Array]]:
    """`SELayer.undo` with options."""
    dx, grads = backward(dy, cache)
    return dx, channel.named(grads, layer.params, FC)
