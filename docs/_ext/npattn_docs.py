"""What the pages need beside Markdown: equations numbered by tag, worked examples, drawings, folded answers, the API.

:::{forward} SE.1          an equation of the forward, numbered SE.1
:::{backward} SE.1         the equation that undoes it
{tag}`SE.1`                a link to the equation; {tag}`←SE.1` to its backward
:::{worked} se             a worked example of a block or an op, computed now by npattn.explain.trace
:::{drawing} se            a picture of docs/_figures.py, or of any block from its own file, with a caption
:::{answer}                an exercise's answer, folded away
:::{extremes} sizes        a table of what the extremes' tests run, made now
:::{blocks}                a table of all blocks, from their cards
:::{api} blocks           the public names of a topic, from their docstrings; or variants, or pairs
"""

from __future__ import annotations

import html
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from npattn_editions import address, in_english, said, says_something
from npattn_editions import pages as pages_in_chinese
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

logger = logging.getLogger(__name__)
EQUATION = re.compile(r"^[:`]{3,}\{(forward|backward)\} (.+)$", re.MULTILINE)


def anchor(direction: str, tag: str) -> str:
    """The id of a tag's equation: "SE.1", or "SE.1-back" for its backward."""
    return tag if direction == "forward" else f"{tag}-back"


def places(docs: Path) -> dict[str, str]:
    """The page on which each equation stands, by anchor."""
    found = {}
    for page in sorted(docs.rglob("*.md")):
        for direction, tags in EQUATION.findall(page.read_text(encoding="utf-8")):
            for tag in tags.split(", "):
                found[anchor(direction, tag)] = page.relative_to(docs).with_suffix("").as_posix()
    return found


def formula(latex: str) -> nodes.math_block:
    """A displayed formula without a number of Sphinx's."""
    return nodes.math_block(latex, latex, nowrap=True, number=None, label=None, **{"no-wrap": True})


def raw(markup: str) -> nodes.raw:
    return nodes.raw("", markup, format="html")


class Equation(SphinxDirective):
    """An equation with its tag beside it; a wide one scrolls in itself."""

    has_content = True
    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        direction = self.name
        tags = self.arguments[0].split(", ")
        math = formula("\n".join(self.content))
        if says_something(math.rawsource):  # it is a message of the page's catalogue, as what stands between $$ is
            math.source, math.line = self.get_source_info()
        box = nodes.container(classes=["equation", direction], ids=[anchor(direction, tag) for tag in tags])
        box += nodes.container("", math, classes=["equation-math"])
        arrow = "" if direction == "forward" else "←&nbsp;"
        label = html.escape(", ".join(tags))
        box += raw(f'<a class="equation-tag" href="#{anchor(direction, tags[0])}">{arrow}{label}</a>')
        return [box]


class TagRole(SphinxRole):
    """A link to an equation."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        back = self.text.startswith("←")
        tag = self.text.removeprefix("←").strip()
        target = anchor("backward" if back else "forward", tag)
        page = places_of(self.env).get(target)
        if page is None:
            logger.warning("no equation is numbered %s", self.text, location=self.get_location())
            return [nodes.literal(self.text, self.text)], []
        uri = f"{address(self.env, page)}#{target}"
        classes = ["tag", "english"] if in_english(self.env, page) else ["tag"]
        return [nodes.reference(self.text, self.text, refuri=uri, internal=True, classes=classes)], []


def places_of(env: Any) -> dict[str, str]:
    """`places`, read once a build."""
    if not hasattr(env, "npattn_places"):
        env.npattn_places = places(Path(env.srcdir))
    return env.npattn_places


# Worked examples


def number(value: float) -> str:
    """Four places, without zeros at the end."""
    short = f"{value:.4f}".rstrip("0").rstrip(".")
    return "0" if short == "-0" else short


def matrices(value: np.ndarray) -> list[str]:
    """An array as LaTeX: leading axes of length 1 left out, a matrix for the last two, several of them for the rest."""
    lead = next((i for i, n in enumerate(value.shape[:-1]) if n > 1), max(value.ndim - 1, 0))
    core = value.reshape(value.shape[lead:])
    if core.ndim == 0:
        return [number(float(core))]
    if core.ndim <= 2:
        rows = r" \\ ".join(" & ".join(number(v) for v in row) for row in np.atleast_2d(core))
        return [rf"\begin{{bmatrix}} {rows} \end{{bmatrix}}"]
    return [one for part in core for one in matrices(part)]


def letter(name: str) -> str:
    """A variable's name as LaTeX's typewriter letters."""
    return r"\code{" + name.replace("_", r"\_") + "}"


def shape_text(value: np.ndarray) -> str:
    return "(" + ", ".join(map(str, value.shape)) + ("," if value.ndim == 1 else "") + ")"


def assigned(name: str, value: np.ndarray) -> nodes.container:
    """name = numbers, and the shape."""
    box = nodes.container(classes=["assigned"])
    first, *others = matrices(value)
    numbers = nodes.container(classes=["numbers"])  # they stand side by side, and below each other where it is narrow
    for one in (f"{letter(name)} = {first}", *others):
        numbers += nodes.container("", formula(one), classes=["equation-math"])
    box += numbers
    box += raw(f'<span class="shape">{shape_text(value)}</span>')
    return box


def noted(note: str) -> str:
    """A note of the trace, on what a line chose, in the language of the edition."""
    for start, text in (
        ("first maximum at pixel ", said("first maximum at pixel {0}")),
        ("first maximum in channel ", said("first maximum in channel {0}")),
    ):
        if note.startswith(start):
            return str(text).format(note.removeprefix(start))
    return note


class Worked(SphinxDirective):
    """A worked example: what `npattn trace` prints, with the numbers set as matrices."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {"seed": directives.nonnegative_int, "part": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        from npattn.explain.trace import ops, trace, trace_op

        name, seed = self.arguments[0], self.options.get("seed")
        found = trace_op(name, seed) if name in ops() else trace(name, seed=seed)
        part = self.options.get("part")
        made: list[nodes.Node] = []

        def titled(title: str) -> list[nodes.Node]:
            return [] if part else [raw(f'<p class="part">{title}</p>')]

        if part in (None, "given"):
            made += titled(said("What is given"))
            made += [assigned(name, value) for name, value in found.given.items()]
            made.append(assigned(f"d{found.names[1]}", found.dy))
        if part in (None, "forward"):
            made += titled(said("Forward")) + self.steps(found.forward)
        if part in (None, "backward"):
            made += titled(said("Backward")) + self.steps(found.backward)
        if part in (None, "check"):
            made += titled(said("The check")) + self.checks(found.checks)
        return [nodes.container("", *made, classes=["worked"])]

    def steps(self, steps: list[Any], depth: int = 0) -> list[nodes.Node]:
        boxes: list[nodes.Node] = []
        for step in steps:
            box = nodes.container(classes=["step", f"depth{depth}"])
            tag, code = html.escape(step.line.tag), html.escape(step.line.code)
            box += raw(f'<p class="line"><span class="step-tag">{tag}</span> <code>{code}</code></p>')
            box += self.steps(step.inside, depth + 1)
            for name, value in step.values.items():
                box += assigned(name, value)
            for note in step.notes:
                box += nodes.paragraph("", noted(note), classes=["note"])
            boxes.append(box)
        return boxes

    def checks(self, checks: list[Any]) -> list[nodes.Node]:
        rows, largest = [], said("largest difference in")
        for check in checks:
            for index in np.ndindex(check.analytic.shape):
                entry = html.escape(f"{check.name}[{', '.join(map(str, index))}]")
                analytic, numeric = check.analytic[index], check.numeric[index]
                rows.append(
                    f"<tr><td><code>{entry}</code></td><td>{analytic:.9f}</td><td>{numeric:.9f}</td>"
                    f"<td>{abs(analytic - numeric):.0e}</td></tr>"
                )
            rows.append(
                f'<tr class="largest"><td colspan="3">{largest} <code>{check.name}</code></td>'
                f"<td>{check.difference:.0e}</td></tr>"
            )
        heads = (said("entry"), said("by hand"), said("by differences"), said("apart"))
        head = f"<tr>{''.join(f'<th>{one}</th>' for one in heads)}</tr>"
        return [raw(f'<div class="check"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>')]


# Drawings, answers, the blocks, the API


class Drawing(SphinxDirective):
    """An SVG in the page itself, so that it takes the page's colours: of docs/_figures.py, or of a block's own file."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        import _dataflow
        import _figures

        self.env.note_dependency(_figures.__file__)
        self.env.note_dependency(_dataflow.__file__)
        name = self.arguments[0]
        figure = nodes.container(classes=["drawing"])
        figure += raw(_figures.FIGURES[name](said) if name in _figures.FIGURES else _dataflow.of_block(name))
        if self.content:
            caption = nodes.container(classes=["caption"])
            self.state.nested_parse(self.content, self.content_offset, caption)
            figure += caption
        return [figure]


class Answer(SphinxDirective):
    """An answer behind its title, a <details> of HTML."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        inner = nodes.container(classes=["answer"])
        self.state.nested_parse(self.content, self.content_offset, inner)
        return [raw(f'<details class="fold"><summary>{said("Answer")}</summary>'), inner, raw("</details>")]


class Blocks(SphinxDirective):
    """A row for each card: the block with a link to its page, and what the card says. New ones appear by themselves.

    In the order in which the page that holds the table names their pages.
    """

    def run(self) -> list[nodes.Node]:
        from npattn.blocks import blocks

        cards = {entry.card.name: entry for entry in blocks().values()}
        text = Path(self.env.doc2path(self.env.docname)).read_text(encoding="utf-8")
        pages = re.findall(r"^[\w/*]+$", text, re.MULTILINE)  # the lines of its toctrees

        def place(entry: Any) -> int:
            return next((i for i, page in enumerate(pages) if fnmatch(entry.card.page, page)), len(pages))

        head = ["block", "asks", "gives", "parameters", "source"]
        rows = [head]
        for entry in sorted(cards.values(), key=place):
            card = entry.card
            title = f"[{plain(card.title)}](/{card.page}.md) `{card.name}`"
            rest = (card.asks, card.gives, parameters(entry.kind), card.source)
            rows.append([title, *(plain(text) for text in rest)])
        lines = [":::{list-table}", ":header-rows: 1", ":widths: 24 16 18 20 22", ":class: blocks", ""]
        for row in rows:
            lines += [f"{'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(row)]
        box = nodes.container()
        self.state.nested_parse(StringList([*lines, ":::"], "blocks"), 0, box)
        there = pages_in_chinese()
        for entry, row in zip(sorted(cards.values(), key=place), list(box.findall(nodes.row))[1:], strict=True):
            for text in row.findall(nodes.paragraph):
                text["translatable"] = entry.card.page in there  # a new block asks nobody for its Chinese
        return [box]


class Extremes(SphinxDirective):
    """A table of tests/support/extremes.py, which its tests run as well: forms, sizes, special values."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        from tests.support.extremes import TABLES

        box = nodes.container()
        self.state.nested_parse(StringList(TABLES[self.arguments[0]]().splitlines(), "extremes"), 0, box)
        return [box]


def plain(text: str) -> str:
    """Text in which Markdown finds nothing to set otherwise."""
    return re.sub(r"([\\`*_\[\]<>${}])", r"\\\1", text)


def parameters(kind: Any) -> str:
    """The parameters that a class declares, as the formula names and shapes them."""
    from npattn.block import Block, Weight

    if not issubclass(kind, Block):
        return "those of its layers"
    weights = [weight for weight in kind.state if isinstance(weight, Weight)]
    shapes = (f"{weight.field} ({', '.join(weight.axes.split())})" for weight in weights)
    unbroken = (shape.replace(" ", "\N{NO-BREAK SPACE}") for shape in shapes)
    return ", ".join(unbroken) or "none"


def topic(thing: Any) -> str:
    """On which page of the reference a public class or function stands: by the module that it is from."""
    room = thing.__module__.split(".")[1]
    pages = {
        "attention": "blocks",
        "ops": "ops",
        "checker": "checking",
        "training": "training",
        "optimizer": "training",
    }
    return pages.get(room, "layers")


class Api(SphinxDirective):
    """The names of `npattn.__all__` of one topic from their docstrings, every class of variants/, or every pair.

    New ones appear by themselves.
    """

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        lines = self.pairs() if self.arguments[0] == "pairs" else self.names(self.arguments[0])
        box = nodes.container()
        # autodoc speaks reStructuredText
        self.state.nested_parse(StringList(["```{eval-rst}", *lines, "```"], "api"), 0, box)
        return [box]

    def names(self, wanted: str) -> list[str]:
        """The public classes and functions: first the blocks, and of those first the ones that have a fused form."""
        import inspect

        import npattn
        from npattn.blocks import public
        from npattn.fused import twin

        def rank(name: str) -> tuple[int, str]:
            if name not in public():
                return 2, name
            textbook = public()[name].textbook
            return (0 if textbook and twin(textbook) else 1), name

        variants = wanted == "variants"
        place, package = ("npattn.variants", npattn.variants) if variants else ("npattn", npattn)
        lines = []
        for name in sorted(package.__all__, key=rank):
            thing = getattr(package, name)
            if not variants and topic(thing) != wanted:
                continue
            lines += [f".. auto{'class' if inspect.isclass(thing) else 'function'}:: {place}.{name}", ""]
            if name == "Layer":
                lines[-1:] = ["   :members:", ""]
        if not lines:
            raise self.error(f"no public name has the topic {wanted!r}")
        return lines

    def pairs(self) -> list[str]:
        import inspect

        from npattn.blocks import modules

        lines = []
        for room in ("attention", "variants", "ops"):
            for module in modules(room):
                for name, thing in vars(module).items():
                    if (
                        inspect.isfunction(thing)
                        and thing.__module__ == module.__name__
                        and name.endswith(("forward", "backward"))
                    ):
                        lines += [f".. autofunction:: {module.__name__}.{name}", ""]
        return lines


def plain_bars(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Let |x| in a docstring be an absolute value, and no substitution of reStructuredText's."""
    for i, line in enumerate(lines):
        parts = line.split("`")
        lines[i] = "`".join(part if j % 2 else part.replace("|", "\\|") for j, part in enumerate(parts))


def one_pair_of_brackets(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Write "x : (N, C, H, W)" of a docstring without its brackets: napoleon puts a type into some of its own."""
    for i, line in enumerate(lines):
        lines[i] = re.sub(r"^(\s*\w+ : )\(([^()]*)\)$", r"\1\2", line)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("forward", Equation)
    app.add_directive("backward", Equation)
    app.add_role("tag", TagRole())
    app.add_directive("worked", Worked)
    app.add_directive("drawing", Drawing)
    app.add_directive("answer", Answer)
    app.add_directive("blocks", Blocks)
    app.add_directive("extremes", Extremes)
    app.add_directive("api", Api)
    app.connect("autodoc-process-docstring", one_pair_of_brackets, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", plain_bars, priority=600)
    app.connect("env-before-read-docs", lambda app, env, names: setattr(env, "npattn_places", places(Path(env.srcdir))))
    return {"version": "1", "parallel_read_safe": True}
