"""A training step, shared by ranks: each takes its share of the batch forward and back; the batch's are the sums.

With n_s of the N digits at rank s the loss of the batch is ℓ = Σ_s n_s/N · ℓ_s, so its gradients are the weighted sums
of the shares': rank s starts its backward with dℓ_s = n_s/N, and what comes out is added up.

    rank s
      work        its share, forward and back; batch norm asks for the rows of all (fused/shares.py)    allgather
      added_up    loss, hits and gradients                                                              allreduce

Every rank then has the same sums and takes the same step with the optimiser, to the same weights. docs/parallel.md
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from npattn.backend import Array, to_numpy
from npattn.fused.shares import gathering
from npattn.nested import Sequential, leaves
from npattn.ops import loss
from npattn.training.batches import Moves, batch, moved
from npattn.training.ranks import Alone, Ranks


class Task(NamedTuple):
    """A share of a batch."""

    images: np.ndarray  # (n, 28, 28), 0 to 255
    labels: np.ndarray  # (n)
    moves: Moves | None  # how to move the digits first
    weight: float  # n / N: what the mean over the share counts in that over the batch


class Done(NamedTuple):
    """What a share gave, or the whole batch."""

    loss: Array  # its part of the batch's mean
    right: int  # digits that were classified rightly
    grads: Mapping[str, Array]  # of that part


def share(N: int, rank: int, size: int) -> slice:
    """Which of N a rank takes: as many as every other one, or one more."""
    return slice(rank * N // size, (rank + 1) * N // size)


def forward_backward(model: Sequential, x: Array, t: Array, weight: float = 1.0) -> tuple[Array, Array]:
    """Scores and loss for digits x of the classes t. Sets the model's `grads`, those of weight · loss."""
    scores = model.train()(x)
    value, cache = loss.forward(scores, t)
    dscores = loss.backward(model.xp.full_like(value, weight), cache)
    model.backward_params(dscores)
    return scores, value


def work(model: Sequential, task: Task, ranks: Ranks) -> Done:
    """Take a share of a batch forward and back; these ranks have the other shares.

    Raises RuntimeError if a layer with running statistics, which should have gathered, took the textbook path.
    """
    images = task.images if task.moves is None else moved(task.images, task.moves)
    x, t = batch(model, images, task.labels)
    shared = ranks.size > 1
    with np.errstate(all="ignore"), gathering(ranks.allgather) if shared else contextlib.nullcontext():
        scores, value = forward_backward(model, x, t, task.weight)
    if shared:
        for layer in leaves(model):
            if layer.buffers and layer.path != "fused":
                raise RuntimeError(f"{layer}: expected the fused path in a shared batch, took the {layer.path}")
    right = int(np.sum(np.argmax(to_numpy(scores), axis=1) == task.labels))
    return Done(value * task.weight, right, dict(model.grads))


def step(
    model: Sequential, images: np.ndarray, labels: np.ndarray, moves: Moves | None = None, ranks: Ranks | None = None
) -> Done:
    """Take a batch, which every rank has, forward and back, each rank its share. Returns the sums of all shares.

    Of a batch of fewer digits than there are ranks each is a share, and some ranks have none.
    """
    ranks = Alone() if ranks is None else ranks
    N = len(labels)
    busy = min(N, ranks.size)
    some, n = ranks.first(busy), share(N, ranks.rank, busy)
    if ranks.rank < busy:
        part = None if moves is None else Moves(*(array[n] for array in moves))
        own = work(model, Task(images[n], labels[n], part, (n.stop - n.start) / N), some)
    else:
        zeros = {key: np.zeros_like(value) for key, value in model.params.items()}
        own = Done(np.zeros((), next(iter(zeros.values())).dtype), 0, zeros)
    if busy < ranks.size:  # who had no digit has not seen the batch's statistics either
        for key, value in ranks.broadcast(dict(model.buffers)).items():
            model.buffers[key] = value
    return added_up(own, list(model.params), ranks) if ranks.size > 1 else own


def added_up(own: Done, keys: list[str], ranks: Ranks) -> Done:
    """The sums over all ranks, of which each has its own. All name the gradients in the same order."""
    parts = [own.grads[key] for key in keys]
    ends = np.array([own.loss, own.right], parts[0].dtype)  # beside the gradients, since each exchange takes its time
    total = ranks.allreduce(np.concatenate([*(part.ravel() for part in parts), ends]))
    starts = np.cumsum([0, *(part.size for part in parts)])
    shaped = (total[start : start + part.size].reshape(part.shape) for start, part in zip(starts, parts, strict=False))
    return Done(total[-2], int(total[-1]), dict(zip(keys, shaped, strict=True)))
