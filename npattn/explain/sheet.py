"""A sheet of digits, with what speaks for the answer, for the runner-up, and where the gate is open: `npattn cam`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from npattn.explain.cam import class_activation_map
from npattn.explain.figures import save, title
from npattn.explain.gate_maps import gate_maps
from npattn.explain.overlay import AGAINST, overlay
from npattn.explain.style import INK, LETTER, SLIDE, SMALL, bare, draw_gate, edge, new_figure, placed
from npattn.grad_mode import no_grad
from npattn.nested import Sequential

MOST = 60  # pictures of a sheet
FROM_TEST_SET, WRONG = "test image #", "✗"  # after the first its place in the test set, which is not what it shows
FAINT = 0.08  # of a map between −1 and 1: what is closer to 0 is left plain


class Picture(NamedTuple):
    """One of the pictures on the sheet."""

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


class Grid(NamedTuple):
    """Where the tiles of a sheet go: its pictures in a row or in a column of tiles each."""

    down: bool  # a picture's tiles below each other
    along: int  # pictures side by side
    bands: int  # of so many, below each other
    parts: int  # tiles a picture
    tile: float  # inches

    def at(self, picture: int, part: int) -> tuple[int, int]:
        """Row and column of a tile."""
        band, place = divmod(picture, self.along)
        return (band * self.parts + part, place) if self.down else (band, place * self.parts + part)


# inches: the title, and the keys below; words above a column or left of a row; below a tile; between tiles; to the edge
TITLE, KEYS, HEAD_UP, HEAD_LEFT, BELOW, GAP, EDGE = 0.36, 0.7, 0.38, 0.82, 0.21, 0.1, 0.12
BETWEEN = 0.2  # inches, from picture to picture where one's tiles lie side by side
LEAST = 0.48  # inches, of a tile, under which no answer fits below it


def arranged(count: int, parts: int, width: float, height: float) -> Grid:
    """The arrangement of `count` pictures of `parts` tiles each that gives the largest tiles on a sheet (inches)."""
    found = []
    for down in (False, True):
        for along in range(1, count + 1):
            bands = -(-count // along)
            if down:
                across, deep = along, bands * parts
                room = width - HEAD_LEFT - EDGE, height - TITLE - KEYS - EDGE
            else:
                across, deep = along * parts, bands
                room = width - 2 * EDGE - (along - 1) * BETWEEN, height - TITLE - KEYS - HEAD_UP
            tile = min(room[0] / across - GAP, room[1] / deep - BELOW)
            found.append(Grid(down, along, bands, parts, tile))
    return max(found, key=lambda grid: grid.tile)


def draw(pictures: list[Picture], seen: Seen, path: Path) -> None:
    """Write the sheet as PNG, in a slide's proportions: for each picture the input, the maps of the answer and of the
    runner-up, and the spatial gate.

    If one was taken from a larger picture, there is a first tile with it, and a frame around what was used.
    """

    photos = any(picture.photo is not None for picture in pictures)
    tested = all(picture.right is not None for picture in pictures)
    heads = [*(["picture"] if photos else []), "test digit" if tested else "input"]
    heads += ["for the answer", "for the runner-up"]
    if seen.gate is not None:
        heads.append(title(seen.gate_name))
    (width, height), size = SLIDE, 1.0
    while (grid := arranged(len(pictures), len(heads), size * width, size * height)).tile < LEAST:
        size *= 1.05  # a larger sheet of the same proportions
    figure = new_figure(size * width, size * height, layout=None)
    left, top, across, deep = corner(grid, size * width, size * height)
    for i, picture in enumerate(pictures):
        tiles = []
        for part, head in enumerate(heads):
            row, column = grid.at(i, part)
            x = left + column * across + (0 if grid.down else column // grid.parts * BETWEEN)
            axes = placed(figure, x, top + row * deep, grid.tile, grid.tile)
            bare(axes)
            if not grid.down and row == 0:
                axes.set_title(wrapped(head, grid.tile + 0.2), fontsize=SMALL, pad=3)
            if grid.down and column == 0:
                words = wrapped(head, HEAD_LEFT - 0.1)
                axes.set_ylabel(words, fontsize=SMALL, rotation=0, ha="right", va="center")
            tiles.append(axes)
        first, rest = tiles[0], tiles[1:] if photos else tiles
        if photos:
            draw_photo(first, picture)
        first.set_xlabel(named(picture, grid.tile + GAP), fontsize=SMALL, labelpad=2)
        paper = 1 - picture.image / 255  # ink dark on light: the colours show on paper as on ink
        rest[0].imshow(paper, cmap="gray", vmin=0, vmax=1)
        for which in (0, 1):
            draw_map(rest[1 + which], paper, seen.maps[i, which])
            rest[1 + which].set_xlabel(answer(picture, seen, i, which), fontsize=SMALL, labelpad=2)
        if seen.gate is not None:
            gate = draw_gate(rest[3], seen.gate[i], picture.image)
    draw_keys(figure, gate if seen.gate is not None else None, title(seen.gate_name))
    figure.suptitle(headline(pictures, seen), fontsize=11, y=1 - 0.07 / (size * height), va="top")
    save(figure, path)


def corner(grid: Grid, width: float, height: float) -> tuple[float, float, float, float]:
    """Where the first tile is, from the left and the top, and how far to the next one across and down (inches)."""
    rows = grid.bands * (grid.parts if grid.down else 1)
    columns = grid.along * (1 if grid.down else grid.parts)
    head = HEAD_LEFT if grid.down else EDGE
    spare = width - head - EDGE - columns * (grid.tile + GAP) - (0 if grid.down else (grid.along - 1) * BETWEEN)
    across = grid.tile + GAP + min(max(spare, 0) / columns, 0.35 * grid.tile)
    used = columns * across - (across - grid.tile) + (0 if grid.down else (grid.along - 1) * BETWEEN)
    left = head + max(0.0, (width - head - EDGE - used) / 2)
    top = TITLE + (0 if grid.down else HEAD_UP)
    spare = height - top - KEYS - rows * (grid.tile + BELOW)
    return left, top + max(0.0, spare / 2), across, grid.tile + BELOW


def wrapped(words: str, width: float, most: int = 2) -> str:
    """Words in lines that fit into a width (inches), at most so many."""
    import textwrap

    room = max(4, int(width / LETTER))
    return "\n".join(textwrap.wrap(words, room, max_lines=most, placeholder="…", break_on_hyphens=False))


def named(picture: Picture, width: float) -> str:
    """What is written below a picture: its name, or as much of it as fits."""
    most = max(5, int(width / LETTER))
    name = f"no digit? {picture.name}" if picture.doubted else picture.name.removeprefix(FROM_TEST_SET.rstrip("#"))
    shown = "".join(character if character.isprintable() else "?" for character in name)
    return (shown if len(shown) <= most else f"{shown[: most - 1]}…").replace("$", r"\$")


def answer(picture: Picture, seen: Seen, i: int, which: int) -> str:
    """The class and its probability, in whole per cent; a wrong answer is crossed."""
    share = seen.shares[i, which]
    part = "<1%" if share < 0.005 else ">99%" if share > 0.995 else f"{share:.0%}"
    return f"{WRONG if which == 0 and wrong(picture, seen, i) else ''}{seen.classes[i, which]} {part}"


def wrong(picture: Picture, seen: Seen, i: int) -> bool:
    """Whether the answer is known to be wrong."""
    return picture.right is not None and bool(seen.classes[i, 0] != picture.right)


def headline(pictures: list[Picture], seen: Seen) -> str:
    """What the sheet shows, in words: how many answers are right, where that is known."""
    known = [wrong(picture, seen, i) for i, picture in enumerate(pictures) if picture.right is not None]
    if not known:
        return "What speaks for the network's answer, and for its runner-up"
    mark = f" ({WRONG}: wrong)" if any(known) else ""
    if len(known) == 1:
        return f"A test digit read {'wrongly' if known[0] else 'rightly'}{mark}, and what speaks for the answer"
    return f"{known.count(False)} of {len(known)} test digits read rightly{mark}, and what speaks for the answers"


def draw_map(axes: Any, paper: np.ndarray, values: np.ndarray) -> None:
    """A map over its digit; where it speaks against the class it is hatched, so that one sees it in grey."""
    axes.imshow(overlay(paper[None], values[None])[0])
    hatch(axes, np.arange(28), np.arange(28), values)


def hatch(axes: Any, x: np.ndarray, y: np.ndarray, values: np.ndarray) -> None:
    """Hatch the places where values (y, x) are clearly below 0, out to the edges of the outermost pixels."""
    from matplotlib import rc_context

    if values.min() >= -FAINT:
        return
    x, y = (np.concatenate([[at[0] - 0.5], at, [at[-1] + 0.5]]) for at in (x, y))
    with rc_context({"hatch.linewidth": 0.5}):
        area = axes.contourf(x, y, np.pad(values, 1, "edge"), levels=[-2, -FAINT], colors="none", hatches=["/////"])
    area.set_edgecolor(AGAINST)
    area.set_linewidth(0)


def draw_keys(figure: Any, gate: Any, gate_name: str) -> None:
    """The two colour bars below: of the maps, and of the gate if there is one."""
    width, height = figure.get_size_inches()
    top, thick = height - KEYS + 0.2, 0.1
    long = 2.4 if gate is not None else 3.2
    middle = 0.3 if gate is not None else 0.5  # of the width
    axes = placed(figure, middle * width - long / 2, top, long, thick)
    values = np.linspace(-1, 1, 201)
    axes.imshow(overlay(np.ones((1, 1, 201)), values[None, None])[0], extent=(-1, 1, 0, 1), aspect="auto")
    hatch(axes, values, np.array([0.0, 1.0]), np.stack([values, values]))
    axes.set_yticks([])
    axes.set_xticks([-1, 0, 1], labels=["−1", "0", "1"], fontsize=SMALL)
    axes.set_xlabel("map: blue, hatched: against; red: for the class", fontsize=SMALL, labelpad=1)
    axes.set(xlim=(-1, 1), ylim=(0, 1))
    axes.spines[:].set(linewidth=0.5)
    if gate is None:
        return
    axes = placed(figure, 0.75 * width - 0.8, top, 1.6, thick)
    bar = figure.colorbar(gate, cax=axes, orientation="horizontal")
    bar.set_ticks([0, 0.5, 1], labels=["0", "½", "1"], fontsize=SMALL)
    bar.set_label(f"gate of {gate_name}: 0 shut, 1 open", fontsize=SMALL, labelpad=1)
    bar.outline.set_linewidth(0.5)


def draw_photo(axes: Any, picture: Picture) -> None:
    """The picture that a digit was taken from, and a frame around the part that was used; nothing if there is none."""
    if picture.photo is None or picture.box is None:
        axes.spines[:].set_visible(False)
        return
    from matplotlib.patches import Rectangle

    axes.imshow(picture.photo, cmap="gray", vmin=0, vmax=255)
    top, bottom, left, right = picture.box
    frame = Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor="white", linewidth=1)
    frame.set_path_effects(edge(2.6, INK))  # white with a dark edge, which is seen on any picture
    axes.add_patch(frame)


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
    return [Picture(f"{FROM_TEST_SET}{place}", images[place], int(labels[place])) for place in places]
