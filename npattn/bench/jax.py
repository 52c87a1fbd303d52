"""JAX's side: the article's blocks by their formulas in jax.numpy, compiled by XLA, and JAX's own gradient.

`jit` of the forward, and of value and vector-Jacobian product together. Equal maxima share the gradient there, so it
is compared on data without ties only.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from npattn.bench.sides import Side

Weights = Mapping[str, Any]


def jax_module() -> Any:
    """jax, or None where it is not installed."""
    try:
        return importlib.import_module("jax")
    except ImportError:
        return None


def se(jax: Any, x: Any, w: Weights) -> Any:
    """x · σ(W₂ relu(W₁ mean(x)))."""
    hidden = jax.nn.relu(x.mean((2, 3)) @ w["fc.0.weight"].T)
    return x * jax.nn.sigmoid(hidden @ w["fc.2.weight"].T)[:, :, None, None]


def channel(jax: Any, x: Any, w: Weights) -> Any:
    """σ(mlp(mean(x)) + mlp(max(x))), over the pixels."""
    W1, W2 = w["fc1.weight"][:, :, 0, 0], w["fc2.weight"][:, :, 0, 0]
    a = sum(jax.nn.relu(s @ W1.T) @ W2.T for s in (x.mean((2, 3)), x.max((2, 3))))
    return jax.nn.sigmoid(a)[:, :, None, None]


def spatial(jax: Any, x: Any, w: Weights) -> Any:
    """σ(w ∗ [mean(x), max(x)]), over the channels."""
    maps = jax.numpy.stack([x.mean(1), x.max(1)], axis=1)
    kernel = w["conv1.weight"]
    return jax.nn.sigmoid(jax.lax.conv(maps, kernel, (1, 1), "SAME"))


def cbam(jax: Any, x: Any, w: Weights) -> Any:
    """u = x · channel(x), then u · spatial(u)."""
    u = x * channel(jax, x, {key[3:]: value for key, value in w.items() if key.startswith("ca.")})
    return u * spatial(jax, u, {key[3:]: value for key, value in w.items() if key.startswith("sa.")})


PEERS: dict[str, Callable[[Any, Any, Weights], Any]] = {
    "se": se,
    "channel": channel,
    "spatial": spatial,
    "cbam": cbam,
}
"""The article's blocks by the name of the card."""


def jax_side(card: str, state: Mapping[str, np.ndarray], x: np.ndarray, dy: np.ndarray) -> Side:
    """The block of PEERS with these weights, on the processor."""
    jax = jax_module()
    if x.dtype == np.float64:
        jax.config.update("jax_enable_x64", True)  # else it would compute with float32
    processor = jax.devices("cpu")[0]
    x_jax, dy_jax, weights = jax.device_put((x, dy, dict(state)), processor)

    def block(x: Any, w: Weights) -> Any:
        return PEERS[card](jax, x, w)

    def with_gradients(x: Any, w: Weights, dy: Any) -> Any:
        y, pulled_back = jax.vjp(block, x, w)
        return y, *pulled_back(dy)

    run, run_both = jax.jit(block), jax.jit(with_gradients)

    def forward() -> None:
        jax.block_until_ready(run(x_jax, weights))

    def both() -> dict[str, Any]:
        y, dx, grads = jax.block_until_ready(run_both(x_jax, weights, dy_jax))
        return {"y": y, "dx": dx, **grads}

    return Side("jax", forward, both, kind="compiled")
