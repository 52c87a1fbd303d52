"""What all figures share: their colours, their size, and how they stay readable on a slide, on a phone and in grey.

A colour has one meaning within a figure, and colours that share an axis differ in lightness, so that a grey print tells
them apart. Lines differ in their dashes and markers, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from npattn.files import atomic

INK, ACCENT, QUIET = "#1b1b3a", "#b5223f", "#8793a9"  # lightness (L*) 12, 39 and 60
PALE = "#b4bccb"  # 76, to fill a surface that INK draws on
PURPLE, GOLD = "#5b3a8e", "#c0851a"  # 31 and 59: where a figure needs two meanings more
SLIDE = (7.2, 4.05)  # inches, 16:9
DPI = 240  # of a PNG; 1728 × 972 pixels for a slide
SMALL = 9.5  # points, of the smallest text; on a phone, 390 pixels wide, a slide then shows it 7 pixels high
LETTER = 0.075  # inches, of a letter of that text, about


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic(path) as file:
        figure.savefig(file, format="png", dpi=DPI, facecolor="white")


def new_figure(
    width: float = SLIDE[0], height: float = SLIDE[1], layout: Literal["constrained"] | None = "constrained"
) -> Any:
    """A figure of its own (inches), without pyplot: no display, no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def plain(axes: Any) -> None:
    """Take the frame's upper and right side off."""
    axes.spines[["top", "right"]].set_visible(False)


def bare(axes: Any) -> None:
    """Take the ticks off, where an image has no numbers to read from its edge."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(linewidth=0.5)


def placed(figure: Any, left: float, top: float, width: float, height: float) -> Any:
    """Axes of this size at this place, in inches from the figure's upper left corner."""
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def relative_luminance(colour: Any) -> float:
    """How much light a colour gives, 0 for black to 1 for white (WCAG 2.1, "relative luminance")."""
    from matplotlib.colors import to_rgb

    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one: Any, other: Any) -> float:
    """The contrast ratio of two colours, 1 to 21 (WCAG 2.1); text needs 4.5."""
    dark, light = sorted(map(relative_luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def readable_on(ground: Any) -> str:
    """The colour for text on this ground: black or white, whichever stands out more; it is 4.5 at least for any."""
    return max(("black", "white"), key=lambda text: contrast(text, ground))


def gate_colours() -> Any:
    """The colour map of gates, dark green (0, shut) to pale yellow (1, open).

    It grows lighter all the way, so that it reads the same in grey; and it has neither the red nor the blue of the
    class activation maps that it may stand beside.
    """
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("gate", ["#02140f", "#0a5443", "#3f9a63", "#a9d383", "#fdfbd4"])


def draw_gate(axes: Any, gate: np.ndarray, ink: np.ndarray, interpolation: str = "bilinear") -> Any:
    """A gate (h, w) as colours over the square of a digit, ink (28, 28), whose outline is drawn on it."""
    drawn = axes.imshow(gate, cmap=gate_colours(), vmin=0, vmax=1, extent=(0, 28, 28, 0), interpolation=interpolation)
    outline(axes, ink)
    return drawn


def outline(axes: Any, ink: np.ndarray) -> None:
    """The outline of a digit, ink (28, 28): white with a dark edge, which is seen on any ground."""
    if not ink.min() <= 128 < ink.max():
        return
    middle = np.arange(28) + 0.5
    lines = axes.contour(middle, middle, ink, levels=[128], colors="white", linewidths=0.8)
    lines.set_path_effects(edge(1.8))


def edge(width: float, colour: str = INK) -> list[Any]:
    """What gives a line or a text an edge of another colour: path effects."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=width, foreground=colour)]
