"""Pages that one can work in: exercises, and what they need to run in the reader's browser.

:::{exercises}             those of this page; put at the end of every page that has some, by itself
:::{exercises} bug         those of a kind, or the one of that name
:::{progress}              all of them, with a mark on what this browser has solved
:::{look} cbam             a block whose numbers one changes, and whose gates and gradients follow

What is loaded after the press of a button is put together when the build ends, in _static/live, beside the scripts that
stand there: Pyodide and CodeMirror from npm, NumPy from docs/_live, npattn from this tree.
"""

from __future__ import annotations

import html
import json
import shutil
import subprocess
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

from docutils import nodes
from npattn_editions import address, chinese, in_english, said
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from npattn.exercises import Exercise, exercises

logger = logging.getLogger(__name__)
SOURCE = Path(__file__).resolve().parents[1] / "_live"
ROOT = SOURCE.parents[1]
PYODIDE = ("pyodide.mjs", "pyodide.asm.js", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json")
HEADING = "Write it yourself"
ENGLISH = "../../../_static/live/"  # what the English edition serves, seen from where the Chinese one has the same


def of_page(page: str) -> list[Exercise]:
    """The exercises that stand on a page by themselves."""
    return [one for one in exercises().values() if one.page == page and one.kind != "bug"]


def add_section(app: Sphinx, page: str, source: list[str]) -> None:
    """Give a page that has exercises a section for them, at its end."""
    if of_page(page):
        source[0] += f"\n\n## {HEADING}\n\n:::{{exercises}}\n:::\n"


class Exercises(SphinxDirective):
    """Exercises to work on in the page."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        kind = self.arguments[0] if self.arguments else None
        named = [one for one in exercises().values() if kind in (one.kind, one.name)]
        found = of_page(self.env.docname) if kind is None else named
        return [nodes.raw("", "\n".join(shown(one) for one in found), format="html")]


def shown(one: Exercise) -> str:
    """An exercise as a page has it before anything is loaded: what is asked, and a button."""
    hints = [said(hint) for hint in one.hints]
    data = {"title": said(one.title), "start": one.file(), "answer": one.file(one.answer), "hints": hints}
    name, title = html.escape(one.name), html.escape(said(one.title[0].upper() + one.title[1:]))
    asked = (
        said("This backward has one mistake.")
        if one.kind == "bug"
        else said("The forward is given. Its backward is yours to write, and the gradient check judges it.")
    )
    begin, terminal, solved = said("Work on it here"), said("or in a terminal:"), said("solved")
    encoded = json.dumps(data, ensure_ascii=False).replace("</", "<\\/")
    return f"""<section class="exercise" id="exercise-{name}" data-exercise="{name}">
<h3>{title} <span class="exercise-mark" hidden>{solved}</span></h3>
<p>{asked}</p>
<div class="exercise-begin"><button type="button" class="live-button" data-begin>{begin}</button>
<span class="exercise-else">{terminal} <code>npattn exercise {name}</code></span></div>
<script type="application/json">{encoded}</script>
</section>"""


class Progress(SphinxDirective):
    """A table of all exercises; live.js marks those that are solved."""

    def run(self) -> list[nodes.Node]:
        rows = []
        for one in exercises().values():
            place = f"{address(self.env, one.page)}#exercise-{one.name}"
            kind = ' class="english"' if in_english(self.env, one.page) else ""
            rows.append(
                f'<tr data-progress="{html.escape(one.name)}"><td><a{kind} href="{html.escape(place)}">'
                f"{html.escape(one.name)}</a></td><td>{html.escape(said(one.title))}</td>"
                f'<td class="progress-mark"></td></tr>'
            )
        heads = (said("exercise"), said("what it is"), said("solved"))
        head = f"<tr>{''.join(f'<th>{one}</th>' for one in heads)}</tr>"
        told = '<p class="progress-told" role="status"></p>'
        table = f'<table class="progress"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
        return [nodes.raw("", told + table, format="html")]


def add_files(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Load the small script and its colours where there is something to work on."""
    if of_page(page) or page in ("index", "exercises", "look", "draw"):
        base = {"data-base": ENGLISH} if chinese(app.config) else {}
        app.add_js_file("live/live.js", loading_method="defer", **base)
        app.add_css_file("live/live.css")
    if page in ("look", "draw"):
        app.add_js_file(f"live/{page}.js", loading_method="defer")


class Look(SphinxDirective):
    """A place for _static/live/look.js: a block whose numbers one can change; or the kernel of a convolution."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name, start = html.escape(self.arguments[0]), said("Start it here")
        button = f'<button type="button" class="live-button" data-begin>{start}</button>'
        return [nodes.raw("", f'<section class="look" data-look="{name}"><p>{button}</p></section>', format="html")]


# What is served


def assemble(app: Sphinx, error: Exception | None) -> None:
    """Put together what the browser is given, in _static/live."""
    if error is not None or app.builder.format != "html" or chinese(app.config):
        return
    target = Path(app.outdir) / "_static" / "live"
    (target / "pyodide").mkdir(parents=True, exist_ok=True)
    try:
        fetched(target)
    except (OSError, RuntimeError) as failed:
        logger.warning("the pages can be read, and not be worked in: %s", failed)


def fetched(target: Path) -> None:
    """What is not ours. Raises OSError or RuntimeError if it cannot be had."""
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("npm is not installed")
    modules = installed(npm)
    esbuild = [str(modules / ".bin" / "esbuild"), str(SOURCE / "editor.js")]
    bundled = ["--bundle", "--format=esm", "--minify", "--legal-comments=none", f"--outfile={target / 'editor.js'}"]
    called([*esbuild, *bundled, "--log-level=warning"])
    for name in PYODIDE:
        shutil.copy(modules / "pyodide" / name, target / "pyodide")
    (numpy,) = SOURCE.glob("numpy-*.whl")
    shutil.copy(numpy, target)
    library(target / "npattn.zip")
    licences(modules, target / "licences.txt")
    asked = [target / "pyodide" / name for name in PYODIDE[2:]] + [target / numpy.name, target / "npattn.zip"]
    files = {"numpy": numpy.name, "npattn": "npattn.zip", "total": sum(file.stat().st_size for file in asked)}
    (target / "files.json").write_text(json.dumps(files), encoding="utf-8")


def installed(npm: str) -> Path:
    """npm's packages as the lock file has them, fetched unless they are there."""
    modules = SOURCE / "node_modules"
    lock, done = SOURCE / "package-lock.json", modules / ".package-lock.json"
    if not done.exists() or done.stat().st_mtime < lock.stat().st_mtime:
        called([npm, "ci", "--no-fund", "--no-audit", "--loglevel=error"])
    return modules


def called(command: list[str]) -> None:
    done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def library(path: Path) -> None:
    """npattn of this tree and what it imports, as a zip; without the digits."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in sorted((ROOT / "npattn").rglob("*.py")):
            archive.write(file, file.relative_to(ROOT))
        for name in ("array-api-compat", "threadpoolctl"):
            for file in metadata.files(name) or ():
                if file.suffix == ".py" and ".." not in file.parts:
                    archive.write(Path(file.locate()), file.as_posix())


def licences(modules: Path, path: Path) -> None:
    """The licences of what is served, in one file."""
    parts = []
    for package in sorted(modules.rglob("package.json")):
        told = json.loads(package.read_text(encoding="utf-8"))
        texts = [file for file in package.parent.glob("LICEN[SC]E*") if file.is_file()]
        if "name" in told and "esbuild" not in told["name"] and "node_modules" in package.parent.parent.as_posix():
            text = texts[0].read_text(encoding="utf-8") if texts else f"Licence: {told.get('license', 'see its page')}"
            parts.append(f"{told['name']} {told.get('version', '')}\n\n{text.strip()}")
    parts.append("NumPy\n\n" + (SOURCE / "numpy-LICENSE.txt").read_text(encoding="utf-8").strip())
    path.write_text(f"\n\n{'-' * 80}\n\n".join(parts) + "\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("exercises", Exercises)
    app.add_directive("progress", Progress)
    app.add_directive("look", Look)
    app.connect("source-read", add_section)
    app.connect("html-page-context", add_files)
    app.connect("build-finished", assemble)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
