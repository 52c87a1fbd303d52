"""The article's four classes as functions of torch, for autograd to differentiate. Weights by PyTorch's keys."""

from __future__ import annotations

from typing import Any


def forward(block: str, x: Any, w: dict[str, Any]) -> Any:
    """The output of "SE", "channel", "spatial" or "CBAM" for x and its weights."""
    return {"SE": squeeze_excite, "channel": channel_gate, "spatial": spatial_gate, "CBAM": cbam}[block](x, w)


def squeeze_excite(x, w):
    import torch.nn.functional as F

    descriptor = F.adaptive_avg_pool2d(x, 1).flatten(1)
    hidden = F.relu(F.linear(descriptor, w["fc.0.weight"]))
    gate = F.linear(hidden, w["fc.2.weight"]).sigmoid()
    return x * gate[..., None, None]


def channel_gate(x, w, prefix=""):
    import torch.nn.functional as F

    def mlp(descriptor):
        return F.conv2d(F.relu(F.conv2d(descriptor, w[f"{prefix}fc1.weight"])), w[f"{prefix}fc2.weight"])

    return (mlp(F.adaptive_avg_pool2d(x, 1)) + mlp(F.adaptive_max_pool2d(x, 1))).sigmoid()


def spatial_gate(x, w, prefix=""):
    import torch
    import torch.nn.functional as F

    kernel = w[f"{prefix}conv1.weight"]
    maps = torch.cat([x.mean(dim=1, keepdim=True), x.max(dim=1, keepdim=True).values], dim=1)
    return F.conv2d(maps, kernel, padding=kernel.shape[-1] // 2).sigmoid()


def cbam(x, w):
    refined = x * channel_gate(x, w, "ca.")
    return refined * spatial_gate(refined, w, "sa.")
