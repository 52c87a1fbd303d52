"""Digits as the network's input, moved a little for training or as they are; and how well it does on test digits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npattn import models
from npattn.arguments import explained
from npattn.backend import Array, from_numpy, to_numpy
from npattn.checks import real_number, shaped, shown, whole_number
from npattn.fused import layout
from npattn.fused.blas import blas_held
from npattn.grad_mode import no_grad
from npattn.layer import Layer, faster
from npattn.nested import Sequential, leaves
from npattn.ops import loss
from npattn.ops.linear import Linear

LARGEST_SHIFT, LARGEST_ZOOM = 1e6, 0.9  # a digit that is moved away is paper; one of size 0 is none
MEAN, SPREAD = 0.1307, 0.3081  # of all pixels of the 60,000 training digits, ink = 1


def batch(model: Sequential, images: np.ndarray, labels: np.ndarray) -> tuple[Array, Array]:
    """Digits (N, 28, 28), 0 to 255, and their classes as the network's x and t, on its device.

    The digits lie side by side in memory where all layers that see images have a fused form, which is faster with
    images so small.
    """
    x, t = model.to_array(prepared(images)), from_numpy(labels.astype(np.int64), model.xp, model.device)
    return (layout.laid_side_by_side(x) if all(keeps_order(layer, x) for layer in leaves(model)) else x), t


def keeps_order(layer: Layer, x: Array) -> bool:
    """Whether the layer, in a network for x, gives its images as they lie in what it gets, or sees none (Linear)."""
    if isinstance(layer, Linear):
        return True
    arrays = (x, *layer.params.values())
    return layer.fused and layer.textbook is not None and faster(layer.textbook, arrays) is not None


@explained
def prepared(images: np.ndarray) -> np.ndarray:
    """Digits (N, 28, 28), 0 to 255, as the network's input: (N, 1, 28, 28), float32, of mean 0 and spread 1.

    Raises TypeError, ValueError if they are no array of three axes.
    """
    shaped("images", images, "N H W")
    scale = np.float32(1 / (255 * SPREAD))
    return (images.astype(np.float32) * scale - np.float32(MEAN / SPREAD))[:, None]


class Moves(NamedTuple):
    """How N images are turned, scaled and shifted: the pixel at p comes from back · p + start in the old image."""

    back: np.ndarray  # (N, 2, 2)
    start: np.ndarray  # (N, 2)


def drawn(shape: tuple[int, int, int], shift: float, turn: float, zoom: float, rng: np.random.Generator) -> Moves:
    """Random moves for images of that shape, (N, H, W): each gets amounts of its own. Parameters: see `jittered`."""
    N, H, W = shape
    angle = rng.uniform(-np.pi, np.pi, (N,)) * (turn / 180)
    scale = rng.uniform(1 - zoom, 1 + zoom, (N,))
    shifts = rng.uniform(-shift, shift, (N, 2))
    c, s = np.cos(angle) / scale, np.sin(angle) / scale
    back = np.stack([c, -s, s, c], axis=1).reshape(N, 2, 2)
    middle = np.array([(H - 1) / 2, (W - 1) / 2])
    return Moves(back, middle - np.einsum("nij,nj->ni", back, middle + shifts))


def moved(images: np.ndarray, moves: Moves) -> np.ndarray:
    """Each image (N, H, W) moved in its own way, float32, interpolated between pixels; paper comes in at the edges."""
    from scipy import ndimage

    new = np.empty(images.shape, np.float32)
    for n in range(len(images)):
        ndimage.affine_transform(images[n], moves.back[n], moves.start[n], output=new[n], order=1)
    return new


@explained
def jittered(images: np.ndarray, shift: float, turn: float, zoom: float, rng: np.random.Generator) -> np.ndarray:
    """Each image (N, H, W) turned, scaled and shifted a little, by its own random amounts; paper comes in at the edges.

    Parameters: shift in pixels, turn in degrees, each −most to most; zoom as a share, 0.1 for 0.9 to 1.1 times.
    Returns (N, H, W), float32, interpolated between pixels. Raises TypeError, ValueError if an argument is not right.
    """
    shaped("images", images, "N H W")
    shift, turn = real_number("shift", shift, 0, LARGEST_SHIFT), real_number("turn", turn, 0, 180)
    zoom = real_number("zoom", zoom, 0, LARGEST_ZOOM)
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng: expected a numpy.random.Generator, got {shown(rng)}")
    return moved(images, drawn(images.shape, shift, turn, zoom, rng))


@explained
@blas_held
def evaluate(
    model: Sequential, images: np.ndarray, labels: np.ndarray, batch_size: int = 500
) -> tuple[float, float, np.ndarray]:
    """Mean loss (nats), accuracy (0 to 1) and confusion (10, 10), rows the right class, of a model in eval mode.

    Parameters
    ----------
    model
        A network that gives 10 scores a digit.
    images, labels
        Digits (N, 28, 28), 0 to 255, and their classes (N), 0 to 9; at least one.
    batch_size
        How many go through the network at a time, at least 1.

    Raises
    ------
    TypeError, ValueError
        If one of them is not so.
    """
    batch_size = whole_number("batch_size", batch_size)
    if not isinstance(model, Sequential):
        raise TypeError(f"model: expected a Sequential, got {type(model).__name__}")
    (N, _, _), (_,) = shaped("images", images, "N H W"), shaped("labels", labels, "N", N=len(images))
    if N == 0:
        raise ValueError("images: expected at least one digit, got none")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= models.CLASSES:
        raise ValueError(f"labels: expected whole numbers from 0 to {models.CLASSES - 1}, got {shown(labels)}")
    was_training = model.training
    model.eval()
    total, confusion = 0.0, np.zeros((models.CLASSES, models.CLASSES), np.int64)
    with no_grad(), np.errstate(all="ignore"):  # whether the loss is a number can be seen
        for start in range(0, len(labels), batch_size):
            right = labels[start : start + batch_size]
            x, t = batch(model, images[start : start + batch_size], right)
            scores = model(x)
            total += float(loss.forward(scores, t)[0]) * len(right)
            np.add.at(confusion, (right, np.argmax(to_numpy(scores), axis=1)), 1)
    model.train(was_training)
    return total / len(labels), float(np.trace(confusion)) / len(labels), confusion
