"""What PyTorch computes for a pair of the library's table, by the pair's name: its functions, then its autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests import torch_reference
from tests.cases import leaves, mapped


def functional() -> Any:
    import torch.nn.functional as F

    return F


def channel_weights(params: Any) -> dict[str, Any]:
    return {"fc1.weight": params.w1[:, :, None, None], "fc2.weight": params.w2[:, :, None, None]}


def cbam_weights(params: Any) -> dict[str, Any]:
    gates = {f"ca.{key}": value for key, value in channel_weights(params.ca).items()}
    return gates | {"sa.conv1.weight": params.sa.w}


TWINS: dict[str, Callable[..., Any]] = {
    "relu": lambda x: functional().relu(x),
    "sigmoid": lambda x: x.sigmoid(),
    "linear": lambda x, p: functional().linear(x, p.w, p.b),
    "conv2d": lambda x, p: functional().conv2d(x, p.w, p.b, padding=p.w.shape[-1] // 2),
    "global average pool": lambda x: functional().adaptive_avg_pool2d(x, 1)[:, :, 0, 0],
    "global max pool": lambda x: functional().adaptive_max_pool2d(x, 1)[:, :, 0, 0],
    "channel mean": lambda x: x.mean(dim=1, keepdim=True),
    "channel max": lambda x: x.max(dim=1, keepdim=True).values,
    "2×2 average pool": lambda x: functional().avg_pool2d(x, 2),
    "2×2 max pool": lambda x: functional().max_pool2d(x, 2),
    "batch norm, train": lambda x, p: functional().batch_norm(x, None, None, p.gamma, p.beta, training=True),
    "batch norm, eval": lambda x, p, r: functional().batch_norm(x, r.mean, r.var, p.gamma, p.beta),
    "cross-entropy": lambda z, t: functional().cross_entropy(z, t),
    "gate": lambda x, g: x * g,
    "SE": lambda x, p: torch_reference.squeeze_excite(x, {"fc.0.weight": p.w1, "fc.2.weight": p.w2}),
    "channel attention": lambda x, p: torch_reference.channel_gate(x, channel_weights(p)),
    "spatial attention": lambda x, p: torch_reference.spatial_gate(x, {"conv1.weight": p.w}),
    "CBAM": lambda x, p: torch_reference.cbam(x, cbam_weights(p)),
}


def run(name: str, inputs: tuple[Any, ...], dy: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """y, and the gradient of every float input by its path in the tree, constants (running statistics) left out."""
    import torch

    def tensor(array: np.ndarray) -> Any:
        return torch.tensor(array, requires_grad=array.dtype.kind == "f")

    there = list(mapped(tensor, inputs))
    if name == "batch norm, eval":
        there[2] = mapped(lambda a: a.detach(), there[2])
    y = TWINS[name](*there)
    y.backward(torch.tensor(dy))
    return y.detach().numpy(), {path: leaf.grad.numpy() for path, leaf in leaves(tuple(there)) if leaf.grad is not None}
