"""PyTorch's sides for a block: the article's classes and timm's in every way PyTorch runs them, and its autograd."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from npattn.backend import as_module
from npattn.bench import peers, timm
from npattn.bench.sides import Side
from npattn.grad_mode import no_grad
from npattn.layer import Layer

Arrays = Mapping[str, np.ndarray]

MOST = {"max_autotune": True, "coordinate_descent_tuning": True, "cpp_wrapper": True}
"""Those of mode "max-autotune-no-cudagraphs", and the calls between kernels in C++ too: small maps gain a fifth."""


class Way(NamedTuple):
    """How PyTorch runs a module."""

    kind: str = "eager"  # or "compiled"
    options: dict[str, bool] | None = None  # torch.compile's
    channels_last: bool = False  # x, dy and the module lie so in memory
    timm: bool = False  # timm's class, not the article's


WAYS = {
    "eager": Way(),
    "eager NHWC": Way(channels_last=True),
    "compiled": Way("compiled"),
    "compiled NHWC": Way("compiled", channels_last=True),
    "autotuned": Way("compiled", MOST),
    "timm": Way(timm=True),
    "timm compiled": Way("compiled", timm=True),
}
"""The sides by name; NHWC is PyTorch's channels_last."""


def torch_module() -> Any:
    """torch, or None where it is not installed."""
    try:
        return importlib.import_module("torch")
    except ImportError:
        return None


def torch_on(device: str) -> Any:
    """torch, or None where it is not installed, or has no GPU and one is asked for."""
    torch = torch_module()
    return torch if torch and (device == "cpu" or torch.cuda.is_available()) else None


def ways(beside: Collection[str], *, timms: bool) -> dict[str, Way]:
    """Those of WAYS that were asked for, timm's only where it has the block. Forgets what was compiled before."""
    asked = {name: way for name, way in WAYS.items() if name in beside and (timms or not way.timm)}
    if any(way.kind == "compiled" for way in asked.values()):
        torch_module()._dynamo.reset()
    return asked


def torch_sides(
    card: str, layer: Layer, x: np.ndarray, dy: np.ndarray, beside: Collection[str], device: str = "cpu"
) -> list[Side]:
    """What a layer is compared with: the peers of its card, in all ways, or autograd if there is none."""
    if card not in peers.PEERS:
        return [autograd_side(layer, x, dy, device)] if "autograd" in beside else []
    torch, state = torch_module(), layer.state_dict()
    sides = []
    for name, way in ways(beside, timms=card in timm.PEERS and timm.layers() is not None).items():
        module = (timm if way.timm else peers).peer(torch, card, state)
        sides.append(torch_side(name, module, x, dy, device))
        if way.timm:
            sides[-1].both = by_our_names(sides[-1].both, timm.renamed(card, {key: key for key in state}))
    return sides


def by_our_names(both: Callable[[], dict[str, Any]], ours: Mapping[str, str]) -> Callable[[], dict[str, Any]]:
    """The same call, with what it returns under our names."""
    return lambda: {ours.get(key, key): value for key, value in both().items()}


def prepared(module: Any, arrays: Collection[np.ndarray], name: str, device: str) -> tuple[Any, list[Any]]:
    """A module and tensors of these arrays where and as the way of that name has them."""
    torch = torch_module()
    order = torch.channels_last if WAYS[name].channels_last else torch.preserve_format
    tensors = [torch.from_numpy(array).to(device) for array in arrays]
    return module.to(device, memory_format=order), [
        tensor.contiguous(memory_format=order) if tensor.ndim == 4 and WAYS[name].channels_last else tensor
        for tensor in tensors
    ]


def compiled(module: Any, name: str) -> Any:
    """What the way of that name runs: the module, or the module compiled."""
    way = WAYS[name]
    return torch_module().compile(module, dynamic=False, options=way.options) if way.kind == "compiled" else module


def torch_side(name: str, module: Any, x: np.ndarray, dy: np.ndarray, device: str = "cpu") -> Side:
    """A module of PyTorch's, run in the way of that name."""
    torch = torch_module()
    module, (x_plain, dy_torch) = prepared(module, (x, dy), name, device)
    x_grad = x_plain.detach().requires_grad_()
    # two of them: without gradients it is another graph, and would be compiled at every turn
    run, run_plain = compiled(module, name), compiled(module, name)

    def forward() -> None:
        with torch.inference_mode():  # as no_grad, and quicker
            run_plain(x_plain)

    def both() -> dict[str, Any]:
        module.zero_grad(set_to_none=True)
        x_grad.grad = None
        y = run(x_grad)
        y.backward(dy_torch)
        return {"y": y.detach(), "dx": x_grad.grad, **{key: p.grad for key, p in module.named_parameters()}}

    def release() -> None:
        x_grad.grad = None

    return Side(name, forward, both, release, as_module(torch), kind=WAYS[name].kind)


def autograd_side(layer: Layer, x: np.ndarray, dy: np.ndarray, device: str = "cpu") -> Side:
    """Our own textbook forward on torch's tensors, and torch's autograd in place of our backward."""
    torch = torch_module()
    on_torch = copy.deepcopy(layer).to(device, xp=torch)
    leaves = {key: value.requires_grad_() for key, value in on_torch.params.items()}
    buffers = dict(on_torch.buffers)
    x_plain, dy_torch = (torch.from_numpy(array).to(device) for array in (x, dy))
    x_grad = x_plain.detach().requires_grad_()

    def ran(x: Any) -> Any:
        for key, value in buffers.items():  # a forward would move those of the last one, and drag its graph along
            on_torch.buffers[key] = value
        with no_grad():  # our cache is for our backward
            return on_torch(x)

    def forward() -> None:
        with torch.no_grad():
            ran(x_plain)

    def both() -> dict[str, Any]:
        for leaf in (x_grad, *leaves.values()):
            leaf.grad = None
        y = ran(x_grad)
        y.backward(dy_torch)
        return {"y": y.detach(), "dx": x_grad.grad, **{key: leaf.grad for key, leaf in leaves.items()}}

    def release() -> None:
        x_grad.grad = None
        forward()  # in place of gates that hold the graph

    return Side("autograd", forward, both, release, as_module(torch), kind="eager")
