"""The figures of docs/demo.md, from a finished run: its curves, and its gates before and after.

    npattn train --attention cbam --seed 0 --out runs/demo
    python docs/_demo_figures.py runs/demo

Prints the table of the page, too. "Before" is the network of the run's seed as its first step sees it, with batch
normalisation by the batch; "after" is the trained one, in evaluation mode.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import npattn
from npattn import data, models
from npattn.explain.figures import curves
from npattn.explain.style import SLIDE, SMALL, bare, draw_gate, gate_colours, new_figure, placed, save
from npattn.training import prepared

DOCS = Path(__file__).resolve().parent
SHOWN = (1, 4, 7)  # one digit of each
STAGES = ("stage2", "stage3")
MEASURED = 1000  # test digits, for the table


def gates(model: npattn.Sequential, images: np.ndarray) -> dict[str, np.ndarray]:
    """The gates of every stage, by name, for the digits."""
    with npattn.no_grad():
        model(prepared(images))
    return {name: np.asarray(gate) for name, gate in model.attention.items()}


def statistics(gate: np.ndarray) -> tuple[float, float, float]:
    """Its mean; how much it differs from channel to channel or pixel to pixel; and from digit to digit."""
    flat = gate.reshape(len(gate), -1)
    return float(flat.mean()), float(flat.mean(axis=0).std()), float(flat.std(axis=0).mean())


def by_class(gate: np.ndarray, labels: np.ndarray) -> float:
    """The share of a gate's variance from digit to digit that the digit's class accounts for."""
    flat = gate.reshape(len(gate), -1)
    classes = np.stack([flat[labels == digit].mean(axis=0) for digit in range(10)])
    explained = np.mean((classes[labels] - flat.mean(axis=0)) ** 2, axis=0)
    return float(np.mean(explained / flat.var(axis=0)))


def on_ink(gate: np.ndarray, images: np.ndarray) -> tuple[float, float]:
    """The mean of a spatial gate (N, H, W) where a quarter of the ink is there, and where it is not."""
    N, H, W = gate.shape
    cells = images.reshape(N, H, 28 // H, W, 28 // W).mean(axis=(2, 4))
    return float(gate[cells > 64].mean()), float(gate[cells <= 64].mean())


def main(run: Path) -> None:
    seed = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["seed"]
    digits = data.load()
    images = digits.test_images[:MEASURED]
    shown = [int(np.argmax(digits.test_labels[:MEASURED] == digit)) for digit in SHOWN]
    before = gates(models.digits("cbam", rng=seed).train(), images)
    after = gates(npattn.load_model(run).eval(), images)

    curves(json.loads((run / "metrics.json").read_text(encoding="utf-8"))["epochs"], DOCS / "demo-curves.png")
    draw(images, shown, before, after, DOCS / "demo-gates.png")
    labels = digits.test_labels[:MEASURED]
    for name in before:
        for when, found in (("before", before), ("after", after)):
            cells = (f"{value:.2f}" for value in (*statistics(found[name]), by_class(found[name], labels)))
            print(f"| {name.replace('.attention', '')}, {when} | {' | '.join(cells)} |")
    for name in (name for name in before if name.endswith("spatial")):
        for when, found in (("before", before), ("after", after)):
            ink, paper = on_ink(found[name][:, 0], images)
            print(f"{name}, {when}: {ink:.2f} on ink, {paper:.2f} on paper")


def draw(
    images: np.ndarray, shown: list[int], before: dict[str, np.ndarray], after: dict[str, np.ndarray], path: Path
) -> None:
    """The spatial gates of both stages over each digit, and beside them the channel gates, before and after."""
    figure = new_figure(layout=None)
    width, height = SLIDE
    tile, gap, top, left = 0.7, 0.06, 0.96, 0.12  # inches
    columns = [(stage, found, when) for stage in STAGES for found, when in ((before, "before"), (after, "after"))]
    for row, index in enumerate(shown):
        y = top + row * (tile + 2 * gap)
        axes = placed(figure, left, y, tile, tile)
        axes.imshow(images[index], cmap="gray_r")
        told = [(axes, "digit")]
        for i, (stage, found, when) in enumerate(columns):
            axes = placed(figure, left + (i + 1) * (tile + gap), y, tile, tile)
            drawn = draw_gate(axes, found[f"{stage}.attention.spatial"][index, 0], images[index], "nearest")
            told.append((axes, f"{stage.replace('stage', 'stage ')},\n{when}"))
        for axes, words in told:
            bare(axes)
            if row == 0:
                axes.set_title(words, fontsize=SMALL)

    maps = left + np.array([tile + gap, 5 * (tile + gap) - gap])  # from and to, in inches
    figure.text(maps.mean() / width, 1 - 0.54 / height, "spatial gates", fontsize=SMALL, ha="center", va="bottom")

    strips = left + 5 * (tile + gap) + 0.3
    each = (3 * tile + 4 * gap - 0.62) / 2
    for i, (found, when) in enumerate(((before, "before"), (after, "after"))):
        axes = placed(figure, strips, top + i * (each + 0.62), width - strips - 0.12, each)
        gates = found["stage3.attention.channel"][shown, :, 0, 0]
        axes.imshow(gates, cmap=gate_colours(), vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.set_title(f"channel gates, stage 3, {when}", fontsize=SMALL)
        axes.set_yticks(range(len(SHOWN)), [str(digit) for digit in SHOWN], fontsize=SMALL)
        axes.set_ylabel("digit", fontsize=SMALL, labelpad=1)
        axes.set_xlabel("channel", fontsize=SMALL, labelpad=1)
        axes.tick_params(labelsize=SMALL, length=2)
    bar = figure.colorbar(
        drawn, cax=placed(figure, maps.mean() - 1.3, height - 0.62, 2.6, 0.1), orientation="horizontal"
    )
    bar.set_ticks([0, 0.5, 1], labels=["0", "½", "1"], fontsize=SMALL)
    bar.set_label("gate: 0 shut, 1 open; outlined: the digit", fontsize=SMALL, labelpad=1)
    figure.suptitle(
        "Channel gates: alike for all digits before training, different after it", fontsize=11, y=0.98, va="top"
    )
    save(figure, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
