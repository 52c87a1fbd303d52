"""What PyTorch computes for a pair of the library's table, by the case's name: its functions, then its autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npattn.blocks import Entry, blocks
from npattn.packing import fields
from tests.support.proofs import reference
from tests.support.trees import leaves, mapped


def functional() -> Any:
    import torch.nn.functional as F

    return F


def of_block(entry: Entry) -> Callable[..., Any]:
    """The reference of a block's proofs as a function of x and Params."""

    def twin(x: Any, params: Any) -> Any:
        found = dict(fields(params))
        weights = {w.key: found[w.field][w.put_on] for w in entry.kind.state if w.field in found}
        return reference(entry, x, weights)

    return twin


BLOCKS = ("se", "channel", "spatial", "cbam")  # and the forms of these: where NaN go in the others is not compared
TWINS: dict[str, Callable[..., Any]] = {
    "relu": lambda x: functional().relu(x),
    "sigmoid": lambda x: x.sigmoid(),
    "silu": lambda x: functional().silu(x),
    "linear": lambda x, p: functional().linear(x, p.w, p.b),
    "conv2d": lambda x, p: functional().conv2d(x, p.w, p.b, padding=p.w.shape[-1] // 2),
    "general convolution": lambda x, p: functional().conv2d(
        x, p.w, p.b, stride=(2, 1), padding=1, dilation=(1, 2), groups=2
    ),
    "convolution along the rows": lambda x, p: functional().conv2d(x, p.w, stride=3, padding=(2, 0), dilation=(2, 1)),
    "global average pool": lambda x: functional().adaptive_avg_pool2d(x, 1)[:, :, 0, 0],
    "global max pool": lambda x: functional().adaptive_max_pool2d(x, 1)[:, :, 0, 0],
    "channel mean": lambda x: x.mean(dim=1, keepdim=True),
    "channel max": lambda x: x.max(dim=1, keepdim=True).values,
    "2×2 average pool": lambda x: functional().avg_pool2d(x, 2),
    "2×2 max pool": lambda x: functional().max_pool2d(x, 2),
    "average over windows": lambda x: functional().avg_pool2d(x, 3, 2, 1),
    "average over oblong windows": lambda x: functional().avg_pool2d(x, (2, 3), (1, 2), 1, count_include_pad=False),
    "maximum over windows": lambda x: functional().max_pool2d(x, 3, 2, 1),
    "maximum over oblong windows": lambda x: functional().max_pool2d(x, (2, 3), (1, 2), 1),
    "resize": lambda x: functional().interpolate(x, size=(3, 7)),
    "resize, coarser": lambda x: functional().interpolate(x, size=(2, 2)),
    "batch norm, train": lambda x, p: functional().batch_norm(x, None, None, p.gamma, p.beta, training=True),
    "batch norm, eval": lambda x, p, r: functional().batch_norm(x, r.mean, r.var, p.gamma, p.beta),
    "layer norm": lambda x, p: functional().layer_norm(x, x.shape[-1:], p.gamma, p.beta),
    "group norm": lambda x, p: functional().group_norm(x, 2) * p.gamma[:, None, None] + p.beta[:, None, None],
    "softmax": lambda x: x.softmax(-1),
    "dot-product attention": lambda q, k, v: functional().scaled_dot_product_attention(q, k, v),
    "cross-entropy": lambda z, t: functional().cross_entropy(z, t),
    "gate": lambda x, g: x * g,
    **{name: of_block(entry) for name, entry in blocks().items() if entry.card.name in BLOCKS},
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
