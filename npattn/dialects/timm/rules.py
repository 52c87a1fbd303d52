"""What timm's classes share: how widths are rounded, and which gates and activations are spoken here."""

from __future__ import annotations

from typing import Any

from npattn.checks import real_number, whole_number
from npattn.dialects.table import Seen, no_more


def divisible(width: float, divisor: int, limit: float = 0) -> int:
    """The multiple of the divisor that is nearest to `width`, halves upwards, and never 0: timm's rounding rule.

    If that is below `limit` times the width, the next one above it.
    """
    nearest = max(1, int(width + divisor / 2) // divisor) * divisor
    return nearest + divisor * (nearest < limit * width)


def width(channels: int, rd_ratio: float, rd_channels: int | None, rd_divisor: int) -> int:
    """The hidden width: rd_channels if it is given (and not 0), else channels · rd_ratio, rounded."""
    if rd_channels:
        return whole_number("rd_channels", rd_channels)
    channels, rd_divisor = whole_number("channels", channels), whole_number("rd_divisor", rd_divisor)
    return divisible(channels * real_number("rd_ratio", rd_ratio, least=0), rd_divisor)


def gate_of(gate_layer: str) -> str:
    """Ours for a gate of timm's: sigmoid, or the hard sigmoid with PyTorch's slope. Raises ValueError for others."""
    ours = {"sigmoid": "sigmoid", "hard_sigmoid": "torch_hard_sigmoid"}
    if gate_layer not in ours:
        raise ValueError(f"gate_layer: expected one of {', '.join(ours)}, which are spoken here, got {gate_layer!r}")
    return ours[gate_layer]


def act_of(act_layer: str) -> str:
    """Ours for an activation of timm's. Raises ValueError for others."""
    ours = {"relu": "relu", "silu": "silu", "swish": "silu"}
    if act_layer not in ours:
        raise ValueError(f"act_layer: expected one of {', '.join(ours)}, which are spoken here, got {act_layer!r}")
    return ours[act_layer]


def only(name: str, given: Any, spoken: Any) -> None:
    """Raise ValueError for an argument with another value than the one that is spoken here."""
    if given != spoken:
        raise ValueError(f"{name}: expected {spoken!r}, the only one spoken here, got {given!r}")


def channels_of(seen: Seen, divisor: int, bias: str, usual: bool) -> dict[str, Any]:
    """The arguments of a bottleneck: rd_channels where the default rule gives another width."""
    C, R = seen.sizes["C"], seen.sizes["R"]
    if width(C, 1 / 16, None, divisor) != R:
        no_more(seen)
    given = {} if width(C, 1 / 16, None, divisor) == R else {"rd_channels": R}
    return {"channels": C} | given | ({} if ("bias" in seen.present) is usual else {bias: not usual})
