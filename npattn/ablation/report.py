"""The report of an ablation: a table and a figure, each with the spread over the seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from npattn import columns
from npattn.ablation.record import checked_record
from npattn.ablation.rows import BASELINES, Settings, rows
from npattn.arguments import explained
from npattn.checks import one_of, real_number, shown, whole_number
from npattn.explain.figures import ACCENT, INK, QUIET, new_figure, plain, save
from npattn.files import atomic
from npattn.notebook import html_table

TABLE, RESULTS, FIGURE = "ablation.md", "ablation.json", "ablation.png"
HEAD = ("row", "parameters", "accuracy %", "spread", "lowest – highest", "minus the baseline", "seeds")


class Summary(list[dict[str, Any]]):
    """A dict for each row: a list that is shown as a table."""

    def __repr__(self) -> str:
        return columns.table(HEAD, cells(self), right=range(1, len(HEAD)))

    def _repr_html_(self) -> str:
        return html_table(HEAD, cells(self))


@explained
def summarised(results: Sequence[dict[str, Any]]) -> Summary:
    """One dict a row: accuracies by seed, mean, spread, and the difference to its baseline, seed by seed.

    "difference" is the mean over the seeds of its accuracy less the baseline's, and "uncertain" half the width of that
    mean's 95 % interval by Student's t; both None where fewer than two seeds are there.

    Raises
    ------
    TypeError, ValueError
        If a result is no finished training's: a number is missing, of another type or out of range, its row is unknown,
        or it comes twice.
    """
    by_name: dict[str, dict[int, dict[str, Any]]] = {}
    known = tuple(row.name for row in rows())
    for i, given in enumerate(listed("results", results)):
        result = checked_record(f"results[{i}]", given)
        by_seed = by_name.setdefault(one_of(f"results[{i}]['row']", result["row"], known), {})
        if result["seed"] in by_seed:
            once = f"{result['row']} with seed {result['seed']}"
            raise ValueError(f"results[{i}]: expected each seed of a row once, got {once} twice")
        by_seed[result["seed"]] = result
    summary = Summary()
    for row in rows():
        if row.name not in by_name:
            continue
        by_seed = by_name[row.name]
        accuracies = {seed: by_seed[seed]["accuracy"] for seed in sorted(by_seed)}
        base = by_name.get(BASELINES[row.model], {})
        pairs = [by_seed[seed]["accuracy"] - base[seed]["accuracy"] for seed in by_seed if seed in base]
        paired = len(pairs) > 1 and row.name != BASELINES[row.model]
        summary.append({
            "row": row.name,
            "group": row.group,
            "what": row.what,
            "parameters": next(iter(by_seed.values()))["parameters"],
            "accuracies": accuracies,
            "mean": statistics.fmean(accuracies.values()),
            "spread": statistics.stdev(accuracies.values()) if len(accuracies) > 1 else None,
            "difference": statistics.fmean(pairs) if paired else None,
            "uncertain": half_width(pairs) if paired else None,
            "gates": {seed: by_seed[seed]["gates"] for seed in sorted(by_seed)},
            "seconds": statistics.fmean(result["seconds"] for result in by_seed.values()),
        })  # fmt: skip
    return summary


def listed(name: str, given: Any) -> Sequence[Any]:
    """`given`, after checking that it is a list or a tuple. Raises TypeError."""
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise TypeError(f"{name}: expected a list of dicts, got {shown(given)}")
    return given


def half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval for the mean of a few values, by Student's t."""
    from scipy.stats import t

    return float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


@explained
def table(summary: Sequence[dict[str, Any]]) -> str:
    """The summary as a Markdown table, in per cent and percentage points.

    Raises
    ------
    TypeError, ValueError
        If a row of it is not as `summarised` makes them: a number is missing, of another type or out of range.
    """
    for i, row in enumerate(listed("summary", summary)):
        check_summary(f"summary[{i}]", row)
    lines = [f"| {' | '.join(HEAD)} |", "|---|--:|--:|--:|--:|--:|--:|"]
    group = None
    for row, parts in zip(summary, cells(summary), strict=True):
        if row["group"] != group:
            group = row["group"]
            lines.append(f"| **{group}** | | | | | | |")
        lines.append(f"| {' | '.join(parts)} |")
    return "\n".join(lines) + "\n"


def cells(summary: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Each row of a summary in words, in per cent and percentage points."""
    for row in summary:
        accuracies = list(row["accuracies"].values())
        spread = "" if row["spread"] is None else f"{100 * row['spread']:.2f}"
        apart = "" if row["difference"] is None else f"{100 * row['difference']:+.2f} ± {100 * row['uncertain']:.2f}"
        yield (
            f"{row['row']}: {row['what']}", f"{row['parameters']:,}", f"{100 * row['mean']:.2f}", spread,
            f"{100 * min(accuracies):.2f} – {100 * max(accuracies):.2f}", apart, f"{len(accuracies)}",
        )  # fmt: skip


def how_to_read(summary: Sequence[dict[str, Any]]) -> str:
    """What the table's numbers with a spread mean, in sentences."""
    if all(row["spread"] is None for row in summary):
        return "One seed: by how much a number moves from seed to seed is not known. Take five."
    lines = ["Spread: the standard deviation over the seeds."]
    counts = [len(row["accuracies"]) for row in summary if row["difference"] is not None]
    if counts:
        lines.append(
            "±: half the width of the 95 % interval for the mean difference, by Student's t. "
            "A difference smaller than its ± may be nothing."
        )
    if counts and min(counts) == 2:
        lines.append("From two seeds it is 12.7 standard errors, from many 2: it says next to nothing, take five.")
    return " ".join(lines)


def check_summary(name: str, row: Any) -> None:
    """Raise TypeError or ValueError if it is no row of a summary that a table can be made of."""
    if not isinstance(row, Mapping):
        raise TypeError(f"{name}: expected a dict, got {shown(row)}")
    needed = ("row", "group", "what", "parameters", "accuracies", "mean", "spread", "difference", "uncertain")
    if missing := [key for key in needed if key not in row]:
        raise ValueError(f"{name}: expected {', '.join(needed)}, got none for {', '.join(missing)}")
    if not isinstance(row["accuracies"], Mapping) or not row["accuracies"]:
        raise TypeError(f"{name}['accuracies']: expected a dict, accuracy by seed, got {shown(row['accuracies'])}")
    whole_number(f"{name}['parameters']", row["parameters"], least=0)
    for seed, accuracy in row["accuracies"].items():
        real_number(f"{name}['accuracies'][{seed!r}]", accuracy, 0, 1)
    real_number(f"{name}['mean']", row["mean"], 0, 1)
    for key in ("spread", "difference", "uncertain"):
        if row[key] is not None or (key == "uncertain" and row["difference"] is not None):
            real_number(f"{name}[{key!r}]", row[key])


def write(out: Path, results: Sequence[dict[str, Any]], settings: Settings) -> None:
    """The table, the same as JSON, and the figure; nothing if nothing is finished."""
    if not results:
        return
    summary = summarised(results)
    with atomic(out / TABLE) as file:
        file.write(f"{table(summary)}\n{how_to_read(summary)}\n".encode())
    found = {"settings": asdict(settings), "versions": results[-1].get("versions", {}), "rows": summary}
    with atomic(out / RESULTS) as file:
        file.write((json.dumps(found, indent=1) + "\n").encode())
    figure(summary, out / FIGURE)


def figure(summary: Sequence[dict[str, Any]], path: Path) -> None:
    """The accuracy of every training as a dot, each row's mean as a line, and no attention's mean all the way down."""
    canvas = new_figure(7.2, 0.27 * (len(summary) + len({row["group"] for row in summary})) + 1.6)
    axes = canvas.subplots()
    means = {row["row"]: 100 * row["mean"] for row in summary}
    at, labels, headings, group = 0.0, [], [], None
    for row in summary:
        if row["group"] != group:
            group = row["group"]
            headings.append((at, group))
            at += 1
        accuracies = [100 * accuracy for accuracy in row["accuracies"].values()]
        is_base = row["row"] in BASELINES.values()
        (dots,) = axes.plot(accuracies, [at] * len(accuracies), "o", ms=4.5, color=QUIET, alpha=0.75, mec="none")
        (mean,) = axes.plot(
            [means[row["row"]]] * 2, [at - 0.32, at + 0.32], color=INK if is_base else ACCENT, linewidth=2.2
        )
        dots.set_label("a training, one seed")
        mean.set_label("mean of a baseline" if is_base else "mean of a row")
        labels.append((at, row["row"]))
        at += 1
    if BASELINES["digits"] in means:
        axes.axvline(
            means[BASELINES["digits"]], color=INK, linewidth=0.8, linestyle=":", zorder=0, label="no attention's mean"
        )
    axes.set_yticks([place for place, _ in labels], [name for _, name in labels], fontsize=9.5)
    for place, name in headings:  # on a ground of their own: a line may pass
        axes.annotate(name, (0, place), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
                      va="center", fontsize=9.5, fontweight="bold", color=INK,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})  # fmt: skip
    axes.set_ylim(at - 0.4, -0.6)
    axes.set(xlabel="accuracy: test digits read rightly (%)", ylabel="row of the table")
    axes.grid(alpha=0.25, axis="x")
    axes.tick_params(axis="y", length=0)
    plain(axes)
    key = {line.get_label(): line for line in axes.lines}  # each kind once
    canvas.legend(key.values(), key.keys(), loc="outside lower center", ncols=2, frameon=False, fontsize=9.5)
    canvas.suptitle("Accuracy of each training, and the mean over its seeds", fontsize=11)
    save(canvas, path)
