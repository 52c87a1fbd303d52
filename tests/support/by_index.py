"""What the derivations share: sums written letter by letter, and the arrays that they are tried on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npattn import Layer
from npattn.explain.watch import Step


def same(found: np.ndarray, wanted: np.ndarray, what: str) -> None:
    """Assert that the two agree to rounding."""
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13, err_msg=what)


def filled(shape: tuple[int, ...], entry: Callable[..., Any]) -> np.ndarray:
    """The array whose entry at an index is what the formula says there."""
    out = np.zeros(shape)
    for index in np.ndindex(shape):
        out[index] = entry(*index)
    return out


def sigmoid(a: Any) -> Any:
    """1 / (1 + e⁻ᵃ)."""
    return 1 / (1 + np.exp(-a))


ACT = {"relu": lambda z: max(z, 0), "silu": lambda z: z * sigmoid(z)}
ACT_SLOPE = {
    "relu": lambda z: 1 if z > 0 else 0,
    "silu": lambda z: sigmoid(z) + z * sigmoid(z) * (1 - sigmoid(z)),
}
GATE = {"sigmoid": sigmoid, "hard_sigmoid": lambda a: min(max(a / 6 + 0.5, 0), 1)}


def at(array: np.ndarray, h: int, v: int) -> float:
    """The number at a pixel of (H, W); outside of the image there are zeros."""
    H, W = array.shape
    return array[h, v] if 0 <= h < H and 0 <= v < W else 0.0


def random(*shape: int, seed: int = 21) -> np.ndarray:
    """Normal numbers, the same each time."""
    return np.random.default_rng(seed).standard_normal(shape)


def image() -> np.ndarray:
    """Several images, H ≠ W."""
    return random(2, 3, 2, 4, seed=20)


def weights(layer: Layer, seed: int) -> Any:
    """The layer with O(1) weights."""
    rng = np.random.default_rng(seed)
    state = {key: rng.standard_normal(w.shape) for key, w in layer.params.items()}
    return layer.load_state_dict(state | dict(layer.buffers))


def reached(backward: Callable[..., Any], cache: Any, shape: tuple[int, ...], pixel: tuple[int, int]) -> np.ndarray:
    """Which pixels (H, W) the gradient of one output pixel comes back to."""
    dy = np.zeros(shape)
    dy[:, :, pixel[0], pixel[1]] = 1
    return np.any(backward(dy, cache)[0] != 0, axis=(0, 1))


def value(steps: list[Step], name: str, tag: str, nth: int = 0) -> np.ndarray:
    """What the nth line with the tag assigned to the name."""
    return [step.values[name] for step in steps if step.line.tag == tag and name in step.values][nth]


def same_at(steps: list[Step], **wanted: tuple[str, np.ndarray]) -> None:
    """Assert what tagged lines assigned, by name: the tag, and the numbers, whose axes of length 1 do not matter."""
    for name, (tag, numbers) in wanted.items():
        found = value(steps, name, tag)
        assert [n for n in found.shape if n > 1] == [n for n in numbers.shape if n > 1], f"{tag}, {name}: {found.shape}"
        same(found.reshape(numbers.shape), numbers, f"{tag}, {name}")


def normal(x: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """The rows of x (rows, K) at mean 0 and variance 1, and one over the spread of each (rows,)."""
    rows, K = x.shape
    mean = filled((rows,), lambda n: sum(x[n, k] for k in range(K)) / K)
    rho = filled((rows,), lambda n: 1 / np.sqrt(sum((x[n, k] - mean[n]) ** 2 for k in range(K)) / K + eps))
    return filled((rows, K), lambda n, k: (x[n, k] - mean[n]) * rho[n]), rho


def normal_back(dx_hat: np.ndarray, x_hat: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """What comes back through that: less the level, less the part along x̂."""
    rows, K = x_hat.shape
    level = filled((rows,), lambda n: sum(dx_hat[n, k] for k in range(K)) / K)
    along = filled((rows,), lambda n: sum(dx_hat[n, k] * x_hat[n, k] for k in range(K)) / K)
    return filled((rows, K), lambda n, k: rho[n] * (dx_hat[n, k] - level[n] - x_hat[n, k] * along[n]))


def first_pixel(xp: np.ndarray) -> np.ndarray:
    """The first pixel p of the largest number of each channel of xp (N, C, P)."""
    N, C, P = xp.shape
    return filled((N, C), lambda n, c: next(p for p in range(P) if xp[n, c, p] == max(xp[n, c]))).astype(int)


def gates_of(layer: Layer, x: np.ndarray) -> dict[str, tuple[int, ...]]:
    """The shapes of what the layer's `attention` holds after a forward."""
    layer(x.astype(np.float32))
    return {name: gate.shape for name, gate in layer.attention.items()}
