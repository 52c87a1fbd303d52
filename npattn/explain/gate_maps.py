"""Gates as pictures: how open a layer is at each place, whatever axes its gates have."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from npattn.arguments import explained
from npattn.backend import Array, to_numpy
from npattn.checks import each


@explained
def gate_maps(gates: Mapping[str, Array]) -> dict[str, np.ndarray]:
    """A map (N, h, w) for each layer whose gates tell places apart.

    A gate that is one for all channels, (N, 1, H, W), is its own map. One for the rows of each channel, (N, C, H, 1),
    and one for the columns, (N, C, 1, W), are averaged over the channels and multiplied, as the layer multiplies by
    both. A number for every pixel of every channel is no map.

    Parameters
    ----------
    gates
        By name, as `layer.attention` gives them: "stage2.attention.spatial".

    Returns
    -------
    dict
        By the gate's name; of rows and columns by both: "stage2.attention.rows × columns".

    Raises
    ------
    TypeError
        If gates is no dict, or a gate no float array.
    """
    found: dict[str, np.ndarray] = {}
    beside: dict[str, list[tuple[str, np.ndarray]]] = {}
    for name, gate in each("gates", gates):
        if gate.ndim != 4:
            continue
        _, C, H, W = gate.shape
        if C == 1 and (H, W) != (1, 1):
            found[name] = to_numpy(gate)[:, 0]
        elif (H == 1) != (W == 1):
            layer, _, kind = name.rpartition(".")
            beside.setdefault(layer, []).append((kind, to_numpy(gate).mean(axis=1)))
    for layer, several in beside.items():
        kinds = " × ".join(kind for kind, _ in several)
        product = several[0][1]
        for _, more in several[1:]:
            product = product * more
        found[f"{layer}.{kinds}" if layer else kinds] = product
    return found


@explained
def channel_bars(gates: Mapping[str, Array]) -> dict[str, np.ndarray]:
    """The gates that are one number a channel, (N, C, 1, 1) with C > 1, as (N, C), by name."""
    return {
        name: to_numpy(gate)[:, :, 0, 0]
        for name, gate in each("gates", gates)
        if gate.ndim == 4 and gate.shape[1] > 1 and tuple(gate.shape[2:]) == (1, 1)
    }
