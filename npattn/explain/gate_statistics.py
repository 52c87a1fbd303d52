"""Have the gates collapsed? Numbers that tell, from the gates of one forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from npattn import columns
from npattn.arguments import explained
from npattn.backend import Array, to_numpy
from npattn.checks import each, real_number
from npattn.notebook import html_table

SHUT, OPEN = 0.05, 0.95  # a gate beyond these is saturated: the sigmoid's slope there is below 0.05 · 0.95, a fifth of
NEAR = 0.05  # its largest. And one within this of ½ = σ(0) is where small weights, or blocked hidden units, leave it
LARGEST = 1e30  # no gate's mean or spread is beyond it, and a figure can still be drawn
RANGES = {
    "mean": (-LARGEST, LARGEST),
    "spread": (0.0, LARGEST),
    "over_images": (0.0, LARGEST),
    "saturated": (0.0, 1.0),
    "half": (0.0, 1.0),
}  # of the five numbers
HEAD = ("gate", *(key.replace("_", " ") for key in RANGES))


class GateStatistics(dict[str, dict[str, float]]):
    """The numbers of each gate, by name: a dict that is shown as a table."""

    def __repr__(self) -> str:
        return columns.table(HEAD, self.rows(), right=range(1, len(HEAD))) if self else "no gates"

    def _repr_html_(self) -> str:
        return html_table(HEAD, self.rows())

    def rows(self) -> list[tuple[str, ...]]:
        """Each gate's numbers as cells."""
        return [(name, *(f"{numbers[key]:.3f}" for key in RANGES)) for name, numbers in self.items()]


@explained
def gate_statistics(gates: Mapping[str, Array]) -> dict[str, dict[str, float]]:
    """Five numbers for each gate.

    A gate that nothing reaches is near ½ for every image; one that has collapsed is saturated for every image, and
    gradients hardly reach what it is made from. In both cases `over_images` is near 0: what does not depend on the
    image is a constant, by which the next layer's weights could be multiplied.

    Parameters
    ----------
    gates
        By name, as `layer.attention` gives them after a forward: (N, C, 1, 1), (N, 1, H, W) or any other shape with
        the N images first, between 0 and 1.

    Returns
    -------
    dict
        By the same names:

        mean, spread
            Of all entries, and their standard deviation.
        over_images
            The standard deviation of an entry over the N images; the mean of that over all channels, or pixels.
        saturated
            The share of the entries, 0 to 1, below 0.05 or above 0.95.
        half
            The share of the entries, 0 to 1, within 0.05 of ½.

    Raises
    ------
    TypeError
        If gates is no dict, or a gate no float array.
    ValueError
        If a gate has no numbers, or one that is not finite.
    """
    found = GateStatistics()
    for name, gate in each("gates", gates):
        g = np.asarray(to_numpy(gate), dtype=np.float64)  # in float32 a long mean would lose digits
        if g.ndim == 0 or g.size == 0 or not np.all(np.isfinite(g)):
            kind = f"shape {g.shape}" if g.ndim == 0 or g.size == 0 else "NaN or infinity"
            raise ValueError(f"gates[{name!r}]: expected finite numbers with the images first, got {kind}")
        found[name] = {
            "mean": float(np.mean(g)),
            "spread": float(np.std(g)),
            "over_images": float(np.mean(np.std(g, axis=0))),
            "saturated": float(np.mean((g < SHUT) | (g > OPEN))),
            "half": float(np.mean(np.abs(g - 0.5) < NEAR)),
        }
    return found


def checked_statistics(name: str, numbers: Any) -> dict[str, float]:
    """The five numbers of one gate, as plain ones, after checking what may come from a file.

    Raises
    ------
    TypeError
        If it is no dict, or one of them is no number.
    ValueError
        If one is missing, unknown or out of range.
    """
    if not isinstance(numbers, Mapping):
        raise TypeError(f"{name}: expected a dict of {', '.join(RANGES)}, got {numbers!r:.80}")
    if numbers.keys() != RANGES.keys():
        raise ValueError(f"{name}: expected {', '.join(RANGES)}, got {list(numbers)!r:.200}")
    return {key: real_number(f"{name}[{key!r}]", numbers[key], *RANGES[key]) for key in numbers}
