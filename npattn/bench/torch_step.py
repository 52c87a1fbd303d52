"""PyTorch's sides for the training step: the demo's network, with the same weights and optimiser."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from npattn.backend import as_module
from npattn.bench import pytorch
from npattn.bench.peers import part, peer
from npattn.bench.sides import BenchError, Side

Arrays = Mapping[str, np.ndarray]


def torch_train_side(
    name: str, attention: str, state: Arrays, x: np.ndarray, t: np.ndarray, device: str = "cpu"
) -> Side:
    """The demo's network, trained in the way of that name (pytorch.WAYS)."""
    torch = pytorch.torch_module()
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
            layers["attention"] = peer(torch, "cbam", part(state, f"{prefix}.attention."))
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
    model, (x_torch, t_torch) = pytorch.prepared(model, (x, t), name, device)
    run = pytorch.compiled(model, name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    measure_loss = nn.CrossEntropyLoss()

    def both() -> dict[str, Any]:
        optimizer.zero_grad(set_to_none=True)
        value = measure_loss(run(x_torch), t_torch)
        value.backward()
        optimizer.step()
        return {"loss": value.detach(), **{key: parameter.grad for key, parameter in model.named_parameters()}}

    return Side(name, None, both, xp=as_module(torch), kind=pytorch.WAYS[name].kind)
