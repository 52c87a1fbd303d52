"""The demo's figures, drawn with matplotlib: curves, confusion, and what the attention does."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from npattn.backend import to_numpy
from npattn.explain.gate_maps import channel_bars, gate_maps
from npattn.explain.gate_statistics import RANGES, checked_statistics
from npattn.files import atomic
from npattn.grad_mode import no_grad
from npattn.nested import Sequential

INK, ACCENT, QUIET = "#1b1b3a", "#d1495b", "#8d99ae"
LONGEST_TITLE = 60  # characters, of a column in a figure


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic(path) as file:
        figure.savefig(file, format="png", dpi=150, facecolor="white")


def new_figure(width: float, height: float) -> Any:
    """A figure of its own (inches), without pyplot: no display, no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(axes: Any) -> None:
    """Take the frame's upper and right side off."""
    axes.spines[["top", "right"]].set_visible(False)


def curves(history: list[dict[str, Any]], path: Path) -> None:
    """Loss and error rate by epoch: training, and test where it was tested."""
    figure = new_figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    left.plot(epochs, [row["loss"] for row in history], color=QUIET, marker="o", ms=3, label="training, moved digits")
    tested = [row for row in history if "test_loss" in row]
    at = [row["epoch"] for row in tested]
    left.plot(at, [row["test_loss"] for row in tested], color=ACCENT, marker="o", ms=3, label="test")
    left.set(xlabel="epoch", ylabel="cross-entropy (nats)", yscale=scale(left), title="Loss")
    right.plot(epochs, [100 * (1 - row["accuracy"]) for row in history], color=QUIET, marker="o", ms=3)
    right.plot(at, [100 * (1 - row["test_accuracy"]) for row in tested], color=ACCENT, marker="o", ms=3)
    outcome = f"Error: {tested[-1]['test_accuracy']:.2%} right" if tested else "Error"
    right.set(xlabel="epoch", ylabel="digits that are wrong (%)", yscale=scale(right), title=outcome)
    right.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for axes in (left, right):
        plain(axes)
        axes.grid(alpha=0.25, which="both")
        axes.xaxis.get_major_locator().set_params(integer=True)
    left.legend(frameon=False)
    save(figure, path)


def scale(axes: Any) -> str:
    """ "log", or "linear" where no line is above 0 anywhere: all digits right, say."""
    return "log" if any(np.any(np.asarray(line.get_ydata()) > 0) for line in axes.lines) else "linear"


def confusion(counts: np.ndarray, path: Path) -> None:
    """Counts (10, 10): row the right digit, column the answer. The diagonal is grey, so that the mistakes stand out."""
    figure = new_figure(5.4, 5)
    axes = figure.subplots()
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    axes.imshow(wrong, cmap="Reds", vmin=0, vmax=max(1, wrong.max()) * 1.3)
    for row, col in np.ndindex(*counts.shape):
        if counts[row, col]:
            colour = QUIET if row == col else INK
            axes.text(col, row, str(counts[row, col]), ha="center", va="center", fontsize=8, color=colour)
    right, total = int(np.trace(counts)), int(counts.sum())
    axes.set(xlabel="answer", ylabel="right digit", title=f"{right:,} of {total:,} right: {right / total:.2%}")
    axes.set_xticks(range(len(counts)))
    axes.set_yticks(range(len(counts)))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    save(figure, path)


def gates(history: list[dict[str, Any]], path: Path) -> bool:
    """For each gate by epoch: its mean and spread above, and below the shares saturated and near one half.

    Returns False, and draws no file, if there are no epochs with `gates` (see `npattn.explain.gate_statistics`). Raises
    TypeError or ValueError if what an epoch says of a gate is not that.
    """
    by_name: dict[str, dict[int, dict[str, float]]] = {}
    for i, row in enumerate(history):
        for name, numbers in row.get("gates", {}).items():
            told = checked_statistics(f"history[{i}]['gates'][{name!r:.80}]", numbers)
            by_name.setdefault(name, {})[row["epoch"]] = told
    if not by_name:
        return False
    names = list(by_name)
    figure = new_figure(max(2.3 * len(names), 4.6) + 0.6, 4.2)
    grid = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
    for column, name in enumerate(names):
        epochs, each = list(by_name[name]), list(by_name[name].values())
        found = {key: np.array([numbers[key] for numbers in each]) for key in RANGES}
        mean, spread, over = found["mean"], found["spread"], found["over_images"]
        above, below = grid[:, column]
        band = {"linewidth": 0}
        above.fill_between(epochs, mean - spread, mean + spread, color=QUIET, alpha=0.35, label="± spread", **band)
        above.fill_between(epochs, mean - over, mean + over, color=ACCENT, alpha=0.45, label="± over images", **band)
        above.plot(epochs, mean, color=INK, marker="o", ms=3, label="mean")
        above.set(ylim=(0, 1))
        above.set_title(title(name), fontsize=9)
        below.plot(epochs, 100 * found["saturated"], color=ACCENT, marker="o", ms=3, label="below 0.05 or above 0.95")
        below.plot(epochs, 100 * found["half"], color=QUIET, marker="o", ms=3, label="within 0.05 of ½")
        below.set(ylim=(-2, 102), xlabel="epoch")
        below.xaxis.get_major_locator().set_params(integer=True)
        for axes in (above, below):
            plain(axes)
            axes.grid(alpha=0.25)
    grid[0, 0].set_ylabel("gate")
    grid[1, 0].set_ylabel("share of the gates (%)")
    shown = [axes.get_legend_handles_labels() for axes in grid[:, 0]]
    figure.legend(*(above + below for above, below in zip(*shown, strict=True)),
                  loc="outside lower center", ncols=3, frameon=False, fontsize=8)  # fmt: skip
    save(figure, path)
    return True


def attention(
    model: Sequential,
    images: np.ndarray,
    labels: np.ndarray,
    prepared: Callable[[np.ndarray], np.ndarray],
    path: Path,
    count: int = 6,
) -> bool:
    """For some digits: the input, each map of gates (gate_maps.py) laid over it, and each channel gate as bars.

    Weights of other shapes, a number for every pixel of every channel or for every two pixels, are not drawn.

    Parameters
    ----------
    model
        A network, in eval mode, some layers of which attend.
    images, labels
        Digits (N, 28, 28), uint8, and their classes; the first one of each of `count` classes is shown.
    prepared
        Makes the model's input from images.
    path
        Where the PNG goes.
    count
        How many digits, at most 10.

    Returns
    -------
    bool
        False, and no file, if there is no gate to draw.
    """
    chosen = [int(np.argmax(labels == digit)) for digit in np.linspace(0, 9, count).round()]
    shown = images[chosen]
    with no_grad():
        scores = to_numpy(model.eval()(model.to_array(prepared(shown))))
    spatial, channel = gate_maps(model.attention), channel_bars(model.attention)
    if not spatial and not channel:
        return False

    columns = 1 + len(spatial) + len(channel)
    widths = [1.0] * (1 + len(spatial)) + [1.7] * len(channel)
    figure = new_figure(1.35 * sum(widths) + 0.8, 1.3 * count + 0.7)
    grid = figure.subplots(count, columns, squeeze=False, gridspec_kw={"width_ratios": widths})
    answers = np.argmax(scores, axis=1)
    for row in range(count):
        ink = shown[row]
        axes = grid[row, 0]
        axes.imshow(ink, cmap="gray_r")
        axes.set_ylabel(f"{answers[row]}", rotation=0, fontsize=14, ha="right", va="center", color=INK)
        for axes, (name, gate) in zip(grid[row, 1:], spatial.items(), strict=False):
            overlay = axes.imshow(
                gate[row], cmap="magma", vmin=0, vmax=1, extent=(0, 28, 28, 0), interpolation="bilinear"
            )
            axes.contour(np.arange(28) + 0.5, np.arange(28) + 0.5, ink, levels=[128], colors="white", linewidths=0.8)
            if row == 0:
                axes.set_title(title(name), fontsize=9)
        for axes, (name, gate) in zip(grid[row, 1 + len(spatial) :], channel.items(), strict=False):
            usual = gate.mean(axis=0)
            axes.stairs(gate[row], fill=True, color=INK)
            axes.stairs(usual, color=ACCENT, linewidth=0.8, baseline=None)
            axes.set(ylim=(0, 1), xlim=(0, gate.shape[1]))
            if row == 0:
                axes.set_title(title(name), fontsize=9)
    for axes in grid[:, : 1 + len(spatial)].flat:
        axes.set_xticks([])
        axes.set_yticks([])
    for axes in grid[:, 1 + len(spatial) :].flat:
        plain(axes)
        axes.set_xticks([])
        axes.set_yticks([0, 1], labels=["0", "1"], fontsize=7)
    grid[0, 0].set_title("digit, answer", fontsize=9)
    if spatial:
        bar = figure.colorbar(
            overlay, ax=grid[:, 1 : 1 + len(spatial)], location="bottom", shrink=0.6, aspect=40, pad=0.01
        )
        bar.set_label("spatial gate: 0 shut, 1 open", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    if channel:
        figure.supxlabel(
            "channel gates: bars this digit, line the mean of the digits shown", fontsize=8, x=0.98, ha="right"
        )
    save(figure, path)
    return True


def title(name: str) -> str:
    """ "stage2.attention.spatial" as people say it, "stage 2, spatial"; "unit1.branch.attention.channel" likewise.

    As text for matplotlib, which would read what stands between two "$" as a formula.
    """
    first, *others = name.split(".")
    spoken = re.sub(r"(?<=[a-z])(?=[0-9])", " ", first) + "".join(f", {kind}" for kind in others[-1:])
    shown = "".join(character if character.isprintable() else "?" for character in spoken[:LONGEST_TITLE])
    return shown.replace("\\", "/").replace("$", r"\$")
