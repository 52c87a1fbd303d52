"""A sheet of digits, with what speaks for the answer, for the runner-up, and where the gate is open: `npattn cam`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from npattn.explain.cam import class_activation_map
from npattn.explain.gate_maps import gate_maps
from npattn.explain.overlay import overlay
from npattn.grad_mode import no_grad
from npattn.nested import Sequential

MOST = 60  # rows of a sheet


class Picture(NamedTuple):
    """A row of the sheet."""

    name: str
    image: np.ndarray  # (28, 28), uint8
    right: int | None  # the right digit, where it is known
    photo: np.ndarray | None = None  # (H, W), uint8: the picture that it was taken from
    box: tuple[int, int, int, int] | None = None  # where in it: top, bottom, left, right
    doubted: bool = False  # whether it may be no digit


class Seen(NamedTuple):
    """What a model makes of pictures, each array with one entry or image a picture."""

    classes: np.ndarray  # (N, 2), the answer and the runner-up
    shares: np.ndarray  # (N, 2), their softmax probabilities
    maps: np.ndarray  # (N, 2, 28, 28), the class activation maps of both, divided by one number for both
    gate: np.ndarray | None  # (N, h, w), the last spatial gate, if there is one
    gate_name: str


def look(model: Sequential, x: np.ndarray, method: str = "cam", layer: str | None = None) -> Seen:
    """Classify x (N, 1, 28, 28) and draw the maps of the two classes with the largest scores.

    The maps are signed, and the two of a digit are divided by the same number, the largest |value| in them, so that
    they can be compared. Raises as `class_activation_map`, and ValueError if a score is not finite.
    """
    with no_grad(), np.errstate(all="ignore"):  # what is no number is refused
        y = np.asarray(model.eval()(x), np.float64)
    if not np.all(np.isfinite(y)):
        raise ValueError("model: expected one whose scores are finite, got NaN or infinity; its weights are too large")
    gates = gate_maps(model.attention)
    p = np.exp(y - y.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    classes = np.argsort(-y, axis=1, kind="stable")[:, :2]
    maps = np.stack(
        [
            class_activation_map(model, x, classes[:, i], method=method, layer=layer, relu=False, normalise=False)
            for i in (0, 1)
        ],
        axis=1,
    )
    largest = np.max(np.abs(maps), axis=(1, 2, 3), keepdims=True)
    maps = maps / np.where(largest > 0, largest, 1)
    name, gate = list(gates.items())[-1] if gates else ("", None)
    return Seen(classes, np.take_along_axis(p, classes, 1), maps, gate, name)


def draw(pictures: list[Picture], seen: Seen, path: Path) -> None:
    """Write the sheet as PNG: a row a picture; input, map of the answer, map of the runner-up, spatial gate.

    If one was taken from a larger picture, there is a first column with it, and a frame around what was used.
    """
    from npattn.explain.figures import ACCENT, INK, new_figure, save, title

    first = int(any(picture.photo is not None for picture in pictures))
    columns = first + (3 if seen.gate is None else 4)
    figure = new_figure(1.55 * columns + 0.5, 1.62 * len(pictures) + 0.9)
    whole = figure.subplots(len(pictures), columns, squeeze=False)
    grid = whole[:, first:]
    for row, picture in enumerate(pictures):
        paper = 1 - picture.image / 255  # ink dark on light: the colours show on paper as on ink
        grid[row, 0].imshow(paper, cmap="gray", vmin=0, vmax=1)
        right = seen.classes[row, 0] == picture.right or picture.right is None
        if first:
            draw_photo(whole[row, 0], picture)
        name = f"{picture.name}\nno digit?" if picture.doubted else picture.name
        whole[row, 0].set_ylabel(name, fontsize=8, color=ACCENT if picture.doubted else INK)
        for i in (0, 1):
            axes = grid[row, 1 + i]
            axes.imshow(overlay(paper[None], seen.maps[row, i][None])[0])
            share = seen.shares[row, i]
            text = f"{seen.classes[row, i]}  ({'<0.1%' if share < 0.001 else f'{share:.1%}'})"
            axes.set_xlabel(text, fontsize=8, labelpad=2, color=INK if i or right else ACCENT)
        if seen.gate is not None:
            shown = grid[row, 3].imshow(
                seen.gate[row], cmap="magma", vmin=0, vmax=1, extent=(0, 28, 28, 0), interpolation="bilinear"
            )
            grid[row, 3].contour(
                np.arange(28) + 0.5, np.arange(28) + 0.5, picture.image, levels=[128], colors="white", linewidths=0.8
            )
    for axes in whole.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(linewidth=0.5)
    heads = ("input", "for the answer", "for the runner-up", title(seen.gate_name) if seen.gate is not None else "")
    for axes, head in zip(whole[0], ("picture", *heads)[1 - first :], strict=False):
        axes.set_title(head, fontsize=9)
    if seen.gate is not None:
        bar = figure.colorbar(shown, ax=grid[:, 3], location="bottom", shrink=0.8, aspect=15, pad=0.01, fraction=0.02)
        bar.set_label("0 shut, 1 open", fontsize=7)
        bar.ax.tick_params(labelsize=7)
    figure.supxlabel("red speaks for the class, blue against it", fontsize=8, x=0.02, ha="left")
    save(figure, path)


def draw_photo(axes: Any, picture: Picture) -> None:
    """The picture that a digit was taken from, and a frame around the part that was used; nothing if there is none."""
    if picture.photo is None or picture.box is None:
        axes.spines[:].set_visible(False)
        return
    from matplotlib.patches import Rectangle

    from npattn.explain.figures import ACCENT

    axes.imshow(picture.photo, cmap="gray", vmin=0, vmax=255)
    top, bottom, left, right = picture.box
    axes.add_patch(
        Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor=ACCENT, linewidth=1)
    )


def from_test_set(images: np.ndarray, labels: np.ndarray, places: list[int] | None) -> list[Picture]:
    """Digits by their place in the test set, images (N, 28, 28) and labels (N,); None takes the first of each class.

    Raises
    ------
    ValueError
        If a place is outside of the test set.
    """
    if places is None:
        places = [int(np.argmax(labels == digit)) for digit in range(10)]
    for place in places:
        if not 0 <= place < len(labels):
            raise ValueError(f"digits: expected places in the test set, 0 to {len(labels) - 1}, got {place}")
    return [Picture(f"test digit {place}", images[place], int(labels[place])) for place in places]
