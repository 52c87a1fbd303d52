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
from npattn.explain.style import (
    ACCENT,
    GOLD,
    INK,
    LETTER,
    PALE,
    PURPLE,
    QUIET,
    SLIDE,
    SMALL,
    bare,
    draw_gate,
    new_figure,
    placed,
    plain,
    readable_on,
    save,
)
from npattn.grad_mode import no_grad
from npattn.nested import Sequential

__all__ = [
    "ACCENT",
    "INK",
    "QUIET",
    "attention",
    "confusion",
    "curves",
    "gates",
    "new_figure",
    "plain",
    "save",
    "title",
]

LONGEST_TITLE = 60  # characters, of a column in a figure
ROUND = (0, 50, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99)  # per cent, where accuracy has its ticks
MOST_STRETCHED = 99.995  # per cent: above it no tick is left, and the axis is an ordinary one
TRAINING = {"color": QUIET, "marker": "o", "mfc": "white", "ms": 4, "ls": "--", "label": "training (moved digits)"}
TEST = {"color": ACCENT, "marker": "o", "ms": 4, "label": "test"}


def curves(history: list[dict[str, Any]], path: Path) -> None:
    """Loss and accuracy by epoch: training, and test where it was tested."""
    figure = new_figure()
    left, right = figure.subplots(1, 2)
    tested = [row for row in history if "test_loss" in row]
    for axes, key, unit in ((left, "loss", 1), (right, "accuracy", 100)):
        axes.plot([row["epoch"] for row in history], [unit * row[key] for row in history], **TRAINING)
        if tested:
            axes.plot([row["epoch"] for row in tested], [unit * row[f"test_{key}"] for row in tested], **TEST)
        plain(axes)
        axes.set_xlabel("epoch")
        along(axes, [row["epoch"] for row in history])
    left.set(ylabel="cross-entropy (nats)", title="Loss", yscale=scale(left))
    if left.get_yscale() == "log":
        whole_powers(left)
    right.set(ylabel="accuracy (%)", title="Accuracy")
    stretch(right)
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=SMALL)
    figure.suptitle(outcome(history, tested))
    save(figure, path)


def outcome(history: list[dict[str, Any]], tested: list[dict[str, Any]]) -> str:
    """What the curves come to, in words."""
    rows, key, what = (tested, "test_accuracy", "test") if tested else (history, "accuracy", "training")
    epochs = rows[-1]["epoch"]
    after = f"after {epochs} epoch{'' if epochs == 1 else 's'}"
    return f"{rows[-1][key]:.2%} of the {what} digits read rightly {after}"


def scale(axes: Any) -> str:
    """ "log", or "linear" where no line is above 0 anywhere: no loss at all, say."""
    return "log" if any(np.any(np.asarray(line.get_ydata()) > 0) for line in axes.lines) else "linear"


def whole_powers(axes: Any) -> None:
    """Ticks of a logarithmic axis as people write numbers: 0.02, 0.05, 0.1, not 10 to some power."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def stretch(axes: Any) -> None:
    """Give accuracies, in per cent, more room towards 100: as much from 90 to 99 as from 99 to 99.9, and say so.

    Where one is 100, which would be infinitely far up, the axis stays an ordinary one.
    """
    shown = np.concatenate([np.asarray(line.get_ydata(), np.float64) for line in axes.lines])
    if shown.max() > MOST_STRETCHED:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        return
    least, most = shown.min(), shown.max()
    axes.set_yscale("function", functions=(lambda p: -np.log10(np.maximum(100 - p, 1e-9)), lambda v: 100 - 10.0**-v))
    lower = max((tick for tick in ROUND if tick <= least), default=0)
    upper = min((tick for tick in ROUND if tick > most), default=MOST_STRETCHED)
    ticks = [tick for tick in ROUND if lower <= tick <= upper]
    axes.set_ylim(lower, upper)
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylabel("accuracy (%), drawn larger towards 100")


def confusion(counts: np.ndarray, path: Path) -> None:
    """Counts (10, 10): row the right digit, column the answer.

    What is right, on the diagonal, stands framed on white, so that the mistakes stand out: the more, the redder.
    """
    from matplotlib.patches import Rectangle

    figure = new_figure(5.4, 5.2)
    axes = figure.subplots()
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    drawn = axes.imshow(np.ma.masked_equal(wrong, 0), cmap="Reds", vmin=0, vmax=max(1, wrong.max()))
    for row, col in np.ndindex(*counts.shape):
        if counts[row, col]:
            ground = "white" if row == col else drawn.to_rgba(wrong[row, col])
            axes.text(col, row, str(counts[row, col]), ha="center", va="center", fontsize=9, color=readable_on(ground))
        if row == col:
            axes.add_patch(Rectangle((col - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor=INK, linewidth=0.8))
    right, total = int(np.trace(counts)), int(counts.sum())
    title = f"{right:,} of {total:,} test digits read rightly: {right / total:.2%}"
    if wrong.any():
        row, col = np.unravel_index(np.argmax(wrong), wrong.shape)
        times = int(wrong[row, col])
        title += f"\nmost often wrong: {row} read as {col}, {times} time{'' if times == 1 else 's'}"
    axes.set(xlabel="the network's answer", ylabel="right digit")
    figure.suptitle(title, fontsize=11)
    axes.set_xticks(range(len(counts)))
    axes.set_yticks(range(len(counts)))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.6, aspect=25, pad=0.02)
    bar.set_label("digits read wrongly (framed: rightly)")
    bar.outline.set_visible(False)
    bar.ax.yaxis.get_major_locator().set_params(integer=True)
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
    width = max(SLIDE[0], 1.75 * len(names))
    figure = new_figure(width, width * SLIDE[1] / SLIDE[0])
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.12, 1))
    over, under = (part.subplots(1, len(names), sharey=True, squeeze=False)[0] for part in (upper, lower))
    for name, above, below in zip(names, over, under, strict=True):
        epochs, each = list(by_name[name]), list(by_name[name].values())
        found = {key: np.array([numbers[key] for numbers in each]) for key in RANGES}
        mean = found["mean"]
        for key, colour, opaque, label in (
            ("spread", QUIET, 0.4, "± spread of all its entries"),
            ("over_images", ACCENT, 0.6, "± from image to image"),
        ):
            band = mean - found[key], mean + found[key]
            above.fill_between(epochs, *band, color=colour, alpha=opaque, label=label, linewidth=0)
        above.plot(epochs, mean, color=INK, marker="o", ms=3, label="mean")
        above.set(ylim=(0, 1))
        above.set_yticks([0, 0.5, 1], labels=["0", "½", "1"])
        above.set_title(title(name).replace(", ", ",\n", 1), fontsize=10)
        below.plot(epochs, 100 * found["saturated"], color=PURPLE, marker="s", ms=3, label="below 0.05 or above 0.95")
        below.plot(epochs, 100 * found["half"], color=GOLD, marker="^", ms=4, ls="--", label="within 0.05 of ½")
        below.set(ylim=(-4, 104), xlabel="epoch")
        for axes in (above, below):
            plain(axes)
            axes.grid(alpha=0.25)
            along(axes, epochs)
        above.tick_params(labelbottom=False)
    over[0].set_ylabel("gate")
    under[0].set_ylabel("entries (%)")
    for part, axes in ((upper, over[0]), (lower, under[0])):
        key = axes.get_legend_handles_labels()
        part.legend(*key, loc="outside lower center", ncols=3, frameon=False, fontsize=SMALL)
    figure.suptitle("How open the gates are after each epoch: 0 shut, 1 open", fontsize=11)
    save(figure, path)
    return True


def along(axes: Any, epochs: list[int]) -> None:
    """Make the axis one of epochs: whole numbers at its ticks, and room on both sides; of one epoch alone, too."""
    room = 0.05 * (max(epochs) - min(epochs)) or 0.5
    axes.set_xlim(min(epochs) - room, max(epochs) + room)
    # matplotlib takes fractions after all where fewer than two whole numbers are in sight, unless one is said to do
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def attention(
    model: Sequential,
    images: np.ndarray,
    labels: np.ndarray,
    prepared: Callable[[np.ndarray], np.ndarray],
    path: Path,
    count: int = 4,
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

    heads, keys, side, gap = 0.72, 0.72, 0.72, 0.1  # inches
    names = {name: title(name).replace(", ", ",\n", 1) for name in spatial}
    longest = max((len(line) for words in names.values() for line in words.split("\n")), default=0)
    tile = max((SLIDE[1] - heads - keys) / count - gap, 0.52)
    pitch = max(tile + gap, longest * LETTER + 0.15)  # from map to map
    least = side + tile + gap + len(spatial) * pitch + len(channel) * 1.6
    height = max(heads + keys + count * (tile + gap), least * SLIDE[1] / SLIDE[0])
    width = height * SLIDE[0] / SLIDE[1]  # a slide's proportions, however much there is
    tile = (height - heads - keys) / count - gap
    pitch = max(tile + gap, longest * LETTER + 0.15)
    if not channel:  # what is narrower than a slide stands in its middle
        side += (width - side - tile - len(spatial) * pitch) / 2
    maps = side + (tile + gap + pitch) / 2 + (gap if spatial else 0)  # where they begin, and below, where the bars do
    bars = (maps + len(spatial) * pitch if spatial else side + tile) + 0.42
    wide = (width - bars - 0.12 + 0.3) / max(1, len(channel)) - 0.3
    figure = new_figure(width, height, layout=None)
    answers = np.argmax(scores, axis=1)
    for row, (ink, right) in enumerate(zip(shown, labels[chosen], strict=True)):
        top = heads + row * (tile + gap)
        axes = placed(figure, side, top, tile, tile)
        axes.imshow(ink, cmap="gray_r")
        bare(axes)
        wrong = "" if answers[row] == right else "\n(wrong)"
        axes.set_ylabel(f"read\nas {answers[row]}{wrong}", rotation=0, fontsize=SMALL, ha="right", va="center")
        told = [(axes, "digit")]
        for i, (name, gate) in enumerate(spatial.items()):
            axes = placed(figure, maps + i * pitch, top, tile, tile)
            drawn = draw_gate(axes, gate[row], ink)
            bare(axes)
            told.append((axes, names[name]))
        for i, (name, gate) in enumerate(channel.items()):
            axes = placed(figure, bars + i * (wide + 0.3), top, wide, tile)
            axes.stairs(gate[row], fill=True, color=PALE, label="this digit")
            axes.stairs(gate.mean(axis=0), color=INK, linewidth=0.8, baseline=None, label="mean of the digits shown")
            axes.set(ylim=(0, 1), xlim=(0, gate.shape[1]), xticks=[])
            axes.set_yticks([0, 1], labels=["0", "1"], fontsize=SMALL)
            for number, side_of_tick in zip(axes.get_yticklabels(), ("bottom", "top"), strict=True):
                number.set_verticalalignment(side_of_tick)  # off the row below and above
            plain(axes)
            told.append((axes, title(name)))
            if i == 0:
                axes.set_ylabel("gate", fontsize=SMALL, labelpad=1)
            if row == count - 1:
                axes.set_xlabel("channel", fontsize=SMALL)
        if row == 0:
            for axes, words in told:
                axes.set_title(words, fontsize=SMALL)
    if spatial:
        long = max((len(spatial) - 1) * pitch + tile, 1.0)
        bar = figure.colorbar(
            drawn, cax=placed(figure, maps, height - keys + 0.12, long, 0.09), orientation="horizontal"
        )
        bar.set_label("spatial gate: 0 shut, 1 open", fontsize=SMALL)
        bar.set_ticks([0, 0.5, 1], labels=["0", "½", "1"], fontsize=SMALL)
    if channel:
        figure.legend(*axes.get_legend_handles_labels(), ncols=2, frameon=False, fontsize=SMALL, borderpad=0.2,
                      loc="lower right", title="channel gate: 0 shut, 1 open", title_fontsize=SMALL)  # fmt: skip
    figure.suptitle(f"What the gates let through of {count} test digits", fontsize=11, y=1 - 0.06 / height, va="top")
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
