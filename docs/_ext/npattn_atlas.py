"""The page of the atlas: pictures of all blocks, and a table that the page's script sorts and searches.

:::{atlas-legend}      what shapes and colours of the pictures mean
:::{atlas-pictures}    a picture of each block, in groups by what its gates are for; blocks that look alike share one
:::{atlas-table}       a row for each block and each form of one
:::{atlas-measured}    on what the times were measured

All is made of docs/_atlas.py and the blocks' own code: a new block is here as soon as it has a card.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

from docutils import nodes
from npattn_editions import address
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

GROUPS: dict[str, Callable[[set[str]], bool]] = {
    "A gate for each channel: what?": lambda axes: axes == {"C"},
    "A gate for each pixel: where?": lambda axes: bool(axes) and axes <= {"H×W", "G×H×W"},
    "Gates for channels and for pixels: what and where?": lambda axes: axes == {"C", "H×W"},
    "Gates for rows, columns, or single numbers: where in each channel?": lambda axes: (
        bool(axes)
        and all(
            set(gate.split("×")) <= set("CGHW") and len(set(gate.split("×"))) == len(gate.split("×")) for gate in axes
        )
    ),
    "Each looks at each, or one of several is chosen: what matters to whom?": lambda axes: bool(axes),
    "No gate of its own": lambda axes: True,
}
"""Headings, and which gates' axes belong there; the first that fits."""

LEGEND = (
    ("pool", "mean", "H×W", "pools, over the axes below"),
    ("linear", "FC", "→ R", "has weights; → what is left"),
    ("norm", "norm", "", "normalises"),
    ("act", "ReLU", "", "a function of each number"),
    ("gate", "sigmoid", "C", "makes a gate, of these axes"),
    ("softmax", "softmax", "", "makes shares of a whole"),
    ("join", "side by side", "", "lays side by side"),
    ("product", "×", "", "product, number by number"),
    ("sum", "+", "", "sum; − is a difference"),
    ("dot", "Σ×", "", "scalar products"),
)


def raw(markup: str) -> nodes.raw:
    return nodes.raw("", markup, format="html")


class Atlas(SphinxDirective):
    """What the directives have in common."""

    def link(self, target: str, text: str) -> str:
        """A link to a page, "blocks/se", or to a place in one, "blocks/eca#…"."""
        page, _, place = target.partition("#")
        where = address(self.env, page) + (f"#{place}" if place else "")
        return f'<a class="reference internal" href="{escape(where)}">{escape(text)}</a>'


class Legend(Atlas):
    """The shapes and colours."""

    def run(self) -> list[nodes.Node]:
        from _atlas_graph import Box
        from _atlas_picture import TALL, WIDE, glyph
        from _figures import Drawing

        items = []
        for kind, label, second, words in LEGEND:
            d = Drawing(TALL + 4, words, width=int(WIDE + 4))
            glyph(d, WIDE / 2 + 2, TALL / 2 + 2, Box(kind, label, (), second if kind == "gate" else "", second), False)
            items.append(f"<li>{sized(d)}<span>{escape(words)}</span></li>")
        return [raw(f'<ul class="atlas-legend atlas-picture drawing">{"".join(items)}</ul>')]


def is_minor(entry: Any) -> bool:
    """Whether it is a form of a block, or one of the blocks with options: the script hides these at first."""
    return entry.name != entry.card.name or ".variants." in entry.kind.__module__


def sized(d: Any) -> str:
    """An SVG at its natural size."""
    return d.svg().replace(f'style="max-width:{d.width * 1.15:g}px"', f'width="{d.width}" height="{d.height}"')


class Pictures(Atlas):
    """A picture for each block, and for each form that looks otherwise."""

    def run(self) -> list[nodes.Node]:
        from _atlas import in_order
        from _atlas_graph import boxes
        from _atlas_picture import draw

        drawn: dict[tuple[Any, ...], list[Any]] = {}
        for entry in sorted(in_order(), key=is_minor):
            found = boxes(entry)
            look = tuple((box.kind, box.label, box.sources, box.shape, box.over, box.gate) for box in found)
            drawn.setdefault(look, [found]).append(entry)
        groups: dict[str, list[str]] = {name: [] for name in GROUPS}
        for found, first, *others in drawn.values():
            axes = {box.shape for box in found if box.gate}
            group = next(name for name, fits in GROUPS.items() if fits(axes))
            groups[group].append(
                self.figure(draw(found, first.what, "gate" if first.card.gate else "y"), first, others)
            )
        made = []
        for group, figures in groups.items():
            if figures:
                made.append(
                    f'<section class="atlas-group"><h3>{escape(group)}</h3>'
                    f'<div class="atlas-pictures">{"".join(figures)}</div></section>'
                )
        return [raw("".join(made))]

    def figure(self, picture: str, first: Any, others: list[Any]) -> str:
        names = [first.name, *(entry.name for entry in others)]
        words = " ".join(
            f"{entry.name} {entry.what} {entry.card.title} {entry.card.asks}" for entry in [first, *others]
        )
        title = first.card.title if first.name == first.card.name else first.what
        alike = f'<span class="alike">also {", ".join(map(escape, names[1:]))}</span>' if others else ""
        form = " form" if is_minor(first) else ""
        data = f'data-names="{escape(" ".join(names))}" data-words="{escape(words)}"'
        asks = f'<span class="asks">{escape(first.card.asks)}</span>'
        name = f"<code>{escape(first.name)}</code>"
        caption = f"<figcaption>{self.link(first.card.page, title)} {name}{asks}</figcaption>"
        return f'<figure class="atlas-picture drawing{form}" {data}>{caption}{picture}{alike}</figure>'


COLUMNS = ("block", "asks", "parameters", "multiplications", "passes", "time", "accuracy", "codebases")


class Table(Atlas):
    """A row for each name that the commands take."""

    def run(self) -> list[nodes.Node]:
        import _atlas

        self.env.note_dependency(_atlas.__file__)
        for file in (_atlas.TIMES, *_atlas.ABLATIONS):
            self.env.note_dependency(str(file))
        head = "".join(f'<th scope="col" data-column="{name}">{name}</th>' for name in COLUMNS)
        body = "".join(self.row(row) for row in _atlas.rows())
        return [
            raw(
                f'<div class="atlas-frame"><table class="atlas-table"><thead><tr>{head}</tr></thead>'
                f"<tbody>{body}</tbody></table></div>"
            )
        ]

    def row(self, row: Any) -> str:
        entry = row.entry
        title = entry.what if row.is_form else entry.card.title
        cells: Iterator[tuple[str, float | str | None, str]] = iter(
            (
                ("block", title.lower(), f"{self.link(entry.card.page, title)} <code>{escape(entry.name)}</code>"),
                ("asks", entry.card.asks, f"{escape(entry.card.asks)} <small>{escape(entry.card.gives)}</small>"),
                ("parameters", row.added, self.parameters(row)),
                ("multiplications", row.cost.a_number, multiplications(row)),
                ("passes", row.cost.forward + row.cost.backward, passes(row)),
                ("time", *time_of(row)),
                ("accuracy", *accuracy(row)),
                ("codebases", -sum(map(len, row.codebases.values())), self.codebases(row)),
            )
        )
        made = []
        for name, value, markup in cells:
            sort = "" if value is None else escape(str(value))
            made.append(f'<td data-label="{name}" data-sort="{sort}"><div>{markup}</div></td>')
        form = ' class="form"' if is_minor(entry) else ""
        return f'<tr data-name="{escape(entry.name)}"{form}>{"".join(made)}</tr>'

    def parameters(self, row: Any) -> str:
        import _atlas

        counted = [(f"{C:,}", count) for (C, _), count in zip(_atlas.STAGES, row.counts, strict=True)]
        if len(set(row.counts)) == 1:
            counted = [("at every width", row.counts[0])]
        counts = "".join(f"<span><i>{C}</i> {count:,}</span>" for C, count in counted)
        return f'<b class="formula">{formula_markup(str(row.formula))}</b><small class="stages">{counts}</small>'

    def codebases(self, row: Any) -> str:
        import _atlas

        if row.is_form:
            return f"<small>a form of {escape(row.entry.card.name)}</small>"
        names = ", ".join(
            f'<span title="{escape(", ".join(classes))}">{escape(dialect)}</span>'
            for dialect, classes in row.codebases.items()
        )
        where = _atlas.differs(row.entry)
        if not names and where.startswith("dialects"):
            return "<small>none that is spoken here</small>"
        return f"{names} <small>{self.link(where, 'how they differ')}</small>"


def formula_markup(text: str) -> str:
    """Letters slanted, as in the pages' mathematics."""
    return "".join(f"<i>{letter}</i>" if letter.isalpha() else escape(letter) for letter in text)


def short(number: float) -> str:
    """A number in few characters: 812 k, 1.85 G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"


def multiplications(row: Any) -> str:
    cost = row.cost
    where = f"{cost.C}×{cost.side}×{cost.side}"
    return f"{a_few(cost.a_number)} <small>{short(cost.multiplications)} for {where}</small>"


def a_few(number: float) -> str:
    """Three digits."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def passes(row: Any) -> str:
    cost = row.cost
    both = cost.forward + cost.backward
    return f"{both:.0f} <small>{cost.forward:.0f} forward; {cost.least[1]} at the least</small>"


def time_of(row: Any) -> tuple[float | None, str]:
    """Times as long as SE took, in the textbook's form; and in the fused one, where there is such."""
    found = row.time
    if not found:
        return None, "<small>not measured</small>"
    if "why" in found:
        return None, f"<small>not measured: {escape(found['why'])}</small>"
    ratios = {
        path: statistics.median(of["seconds"]) / statistics.median(of["beside"])
        for path, of in found.items()
        if path != "shape"
    }
    seconds = statistics.median(found["textbook"]["seconds"])
    fused = f"; fused {ratios['fused']:.2f} of fused SE" if "fused" in ratios else ""
    other = f" for {'×'.join(map(str, found['shape']))}" if "shape" in found else ""
    return ratios["textbook"], f"{ratios['textbook']:.2f} <small>{seconds * 1e3:.0f} ms{other}{fused}</small>"


def accuracy(row: Any) -> tuple[float | None, str]:
    """Per cent, its spread, and whether it can be told from no attention."""
    found = row.trained
    if found is None:
        return None, "<small>not trained</small>"
    less = f"{found.less:+.2f} ± {found.half:.2f}".replace("-", "−")
    told = "" if abs(found.less) > found.half else ": no difference"
    return found.less, (
        f"{found.mean:.2f} <small>spread {found.spread:.2f}, {found.seeds} seeds; beside none {less}{told}</small>"
    )


class Measured(Atlas):
    """The machine of docs/atlas.json."""

    def run(self) -> list[nodes.Node]:
        import _atlas

        head = _atlas.times()["head"]
        if not head:
            return [nodes.paragraph("", "No times are there yet.")]
        text = (
            f"The times are of an {head['processor']} with {head['threads']} threads, NumPy {head['numpy']}, "
            f"Python {head['python']}, {head['dtype']}, memory {head['allocator']}, x of {tuple(head['shape'])}."
        )
        return [nodes.paragraph("", text)]


def add_files(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """The script and the sheet, on the page that needs them."""
    if doctree is not None and page == "atlas":
        app.add_css_file("atlas.css")
        app.add_js_file("atlas.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("atlas-legend", Legend)
    app.add_directive("atlas-pictures", Pictures)
    app.add_directive("atlas-table", Table)
    app.add_directive("atlas-measured", Measured)
    app.connect("html-page-context", add_files)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
