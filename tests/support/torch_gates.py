"""What the blocks with options share, by torch's own functions: gates, poolings, maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def gate_function(name: str) -> Callable[[Any], Any]:
    """What makes a gate of a number. hardsigmoid's slope is 1/6 rounded to float32, so the exact one is a clamp."""
    import torch
    import torch.nn.functional as F

    return {
        "sigmoid": torch.sigmoid,
        "hard_sigmoid": lambda a: torch.clamp(a / 6 + 0.5, 0, 1),
        "hard_sigmoid_5": lambda a: torch.clamp(0.2 * a + 0.5, 0, 1),
        "paddle_hard_sigmoid": lambda a: torch.clamp(0.1666667 * a + 0.5, 0, 1),
        "torch_hard_sigmoid": F.hardsigmoid,
    }[name]


def pool(name: str, tie: str, x: Any) -> Any:
    """(N, C, H, W) to (N, C)."""
    import torch
    import torch.nn.functional as F

    size = tuple(x.shape[2:])
    return {
        "avg": lambda: F.adaptive_avg_pool2d(x, 1)[:, :, 0, 0],
        "max": lambda: x.amax((2, 3)) if tie == "even" else F.adaptive_max_pool2d(x, 1)[:, :, 0, 0],
        "lp": lambda: F.lp_pool2d(x, 2, size, stride=size)[:, :, 0, 0],
        "lse": lambda: torch.logsumexp(x, dim=(2, 3)),
    }[name]()


def channel_map(name: str, tie: str, x: Any) -> Any:
    """(N, C, H, W) to (N, 1, H, W)."""
    if name == "mean":
        return x.mean(dim=1, keepdim=True)
    return x.amax(1, keepdim=True) if tie == "even" else x.max(dim=1, keepdim=True).values
