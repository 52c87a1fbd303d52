"""What makes one run of a forward like the next: seeds, generators that start from where they were, the user's hook."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Hook = Callable[[], Any]


class Repeat:
    """Runs a forward so that it draws the same random numbers each time; calls the hook before a backward.

    Parameters
    ----------
    seed
        Of NumPy's and Python's global generators (and PyTorch's, where it is loaded) before each forward; a function
        of no arguments is called instead. None leaves them alone.
    hook
        Called before each backward; None for nothing.
    """

    def __init__(self, seed: int | Hook | None = None, hook: Hook | None = None) -> None:
        self._seed, self.before_backward = seed, hook or (lambda: None)
        self.hooked = hook is not None
        self._generators: list[tuple[Any, Any]] = []

    def hold(self, generators: Iterable[Any]) -> None:
        """Let these generators start from where they are now before each forward, if a seed is wanted at all."""
        self._generators = [(one, state_of(one)) for one in generators]

    def hold_twins(self, generators: Iterable[Any]) -> None:
        """Let the generators of a copy, in the same order, start from where those that are held do."""
        self._generators += [(one, state) for one, (_, state) in zip(generators, self._generators, strict=False)]

    def forward(self, run: Callable[[], Any]) -> Any:
        """Run it, seeded; the global generators go on afterwards as if nothing had been drawn."""
        if self._seed is None:
            return run()
        for one, state in self._generators:
            set_state(one, state)
        if callable(self._seed):
            self._seed()
            return run()
        torch: Any = sys.modules.get("torch")
        legacy: Any = np.random  # the forward under test may draw from it
        before = random.getstate(), legacy.get_state(), torch.get_rng_state() if torch else None
        try:
            random.seed(self._seed)
            legacy.seed(self._seed)
            if torch:
                torch.manual_seed(self._seed)
            return run()
        finally:
            random.setstate(before[0])
            legacy.set_state(before[1])
            if torch:
                torch.set_rng_state(before[2])


def state_of(generator: Any) -> Any:
    return generator.bit_generator.state if isinstance(generator, np.random.Generator) else generator.get_state()


def set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)
