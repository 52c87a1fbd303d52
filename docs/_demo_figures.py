"""The figures of docs/demo.md, from a finished run: its curves, and its gates before and after.

    npattn train --attention cbam --seed 0 --out runs/demo
    python docs/_demo_figures.py runs/demo

Prints the table of the page, too. "Before" is the network of the run's seed as its first step sees it, with batch
normalisation by the batch; "after" is the trained one, in evaluation mode.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np

import npattn
from npattn import data, models
from npattn.explain.figures import ACCENT, INK, new_figure, plain, save
from npattn.training import prepared

DOCS = Path(__file__).resolve().parent
SHOWN = (1, 4, 7)  # one digit of each
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

    shutil.copyfile(run / "curves.png", DOCS / "demo-curves.png")
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
    """The spatial gates of both stages over each digit, and the channel gates as lines, before beside after."""
    figure = new_figure(7.2, 7.4)
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.55, 1))
    columns = [(name, found, when) for name in ("stage2", "stage3") for found, when in
               ((before, "before"), (after, "after"))]  # fmt: skip
    grid = upper.subplots(len(shown), 1 + len(columns))
    for row, index in zip(grid, shown, strict=True):
        row[0].imshow(images[index], cmap="gray_r")
        for axes, (stage, found, _) in zip(row[1:], columns, strict=True):
            gate = found[f"{stage}.attention.spatial"][index, 0]
            drawn = axes.imshow(gate, cmap="magma", vmin=0, vmax=1, extent=(0, 28, 28, 0))
            centre = np.arange(28) + 0.5
            axes.contour(centre, centre, images[index], levels=[128], colors="white", linewidths=0.8)
        for axes in row:
            axes.set_xticks([])
            axes.set_yticks([])
    grid[0, 0].set_title("digit", fontsize=9)
    for axes, (stage, _, when) in zip(grid[0, 1:], columns, strict=True):
        axes.set_title(f"{stage.replace('stage', 'stage ')},\n{when}", fontsize=9)
    bar = upper.colorbar(drawn, ax=list(grid[:, -1]), shrink=0.8)
    bar.set_label("spatial gate: 0 shut, 1 open", fontsize=8)

    for axes, (found, when) in zip(lower.subplots(1, 2, sharey=True), ((before, "before"), (after, "after")),
                                   strict=True):  # fmt: skip
        every = found["stage3.attention.channel"][:, :, 0, 0]
        axes.fill_between(
            range(every.shape[1]), *np.quantile(every, (0.05, 0.95), axis=0), color=INK, alpha=0.15, lw=0, step="mid"
        )
        for index, digit, colour in zip(shown, SHOWN, (ACCENT, INK, "#3a86c8"), strict=True):
            axes.plot(every[index], lw=0.9, color=colour, label=str(digit), drawstyle="steps-mid")
        axes.set(title=f"stage 3, {when}", xlabel="channel", ylim=(0, 1))
        plain(axes)
    lower.axes[0].set_ylabel("channel gate")
    lower.axes[0].legend(frameon=False, fontsize=8, ncols=3, loc="upper right")
    save(figure, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
