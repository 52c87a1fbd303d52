"""The optimiser of the demo: AdamW, and the one-cycle learning rate.

    m ← β₁ m + (1 − β₁) g          v ← β₂ v + (1 − β₂) g²          t ← t + 1
    p ← p − η · ( m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε) + λ p )    λ p for weights only, not for biases and batch norm

Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019, algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping

from npattn.backend import Array, array_module


class AdamW:
    """Adam with decoupled weight decay.

    Parameters
    ----------
    params
        Name to array: what will be updated. Its values are replaced, never written into.
    decay
        λ, at least 0, for arrays of two axes or more.
    beta1, beta2, eps
        As in the paper.
    """

    def __init__(
        self,
        params: MutableMapping[str, Array],
        *,
        decay: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ) -> None:
        self.params = params
        self.decay, self.beta1, self.beta2, self.eps = decay, beta1, beta2, eps
        self.steps = 0
        self.m = {key: array_module(p).zeros_like(p) for key, p in params.items()}
        self.v = {key: array_module(p).zeros_like(p) for key, p in params.items()}

    def step(self, grads: Mapping[str, Array], rate: float) -> None:
        """Update every parameter by its gradient, with the learning rate η = `rate`."""
        self.steps += 1
        unbias1 = 1 - self.beta1**self.steps
        unbias2 = 1 - self.beta2**self.steps
        for key, g in grads.items():
            p = self.params[key]
            self.m[key] = self.beta1 * self.m[key] + (1 - self.beta1) * g
            self.v[key] = self.beta2 * self.v[key] + (1 - self.beta2) * (g * g)
            spread = array_module(g).sqrt(self.v[key] / unbias2) + self.eps
            direction = self.m[key] / unbias1 / spread
            if p.ndim > 1:
                direction = direction + self.decay * p
            self.params[key] = p - rate * direction


def one_cycle(step: int, steps: int, peak: float, warmup: float = 0.2, floor: float = 1e-3) -> float:
    """The learning rate at `step` of `steps`: up to `peak` in the first fifth, then down to peak · floor, by cosines.

    Smith, A disciplined approach to neural network hyper-parameters, 2018, section 4.2.
    """
    top = max(1.0, warmup * steps)
    if step < top:
        start, end, share = peak / 10, peak, step / top
    else:
        start, end, share = peak, peak * floor, (step - top) / max(1.0, steps - top)
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))
