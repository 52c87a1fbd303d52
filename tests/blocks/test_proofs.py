"""Each block against its hand-made proofs, which tests/support/proofs.py finds: torch, formulas, wrong backwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from npattn.block import Place
from npattn.blocks import Entry
from npattn.fused import twin
from npattn.layer import Layer
from npattn.nested import leaves
from tests.support.mistakes import Mistake, must_be_rejected
from tests.support.numerical import distance
from tests.support.proofs import cards, entries, files, missing_of, mistakes_of, reference

PROOFS = files()
FUNCTIONS = [
    pytest.param(function, id=f"{file}-{name}")
    for file, proofs in PROOFS.items()
    for name, function in vars(proofs).items()
    if name == "derivation" or name.startswith("claim_")
]
MISTAKES = [
    pytest.param(wrong, id=f"{file}-{wrong!r}") for file, proofs in PROOFS.items() for wrong in mistakes_of(proofs)
]


def layer_for(entry: Entry, shape: tuple[int, ...], k: int, fused: bool) -> Layer:
    """The layer for x of that shape. A gate for other maps than x is for one channel more."""
    _, C, H, W = shape
    more = int("B" in (entry.kind.input_axes or "").split())
    return entry.layer(Place(C + more, H, W, r=2, k=k, B=C), dtype="float64", fused=fused, rng=0)


def has_fused(entry: Entry) -> bool:
    """Whether there is a fused form of the layer, or of a layer inside of it."""
    layer = layer_for(entry, (1, 2, 2, 2), 3, True)
    return any(leaf.textbook and twin(leaf.textbook) for leaf in leaves(layer))


FORMS = [
    pytest.param(entry, fused, id=f"{entry.name}-{'fused' if fused else 'textbook'}")
    for entry in entries()
    for fused in (False, True)[: 1 + has_fused(entry)]
]


def test_every_card_has_its_proofs():
    known = cards()
    missing = {name: missing_of(PROOFS.get(name)) for name in known}
    assert {name: absent for name, absent in missing.items() if absent} == {}
    assert PROOFS.keys() <= known.keys(), f"proofs of no block: {PROOFS.keys() - known.keys()}"


@pytest.mark.parametrize("ties", [False, True], ids=["dense", "ties"])
@pytest.mark.parametrize("shape", [(2, 6, 5, 4), (1, 4, 1, 1), (3, 2, 1, 7), (2, 8, 9, 3)], ids=str)
@pytest.mark.parametrize(("entry", "fused"), FORMS)
def test_as_torch_computes_it(entry: Entry, fused: bool, shape: tuple[int, ...], ties: bool):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for k in (5, 7):
        rng = np.random.default_rng(30)
        layer = layer_for(entry, shape, k, fused)
        if layer.buffers and shape[0] < 3:
            shape = (3, *shape[1:])  # a norm of one number says nothing, and of two, one an image, it is always ±1
        state = {key: rng.standard_normal(w.shape) for key, w in layer.params.items()}
        layer.load_state_dict(state | dict(layer.buffers))
        x = rng.standard_normal(shape)
        if ties:
            x = np.maximum(np.round(2 * x) / 2, 0)
        weights = {key: torch.tensor(w, requires_grad=True) for key, w in layer.params.items()}
        x_there = torch.tensor(x, requires_grad=True)
        y_there = reference(entry, x_there, weights)
        dy = rng.standard_normal(tuple(y_there.shape))
        y_there.backward(torch.tensor(dy))

        assert distance(layer(x), y_there.detach().numpy()) < 1e-13
        assert ("fused" in str(layer.path)) == fused
        assert distance(layer.backward(dy), x_there.grad.numpy()) < 1e-12
        assert layer.grads.keys() == weights.keys()
        scale = max(float(np.linalg.norm(gradient)) for gradient in (dy, *layer.grads.values()))
        for key, gradient in layer.grads.items():
            wanted = weights[key].grad.numpy()
            # a norm behind a weight, or a softmax that has all but decided, cancels nearly all and leaves rounding
            near_zero = 4e-15 * scale
            near_zero *= 100 if layer.buffers else 1  # 1/√ε ≈ 300: a norm's slope where all that it sees is the same
            assert np.linalg.norm(gradient - wanted) <= 1e-12 * np.linalg.norm(wanted) + near_zero, key


@pytest.mark.parametrize("function", FUNCTIONS)
def test_as_the_page_says(function: Callable[[], Any]):
    function()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_wrong_backwards_are_rejected(mistake: Mistake):
    must_be_rejected(mistake)
