"""The Chinese edition: the same pages again, with the words of docs/locale/zh_CN. A page that has a catalogue is in it.

`sphinx-build -W docs docs/_build/html` builds the English pages, and when these are there the Chinese ones beneath
them, in zh-CN. By itself: `sphinx-build -W -D language=zh_CN docs docs/_build/html/zh-CN`.

A link to a page without a catalogue leads to the English one. What a page loads to be worked in is the English
edition's, so that it is there once. `python docs/locale/update.py` brings the catalogues up to what the pages say.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.locale import get_translation
from sphinx.search import SearchLanguage, languages
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.i18n import CatalogInfo
from sphinx.util.nodes import extract_messages

logger = logging.getLogger(__name__)
DOCS = Path(__file__).resolve().parents[1]
CATALOGUES = DOCS / "locale" / "zh_CN" / "LC_MESSAGES"
WORDS = "words"  # the catalogue of what no page says: of the directives and of the scripts
FOLDER = "zh-CN"

said: Callable[[str], str] = get_translation(WORDS)
"""A text of a directive in the language of the edition."""


def pages() -> set[str]:
    """The pages of the Chinese edition."""
    found = {path.relative_to(CATALOGUES).with_suffix("").as_posix() for path in CATALOGUES.rglob("*.po")}
    return found - {WORDS}


def chinese(config: Config) -> bool:
    return str(config.language).startswith("zh")


def leave_out_the_rest(app: Sphinx, config: Config) -> None:
    """Exclude the pages that have no catalogue, and let the tables of contents pass over them.

    There is no index either: the names that would stand in it are on those pages.
    """
    if chinese(config):
        config.html_use_index = False
        config.words_in_chinese = sorted(catalogue(WORDS).items())
        sources = [path.relative_to(DOCS) for ending in ("md", "py") for path in DOCS.rglob(f"*.{ending}")]
        others = [path.as_posix() for path in sources if path.with_suffix("").as_posix() not in pages()]
        config.exclude_patterns = [*config.exclude_patterns, *others]
        config.suppress_warnings = [*config.suppress_warnings, "toc.excluded", "toc.not_readable"]


def english(page: str, target: str) -> str:
    """The address of an English page, from a page of the Chinese edition."""
    return "../" * (page.count("/") + 1) + f"{target}.html"


def in_english(env: Any, page: str) -> bool:
    """Whether a page is not in the Chinese edition that is being built."""
    return chinese(env.config) and page not in pages()


def address(env: Any, page: str) -> str:
    """The address of a page from the one that is being read, in this edition if it is there."""
    if in_english(env, page):
        return english(env.docname, page)
    return str(env.app.builder.get_relative_uri(env.docname, page))


@functools.cache
def labels() -> dict[str, str]:
    """The page of each label, "(name)=", in the pages that have no catalogue."""
    found = {}
    for path in DOCS.rglob("*.md"):
        page = path.relative_to(DOCS).with_suffix("").as_posix()
        if page not in pages():
            found |= dict.fromkeys(re.findall(r"^\((.+)\)=$", path.read_text(encoding="utf-8"), re.MULTILINE), page)
    return found


class ToTheEnglishEdition(SphinxPostTransform):
    """Lead the links to pages that this edition has not to those that it was translated from."""

    default_priority = 5  # before MyST says that there is no such page

    def run(self, **_: Any) -> None:
        if not chinese(self.config):
            return
        for link in list(self.document.findall(addnodes.pending_xref)):
            target, anchor = str(link["reftarget"]), link.get("reftargetid")
            if link.get("refdomain") != "doc" and target in labels():
                target, anchor = labels()[target], target
            elif link.get("refdomain") != "doc" or target in self.env.all_docs:
                continue
            uri = english(self.env.docname, target) + (f"#{anchor}" if anchor else "")
            link.replace_self(nodes.reference("", "", *link.children, refuri=uri, internal=True, classes=["english"]))


class Complete(SphinxTransform):
    """Say which texts of a page have no Chinese, before they are put in: with -W that ends the build."""

    default_priority = 15  # Sphinx puts the Chinese in at 20

    def apply(self, **_: Any) -> None:
        page = self.env.docname
        if not chinese(self.config) or page not in pages():
            return
        there = catalogue(page)
        for node, text in extract_messages(self.document):
            if has_words(text) and not there.get(text):
                logger.warning("no Chinese for %r: python docs/locale/update.py", text[:80], location=node)


class EquationsInChinese(SphinxTransform):
    """Put the words of equations in. Sphinx writes a translated one as a literal block of reStructuredText, of which
    Markdown would leave "::"."""

    default_priority = 16

    def apply(self, **_: Any) -> None:
        page = self.env.docname
        if not chinese(self.config) or page not in pages():
            return
        there = catalogue(page)
        for node, text in list(extract_messages(self.document)):
            if isinstance(node, nodes.math_block) and text in there:
                node.rawsource, node.children = there[text], []
                node += nodes.Text(there[text])
                node["translatable"] = False  # it is done


def catalogue(page: str, of: Callable[[str], bool] = lambda place: True) -> dict[str, str]:
    """Text to Chinese, without what is missing or fuzzy; of those texts that stand at such a place."""
    from babel.messages.pofile import read_po

    path = CATALOGUES / f"{page}.po"
    if not path.exists():
        return {}
    with path.open("rb") as file:
        messages = [one for one in read_po(file) if one.id and one.string and not one.fuzzy]
    return {
        str(one.id): str(one.string)
        for one in messages
        if not one.locations or any(of(place) for place, _ in one.locations)
    }


def has_words(text: str) -> bool:
    """Whether there is something to translate: code, mathematics and a name of letters and numbers stay as they are."""
    left = re.sub(r"\$[^$]*\$|`[^`]*`", " ", text)
    prose = re.sub(r"\{[a-z]+\}|\\begin\{.*\\end\{\w+\}|\\[a-zA-Z]+", " ", left, flags=re.DOTALL)
    return re.search(r"[A-Za-z]{2,}", prose) is not None or says_something(left)


def says_something(equation: str) -> bool:
    """Whether an equation has words, \\text{else}, beside the small ones that are names, as in x^{\\text{max}}."""
    words = re.findall(r"(?<![\^_]\{)(?<![\^_]\{\\,)\\text\{([^{}]*)\}", equation)
    return any(re.search(r"[A-Za-z]{2,}", word) for word in words)


def switch(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Put a link to the same page in the other language above it."""
    if page not in pages() or "body" not in context:
        return
    up = "../" * page.count("/")
    if chinese(app.config):
        to, code, name = f"../{up}{page}.html", "en", "English"
    else:
        to, code, name = f"{up}{FOLDER}/{page}.html", FOLDER, "中文"
    link = f'<p class="edition"><a href="{to}" lang="{code}" hreflang="{code}" rel="alternate">{name}</a></p>'
    context["body"] = link + context["body"]


class Chinese(SearchLanguage):
    """Words of Latin letters as they are, and of Chinese every two characters that follow one another.

    A query is taken apart in the same way, so that it is found whatever words it is part of.
    """

    lang = "zh"
    language_name = "Chinese"
    js_splitter_code = """
function splitQuery(query) {
  const found = [];
  for (const run of query.match(/[\\u3400-\\u9fff]+|(?:(?![\\u3400-\\u9fff])[\\p{L}\\p{N}_])+/gu) || []) {
    if (!/[\\u3400-\\u9fff]/.test(run)) found.push(run);
    else if (run.length === 1) found.push(run);
    else for (let i = 0; i + 1 < run.length; i++) found.push(run.slice(i, i + 2));
  }
  return found;
}
"""

    def split(self, input: str) -> list[str]:
        found: list[str] = []
        for run in re.findall(r"[\u3400-\u9fff]+|[^\W\u3400-\u9fff]+", input):
            pairs = [run[i : i + 2] for i in range(len(run) - 1)]
            found += (pairs or [run]) if "\u3400" <= run[0] <= "\u9fff" else [run]
        return found

    def word_filter(self, word: str) -> bool:
        return True

    def stem(self, word: str) -> str:
        return word.lower()


def words_of_scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Give the scripts their words in the language of the edition."""
    if chinese(app.config):
        found = catalogue(WORDS, of=lambda place: place.endswith(".js"))
        content = json.dumps(found, ensure_ascii=False).replace("</", "<\\/")
        context["body"] = context.get("body", "") + f'<script type="application/json" id="words">{content}</script>'


def build_the_other(app: Sphinx, error: Exception | None) -> None:
    """Build the Chinese edition when the English one is done."""
    if error is not None or app.builder.name != "html" or chinese(app.config) or not pages():
        return
    options = ["-q", "-W", "--keep-going", "-D", "language=zh_CN", "-D", "nb_execution_mode=off"]
    folders = [str(app.srcdir), str(Path(app.outdir) / FOLDER)]
    done = subprocess.run([sys.executable, "-m", "sphinx", *options, *folders], capture_output=True, text=True)
    if done.returncode:
        logger.warning("the Chinese edition: %s", done.stderr.strip())


def setup(app: Sphinx) -> dict[str, Any]:
    languages["zh"] = Chinese
    if chinese(app.config):  # Sphinx compiles catalogues after it has looked for this one
        CatalogInfo(str(CATALOGUES), WORDS, "utf-8").write_mo("zh_CN")
    app.add_config_value("words_in_chinese", [], "env", list)  # where one is another, every page is read again
    app.add_message_catalog(WORDS, str(DOCS / "locale"))
    app.connect("config-inited", leave_out_the_rest)
    app.connect("html-page-context", switch)
    app.connect("html-page-context", words_of_scripts)
    app.connect("build-finished", build_the_other)
    app.add_transform(Complete)
    app.add_transform(EquationsInChinese)
    app.add_post_transform(ToTheEnglishEdition)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
