"""Optimisers: gradient descent with momentum, AdamW, and the one-cycle learning rate. The demo's is AdamW.

SGD
    g ← g + λ p                    v ← μ v + g                     p ← p − η v

AdamW
    m ← β₁ m + (1 − β₁) g          v ← β₂ v + (1 − β₂) g²          t ← t + 1
    p ← p − η · ( m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε) + λ p )    λ p for weights only, not for biases and batch norm

Polyak, Some methods of speeding up the convergence of iteration methods, 1964 (momentum).
Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019, algorithm 2.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, MutableMapping

from npattn.arguments import explained
from npattn.backend import Array, array_module
from npattn.checks import each, real_number, whole_number
from npattn.parameters import Parameters

BELOW_1 = math.nextafter(1, 0)
SMALLEST = sys.float_info.min  # the least eps that is no 0


class Optimizer:
    """The base: what is updated, by which gradients, at which rate."""

    def __init__(self, params: MutableMapping[str, Array], lr: float) -> None:
        if not isinstance(params, MutableMapping):
            raise TypeError(
                f"params: expected a dict of arrays, or a layer's parameters(), got {type(params).__name__}"
            )
        for _ in each("params", params):  # checks each
            pass
        self.params = params
        self.lr = real_number("lr", lr, least=0)

    @explained
    def step(self, grads: Mapping[str, Array] | None = None, rate: float | None = None) -> None:
        """Update every parameter by its gradient.

        Parameters
        ----------
        grads
            Name to array. None takes those of the layer's last backward, where `params` is a layer's `parameters()`.
        rate
            The learning rate η, at least 0. None takes `lr`.

        Raises
        ------
        KeyError
            If a gradient is of no parameter.
        TypeError, ValueError
            If rate is no such number, or grads are left out and `params` has none. Nothing is updated then.
        RuntimeError
            If there was no backward.
        """
        rate = self.lr if rate is None else real_number("rate", rate, least=0)
        if grads is None:
            if not isinstance(self.params, Parameters):
                raise TypeError("grads: expected a dict of gradients, got None; a layer's parameters() has them itself")
            grads = self.params.grads
            if len(grads) < len(self.params):
                raise RuntimeError("step before backward: there are no gradients yet")
        if unknown := [key for key in grads if key not in self.params]:
            raise KeyError(f"grads: expected keys out of {list(self.params)}, got {unknown}")
        self._update(grads, rate)

    def _update(self, grads: Mapping[str, Array], rate: float) -> None:
        raise NotImplementedError


@explained
class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as PyTorch's `SGD` computes it.

    Parameters
    ----------
    params
        A layer's `parameters()`, or a dict of arrays. The values are replaced, never written into.
    lr
        The learning rate η, at least 0.
    momentum
        μ, from 0 to less than 1.
    decay
        λ, at least 0: the weight decay, of all parameters.

    Raises
    ------
    TypeError, ValueError
        If params is no such dict, or a number is of another type or out of range.
    """

    def __init__(
        self, params: MutableMapping[str, Array], lr: float, *, momentum: float = 0.0, decay: float = 0.0
    ) -> None:
        super().__init__(params, lr)
        self.momentum, self.decay = real_number("momentum", momentum, 0, BELOW_1), real_number("decay", decay, least=0)
        self.v: dict[str, Array] = {}

    def _update(self, grads: Mapping[str, Array], rate: float) -> None:
        for key, g in grads.items():
            p = self.params[key]
            g = g + self.decay * p if self.decay else g
            if self.momentum:
                self.v[key] = g = self.momentum * self.v[key] + g if key in self.v else g
            self.params[key] = p - rate * g


@explained
class AdamW(Optimizer):
    """Adam with decoupled weight decay.

    Parameters
    ----------
    params
        A layer's `parameters()`, or a dict of arrays. The values are replaced, never written into.
    lr
        The learning rate η, at least 0.
    decay
        λ, at least 0, for arrays of two axes or more.
    beta1, beta2
        As in the paper, from 0 to less than 1.
    eps
        As in the paper, above 0.

    Raises
    ------
    TypeError, ValueError
        If params is no such dict, or a number is of another type or out of range.
    """

    def __init__(
        self,
        params: MutableMapping[str, Array],
        lr: float = 1e-3,
        *,
        decay: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, lr)
        self.decay = real_number("decay", decay, least=0)
        self.beta1 = real_number("beta1", beta1, 0, BELOW_1)
        self.beta2 = real_number("beta2", beta2, 0, BELOW_1)
        self.eps = real_number("eps", eps, least=SMALLEST)
        self.steps = 0
        self.m = {key: array_module(p).zeros_like(p) for key, p in params.items()}
        self.v = {key: array_module(p).zeros_like(p) for key, p in params.items()}

    def _update(self, grads: Mapping[str, Array], rate: float) -> None:
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


@explained
def one_cycle(step: int, steps: int, peak: float, warmup: float = 0.2, floor: float = 1e-3) -> float:
    """The learning rate at `step` of `steps`: up to `peak` in the first fifth, then down to peak · floor, by cosines.

    Smith, A disciplined approach to neural network hyper-parameters, 2018, section 4.2.

    Parameters
    ----------
    step
        0 to `steps`; the last one that is taken is steps − 1.
    steps
        At least 1.
    peak
        The largest rate, at least 0.
    warmup, floor
        Shares, 0 to 1: of the steps that go up, and of the peak that is left in the end.

    Returns
    -------
    float
        Between 0 and peak.

    Raises
    ------
    TypeError, ValueError
        If a number is of another type or out of range.
    """
    steps = whole_number("steps", steps)
    step = whole_number("step", step, 0, steps)
    peak, warmup = real_number("peak", peak, least=0), real_number("warmup", warmup, 0, 1)
    floor = real_number("floor", floor, 0, 1)
    top = max(1.0, warmup * steps)
    if step < top:
        start, end, share = peak / 10, peak, step / top
    else:
        start, end, share = peak, peak * floor, (step - top) / max(1.0, steps - top)
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))
