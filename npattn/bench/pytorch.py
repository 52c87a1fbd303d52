"""PyTorch's sides: the article's classes and the demo's network, eager or compiled, and autograd on our forwards."""

from __future__ import annotations

import copy
import importlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from npattn.backend import as_module
from npattn.bench.sides import BenchError, Side
from npattn.grad_mode import no_grad
from npattn.layer import Layer

Arrays = Mapping[str, np.ndarray]


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


def channel_gate(torch: Any, state: Arrays) -> Any:
    """The article's channel attention."""
    nn = torch.nn
    R, C = state["fc1.weight"].shape[:2]

    class ChannelGate(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.avg_pool, self.max_pool = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)
            self.fc1, self.fc2 = nn.Conv2d(C, R, 1, bias=False), nn.Conv2d(R, C, 1, bias=False)
            self.relu, self.sigmoid = nn.ReLU(), nn.Sigmoid()

        def forward(self, x: Any) -> Any:
            a_avg = self.fc2(self.relu(self.fc1(self.avg_pool(x))))
            a_max = self.fc2(self.relu(self.fc1(self.max_pool(x))))
            return self.sigmoid(a_avg + a_max)

    return ChannelGate()


def spatial_gate(torch: Any, state: Arrays) -> Any:
    """The article's spatial attention."""
    nn = torch.nn
    k = state["conv1.weight"].shape[2]

    class SpatialGate(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.sigmoid = nn.Conv2d(2, 1, k, padding=k // 2, bias=False), nn.Sigmoid()

        def forward(self, x: Any) -> Any:
            m_avg, (m_max, _) = torch.mean(x, dim=1, keepdim=True), torch.max(x, dim=1, keepdim=True)
            return self.sigmoid(self.conv1(torch.cat([m_avg, m_max], dim=1)))

    return SpatialGate()


def both_gates(torch: Any, state: Arrays) -> Any:
    """The article's CBAM."""

    class Both(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ca, self.sa = channel_gate(torch, part(state, "ca.")), spatial_gate(torch, part(state, "sa."))

        def forward(self, x: Any) -> Any:
            u = x * self.ca(x)
            return u * self.sa(u)

    return Both()


def squeeze_excite(torch: Any, state: Arrays) -> Any:
    """The article's SE."""
    nn = torch.nn
    R, C = state["fc.0.weight"].shape

    class SqueezeExcite(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.avg_pool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Sequential(
                nn.Linear(C, R, bias=False), nn.ReLU(inplace=True), nn.Linear(R, C, bias=False), nn.Sigmoid()
            )

        def forward(self, x: Any) -> Any:
            N, C, _, _ = x.size()
            g = self.fc(self.avg_pool(x).view(N, C)).view(N, C, 1, 1)
            return x * g.expand_as(x)

    return SqueezeExcite()


PEERS: dict[str, Callable[[Any, Arrays], Any]] = {
    "se": squeeze_excite,
    "channel": channel_gate,
    "spatial": spatial_gate,
    "cbam": both_gates,
}
"""The article's classes by the name of the card, each made from torch and a state_dict of the same keys and shapes."""


def part(state: Arrays, prefix: str) -> Arrays:
    """What stands in a state under a prefix."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def peer(name: str, state: Arrays) -> Any:
    """The module of PEERS of that name, with these weights."""
    torch = torch_module()
    tensors = {key: torch.from_numpy(value) for key, value in state.items()}
    module = PEERS[name](torch, state).to(next(iter(tensors.values())).dtype)
    module.load_state_dict(tensors)
    return module


def torch_sides(
    card: str, layer: Layer, x: np.ndarray, dy: np.ndarray, beside: Collection[str], device: str = "cpu"
) -> list[Side]:
    """What a layer is compared with: the peer of its card, eager and compiled, or autograd if there is none."""
    if card not in PEERS:
        return [autograd_side(layer, x, dy, device)] if "autograd" in beside else []
    names = [name for name in ("eager", "compiled") if name in beside]
    if "compiled" in names:
        torch_module()._dynamo.reset()
    return [torch_side(name, peer(card, layer.state_dict()), x, dy, device) for name in names]


def torch_side(name: str, module: Any, x: np.ndarray, dy: np.ndarray, device: str = "cpu") -> Side:
    """A module of PyTorch's, "eager" or "compiled"."""
    torch = torch_module()
    module = module.to(device)
    x_plain, dy_torch = (torch.from_numpy(array).to(device) for array in (x, dy))
    x_grad = x_plain.detach().requires_grad_()
    run, run_plain = module, module
    if name == "compiled":  # two of them: under no_grad it is another graph, and would be compiled at every turn
        run, run_plain = torch.compile(module, dynamic=False), torch.compile(module, dynamic=False)

    def forward() -> None:
        with torch.no_grad():
            run_plain(x_plain)

    def both() -> dict[str, Any]:
        module.zero_grad(set_to_none=True)
        x_grad.grad = None
        y = run(x_grad)
        y.backward(dy_torch)
        return {"y": y.detach(), "dx": x_grad.grad, **{key: p.grad for key, p in module.named_parameters()}}

    def release() -> None:
        x_grad.grad = None

    return Side(name, forward, both, release, as_module(torch))


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

    return Side("autograd", forward, both, release, as_module(torch))


def torch_train_side(
    name: str, attention: str, state: Arrays, x: np.ndarray, t: np.ndarray, device: str = "cpu"
) -> Side:
    """The demo's network in PyTorch, with the same weights, loss and optimiser."""
    torch = torch_module()
    nn = torch.nn
    if attention != "cbam":
        raise BenchError(f"the training step is compared with attention cbam only, got {attention}")

    def stage(prefix: str, pool: bool) -> Any:
        weight = state[f"{prefix}.conv.weight"]
        M, C, k, _ = weight.shape
        layers = {"conv": nn.Conv2d(C, M, k, padding=k // 2, bias=False)}
        if prefix == "stage1":  # pools at once
            layers["pool"] = nn.MaxPool2d(2)
        layers |= {"bn": nn.BatchNorm2d(M), "relu": nn.ReLU()}
        if f"{prefix}.attention.sa.conv1.weight" in state:
            layers["attention"] = peer("cbam", part(state, f"{prefix}.attention."))
        if pool:
            layers["pool"] = nn.MaxPool2d(2)
        return nn.Sequential(OrderedDict(layers))

    head = nn.Linear(*reversed(state["head.weight"].shape))
    parts = {f"stage{i}": stage(f"stage{i}", pool=i == 2) for i in (1, 2, 3, 4)}
    parts |= {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "head": head}
    model = nn.Sequential(OrderedDict(parts))
    missing, unknown = model.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()}, strict=False)
    if unknown or any("num_batches_tracked" not in key for key in missing):
        raise BenchError(f"the networks differ: {missing} {unknown}")
    model = model.to(device)
    run = torch.compile(model, dynamic=False) if name == "compiled" else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    x_torch, t_torch = (torch.from_numpy(array).to(device) for array in (x, t))
    measure_loss = nn.CrossEntropyLoss()

    def both() -> dict[str, Any]:
        optimizer.zero_grad(set_to_none=True)
        value = measure_loss(run(x_torch), t_torch)
        value.backward()
        optimizer.step()
        return {"loss": value.detach(), **{key: parameter.grad for key, parameter in model.named_parameters()}}

    return Side(name, None, both, xp=as_module(torch))
