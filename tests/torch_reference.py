"""The blocks as functions of torch, for autograd to differentiate. Weights by PyTorch's keys."""

from __future__ import annotations

from typing import Any


def forward(block: str, x: Any, w: dict[str, Any]) -> Any:
    """The output of the block for x and its weights."""
    return BLOCKS[block](x, w)


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


def squeeze_scale(x, w):
    return x * x.mean(dim=(2, 3), keepdim=True)


def conv_gate(x, w):
    import torch.nn.functional as F

    return x * F.conv2d(x, w["conv.weight"], padding="same").sigmoid()


def se_gate(x, w):
    import torch.nn.functional as F

    hidden = F.relu(F.linear(F.adaptive_avg_pool2d(x, 1).flatten(1), w["fc.0.weight"]))
    return F.linear(hidden, w["fc.2.weight"]).sigmoid()[..., None, None]


def concat_gate(x, w):
    """As the article's English part has it: pooled by windows of the whole map, concatenated, two FC, sigmoid."""
    import torch
    import torch.nn.functional as F

    size = tuple(x.shape[2:])
    pooled = torch.cat([F.avg_pool2d(x, size, stride=1), F.max_pool2d(x, size, stride=1)], dim=1)
    return F.conv2d(F.relu(F.conv2d(pooled, w["fc1.weight"])), w["fc2.weight"]).sigmoid()


def point_wise(x, w):
    """PSANet's module pixel by pixel: a map of weights around every pixel, and the window of it over the image."""
    import torch
    import torch.nn.functional as F

    N, _, H, W = x.shape
    maps = {
        branch: F.conv2d(x, w[f"{branch}.weight"]).reshape(N, 2 * H - 1, 2 * W - 1, H, W)
        for branch in ("collect", "distribute")
    }
    collected = torch.zeros_like(x)
    distributed = torch.zeros_like(x)
    for h in range(H):
        for v in range(W):
            # the map has its own pixel in the middle, at (H-1, W-1); the image begins h rows above it, v columns left
            window = {b: m[:, H - 1 - h : 2 * H - 1 - h, W - 1 - v : 2 * W - 1 - v, h, v] for b, m in maps.items()}
            here = torch.zeros_like(x)
            here[:, :, h, v] = 1
            collected = collected + here * (window["collect"][:, None] * x).sum(dim=(2, 3), keepdim=True) / (H * W)
            distributed = distributed + window["distribute"][:, None] * x[:, :, h : h + 1, v : v + 1] / (H * W)
    return F.conv2d(torch.cat([x, collected, distributed], dim=1), w["fuse.weight"])


BLOCKS = {
    "SE": squeeze_excite,
    "channel": channel_gate,
    "spatial": spatial_gate,
    "CBAM": cbam,
    "squeeze": squeeze_scale,
    "conv gate": conv_gate,
    "SE's gate": se_gate,
    "concat": concat_gate,
    "PSA": point_wise,
}
