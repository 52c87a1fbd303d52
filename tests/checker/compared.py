"""Thirty targets for gradient checkers to be compared on, ten right and twenty wrong, each a pair with its inputs.

`python -m tests.checker.compare_checkers` asks several checkers about them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from npattn.attention import cbam, channel, se, spatial
from npattn.ops import batch_norm, channel_max, conv2d, linear, loss, relu, sigmoid
from tests.checker import zoo_ops  # noqa: F401 - its mistakes join the list
from tests.support import proofs
from tests.support.mistakes import MISTAKES


class Compared(NamedTuple):
    """One target."""

    about: str
    right: bool
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    inputs: tuple[Any, ...]


def targets() -> list[Compared]:
    """All thirty, the same at each call."""
    return [*right(np.random.default_rng(0)), *wrong_here(np.random.default_rng(0)), *wrong_elsewhere()]


def right(rng: np.random.Generator) -> list[Compared]:
    """What a checker must not reject."""
    x, image = rng.standard_normal((4, 3)), rng.standard_normal((2, 4, 3, 5))
    weights = se.Params(rng.standard_normal((2, 4)), rng.standard_normal((4, 2)))
    of_cbam = cbam.Params(channel.Params(*weights), spatial.Params(rng.standard_normal((1, 2, 3, 3))))
    params = linear.Params(rng.standard_normal((2, 3)), rng.standard_normal(2))
    labels = np.array([0, 2, 1, 2])
    near = np.array([1e-3, -1e-3, 1e-5, -1e-5, 1e-7, -1e-7, 1.0, -1.0])
    tied = rng.integers(0, 2, (2, 4, 3, 5)).astype(float)
    norm = batch_norm.Params(rng.standard_normal(4), rng.standard_normal(4))
    kernel = conv2d.Params(rng.standard_normal((2, 4, 3, 3)))
    pairs: list[tuple[str, Callable[..., Any], Callable[..., Any], tuple[Any, ...]]] = [
        ("a linear layer", linear.forward, linear.backward, (x, params)),
        ("a convolution", conv2d.forward, conv2d.backward, (image, kernel)),
        ("batch normalisation", batch_norm.train_forward, batch_norm.train_backward, (image, norm)),
        ("softmax and cross-entropy, labels given", loss.forward, loss.backward, (x, labels)),
        ("CBAM", cbam.forward, cbam.backward, (image, of_cbam)),
        ("a ReLU with inputs of 1e-3 to 1e-7", relu.forward, relu.backward, (near,)),
        ("a maximum over channels, tied", channel_max.forward, channel_max.backward, (tied,)),
        ("a linear layer at inputs of 1e6", linear.forward, linear.backward, (1e6 * x, params)),
        ("a sigmoid, nearly saturated", sigmoid.forward, sigmoid.backward, (30 * np.tanh(x),)),
        ("x⁴ at inputs of 1e-4", lambda x: (x**4, x), lambda dy, x: 4 * x**3 * dy, (1e-4 * x,)),
    ]
    return [Compared(about, True, forward, backward, inputs) for about, forward, backward, inputs in pairs]


def wrong_here(rng: np.random.Generator) -> list[Compared]:
    """What a checker must reject: mistakes that hide from some."""
    x, many = rng.standard_normal((4, 3)), rng.standard_normal((50, 60))
    image = rng.standard_normal((2, 4, 3, 5))

    def at_scale(scale: float) -> tuple[Any, ...]:
        return image, se.Params(scale * rng.standard_normal((2, 4)), scale * rng.standard_normal((4, 2)))

    def one_entry(dy: Any, cache: Any) -> Any:
        dx = sigmoid.backward(dy, cache)
        dx[37, 21] *= 1.01
        return dx

    def direct(dy: Any, cache: Any) -> Any:
        return dy * cache.g[:, :, None, None], se.backward(dy, cache)[1]

    def log_forward(x: Any) -> Any:
        return np.log(x * x + 1e-5), x

    def log_backward(dy: Any, x: Any) -> Any:
        return dy * 2 * x / (x * x)  # without the epsilon

    pairs: list[tuple[str, Callable[..., Any], Callable[..., Any], tuple[Any, ...]]] = [
        ("the gate's path forgotten, weights of 0.1", se.forward, direct, at_scale(0.1)),
        ("the gate's path forgotten, weights of 0.01", se.forward, direct, at_scale(0.01)),
        ("the gate's path forgotten, weights of 0.001", se.forward, direct, at_scale(0.001)),
        ("1 of 3,000 entries off by 1 %", sigmoid.forward, one_entry, (many,)),
        ("all entries off by 1e-4", sigmoid.forward, lambda dy, c: 1.0001 * sigmoid.backward(dy, c), (x,)),
        ("an epsilon on one side only", log_forward, log_backward, (1 + np.abs(x),)),
        ("twice too large, at y of 1e-6", lambda x: (1e-6 * x, None), lambda dy, c: 2e-6 * dy, (x,)),
        ("twice too large, for inputs of 1e-4", lambda x: (x**3, x), lambda dy, x: 6 * x**2 * dy, (1e-4 * x,)),
    ]
    return [Compared(about, False, forward, backward, inputs) for about, forward, backward, inputs in pairs]


FROM_THE_ZOO = {
    "linear_w_gradient_transposed": "a weight's gradient transposed",
    "linear_w_not_transposed_back": "a square weight not transposed back",
    "loss_sign": "the sign of a loss",
    "loss_not_averaged_over_the_batch": "a loss not averaged over the batch",
    "loss_ignores_its_cotangent": "a loss that ignores dy",
    "convolution_kernel_not_flipped": "a kernel not flipped",
    "convolution_border_forgotten": "a border forgotten",
    "batch_norm_without_the_path_of_the_variance": "batch normalisation without its variance's path",
    "cache_of_the_first_forward": "the cache of the first forward",
    "gradients_add_up_from_call_to_call": "gradients add up from call to call",
    "gradient_clipped": "a gradient clipped",
    "gradient_with_weight_decay_in_it": "a weight decay of 1e-4 in the gradient",
}


def wrong_elsewhere() -> list[Compared]:
    """Mistakes of the zoo, by name."""
    for file in proofs.files().values():
        proofs.mistakes_of(file)
    found = {repr(mistake): mistake for mistake in MISTAKES}
    chosen = []
    for name, about in FROM_THE_ZOO.items():
        (forward, backward), *inputs = found[name].asked(np.random.default_rng(1))
        chosen.append(Compared(about, False, forward, backward, tuple(inputs)))
    return chosen
