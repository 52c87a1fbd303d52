"""The article's classes as modules of PyTorch, which ours are timed beside, with our weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]


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


def peer(torch: Any, name: str, state: Arrays) -> Any:
    """The module of PEERS of that name, with these weights."""
    return with_weights(torch, PEERS[name](torch, state), state)


def with_weights(torch: Any, module: Any, state: Arrays) -> Any:
    """A module with a state's weights, in their dtype."""
    tensors = {key: torch.from_numpy(value) for key, value in state.items()}
    module.to(next(iter(tensors.values())).dtype).load_state_dict(tensors)
    return module
