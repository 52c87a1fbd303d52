"""The Chinese edition: nothing on its pages is left in English, and it leads to the English one and back.

The catalogues are looked at by themselves; the built pages where there is a site (see test_docs.py), which for the
Chinese edition is its folder zh-CN.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from npattn.explain.trace import ops, trace, trace_op
from npattn.explain.watch import walked
from tests.site.conftest import SITE

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
CORE = (
    *("index", "notation", "tools", "glossary", "exercises", "look", "draw", "own", "questions", "demo"),
    *("checking", "checking-pitfalls"),
    *(f"blocks/{name}" for name in ["se", "channel", "spatial", "gate", "cbam", "concat", "psa", "residual", "wrong"]),
    *(f"ops/{name}" for name in ["activation", "linear", "pooling", "conv2d", "batch_norm", "softmax"]),
)
RESULTS = "return [...document.querySelectorAll('#search-results a')].map(a => a.href)"
TOKEN, WORD = r"\\[A-Za-z]+|[^\s.,]", r"\\text\{[^{}]*\}|\\q?quad|\{\}"
NAMES = {"sigmoid", "ReLU", "MLP", "FC", "SE", "CBAM"}  # in drawings, beside dx, dy, …
SAME = {  # what a translation has as often as what it translates
    "mathematics": r"\$[^$]*\$",
    "code": r"`[^`]+`",
    "link": r"\]\(([^)]*)\)",
    "placeholder": r"\{\d\}",
}


@pytest.fixture(scope="module")
def editions() -> Any:
    pytest.importorskip("sphinx")
    sys.path.insert(0, str(DOCS / "_ext"))
    try:
        import npattn_editions
    finally:
        sys.path.pop(0)
    return npattn_editions


def messages(editions: Any, page: str) -> list[Any]:
    from babel.messages.pofile import read_po

    with (editions.CATALOGUES / f"{page}.po").open("rb") as file:
        return [one for one in read_po(file) if one.id]


def test_the_core_path_is_there(editions: Any):
    assert editions.pages() == set(CORE)


@pytest.mark.parametrize("page", [*CORE, "words"])
def test_no_message_is_missing_or_fuzzy(editions: Any, page: str):
    found = messages(editions, page)
    assert found
    assert [one.id for one in found if editions.has_words(one.id) and not one.string] == []
    assert [one.id for one in found if one.fuzzy] == []


@pytest.mark.parametrize("page", [*CORE, "words"])
def test_mathematics_code_and_links_are_the_same(editions: Any, page: str):
    for one in messages(editions, page):
        for what, pattern in SAME.items() if one.string else ():
            theirs, ours = (Counter(re.findall(pattern, text)) for text in (one.id, one.string))
            assert theirs == ours, (what, one.id)


@pytest.mark.parametrize("page", [*CORE, "words"])
def test_a_catalogue_is_well_formed(editions: Any, page: str):
    """Readers of catalogues are tolerant: a quotation mark that is lost takes text with it, without a word."""
    for line in (editions.CATALOGUES / f"{page}.po").read_text(encoding="utf-8").splitlines():
        assert not line or line.startswith("#") or re.fullmatch(r'(msg(id|str) )?".*"', line), line


def test_what_has_words(editions: Any):
    for text in ("Forward", "$C$ numbers", "ReLU"):
        assert editions.has_words(text)
    for text in ("$a = b$", "{tag}`SE.1`", "\\begin{aligned}\nx &= 1\n\\end{aligned}", "`npattn.SELayer`", "3.5"):
        assert not editions.has_words(text)


def test_which_equations_have_words(editions: Any):
    """What is a small name, x^{\\text{max}}, is as it is in the code."""
    assert editions.says_something(r"\begin{cases} x & p = 0 \\ 0 & \text{else} \end{cases}")
    assert editions.has_words("\\begin{cases}\n0 & \\text{else}\n\\end{cases}")
    for names in (r"x^{\text{max}}_{\text{gate}}", r"{w}^{\,\text{avg}}", r"\text{a} = b", r"\operatorname{mean}"):
        assert not editions.says_something(names), names


@pytest.mark.parametrize("page", CORE)
def test_an_equation_is_the_same_but_for_its_words(editions: Any, page: str):
    """In any order: where English says "the first p with the largest x", Chinese begins with x."""
    for one in messages(editions, page):
        if one.string and "$" not in one.id and r"\text{" in one.id:
            theirs, ours = (Counter(re.findall(TOKEN, re.sub(WORD, "", text))) for text in (one.id, one.string))
            assert theirs == ours, one.id


def test_what_code_notes_is_said_in_chinese(editions: Any, monkeypatch: pytest.MonkeyPatch):
    """Whatever the trace of a block or an op notes, so that a new kind of note is not left in English."""
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    import npattn_docs

    there = editions.catalogue("words")
    monkeypatch.setattr(npattn_docs, "said", there.__getitem__)
    traces = [trace("cbam"), *(trace_op(name) for name in ops())]
    notes = {note for one in traces for step in walked([*one.forward, *one.backward]) for note in step.notes}
    assert len(notes) >= 2
    for note in notes:
        assert not re.search("[A-Za-z]", npattn_docs.noted(note)), note
        assert re.findall(r"\d+", note) == re.findall(r"\d+", npattn_docs.noted(note))


def test_drawings_are_in_chinese(editions: Any, monkeypatch: pytest.MonkeyPatch):
    """Their words, what is read out in their place included; names of variables and of functions stay."""
    monkeypatch.syspath_prepend(str(DOCS))
    from _figures import FIGURES

    there = editions.catalogue("words")
    for name, figure in FIGURES.items():
        svg = figure(there.__getitem__)
        for text in re.findall(r"<text [^>]*>([^<]*)<|aria-label=\"([^\"]*)\"", svg):
            words = re.findall(r"(?<![\w.])(?!d[a-z]\b)[A-Za-z]{2,}(?![\w.])", "".join(text))
            assert set(words) <= NAMES, (name, text)
        assert len(figure(str)) > len(re.sub("[\u4e00-\u9fff]", "", svg)) > 1000


@pytest.fixture
def small(editions: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Build a site of one page in Chinese; returns the page, and whether it was read for it."""
    from sphinx.application import Sphinx

    folder = tmp_path / "locale" / "zh_CN" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    (tmp_path / "index.md").write_text("# Title\n\n$$\n0 \\quad\\text{else}\n$$\n", encoding="utf-8")
    monkeypatch.setattr(editions, "DOCS", tmp_path)
    monkeypatch.setattr(editions, "CATALOGUES", folder)
    settings = {"language": "zh_CN", "locale_dirs": [str(tmp_path / "locale")]} | {
        "extensions": ["myst_parser", "npattn_editions"], "myst_enable_extensions": ["dollarmath"],
    }  # fmt: skip

    def build(**catalogues: dict[str, str]) -> tuple[str, bool]:
        for page, said in catalogues.items():
            lines = ['msgid ""\nmsgstr "Content-Type: text/plain; charset=utf-8\\n"\n']
            lines += [f"msgid {json.dumps(one)}\nmsgstr {json.dumps(said[one], ensure_ascii=False)}\n" for one in said]
            (folder / f"{page}.po").write_text("\n".join(lines), encoding="utf-8")
        monkeypatch.syspath_prepend(str(DOCS / "_ext"))
        out = str(tmp_path / "_build")
        app = Sphinx(str(tmp_path), None, out, out, "html", settings, status=None, warning=None, freshenv=False)
        read: list[str] = []
        app.connect("env-before-read-docs", lambda app, env, names: read.extend(names))
        app.build()
        return (tmp_path / "_build" / "index.html").read_text(encoding="utf-8"), read == ["index"]

    return build


def test_a_changed_word_of_no_page_and_a_changed_page_are_seen(small: Any):
    said = {"Title": "标题", r"0 \quad\text{else}": r"0 \quad\text{其他}"}
    text, read = small(index=said, words={"Forward": "前"})
    assert read
    assert "标题" in text
    assert r"0 \quad\text{其他}" in text
    assert "::" not in text
    assert "genindex" not in text
    assert small()[1] is False
    assert small(words={"Forward": "前向"})[1] is True
    assert small()[1] is False


def test_chinese_is_searched_two_characters_at_a_time(editions: Any):
    words = editions.Chinese({})
    assert words.split("通道注意力 SE与 CBAM") == ["通道", "道注", "注意", "意力", "SE", "与", "CBAM"]


def test_the_two_readmes_have_the_same_commands():
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
    commands = [line for line in english.splitlines() if re.match(r" {4}pip install \"\.\[(demo|test)\]\"", line)]
    assert len(commands) == 2
    assert all(line in chinese.splitlines() for line in commands)
    assert "README.zh-CN.md" in english.splitlines()[0]
    assert "README.md" in chinese.splitlines()[0]


# The built pages


@pytest.fixture(scope="module")
def built(editions: Any) -> Path:
    folder = Path(SITE) / str(editions.FOLDER)
    if not (folder / "index.html").exists():
        pytest.skip(f"no Chinese edition at {folder}: build it first")
    return folder


@pytest.mark.parametrize("page", CORE)
def test_a_page_leads_to_itself_in_the_other_language(built: Path, page: str):
    for folder, language in ((SITE, "zh-CN"), (built, "en")):
        file = folder / f"{page}.html"
        link = re.search(r'<p class="edition"><a href="([^"]+)" lang="([^"]+)"', file.read_text(encoding="utf-8"))
        assert link is not None
        assert link[2] == language
        other = built if language == "zh-CN" else Path(SITE)
        assert (file.parent / link[1]).resolve() == (other / f"{page}.html").resolve()
        assert (file.parent / link[1]).exists()


@pytest.mark.parametrize("page", CORE)
def test_a_chinese_page_is_whole(built: Path, page: str):
    file = built / f"{page}.html"
    text = file.read_text(encoding="utf-8")
    assert '<html class="no-js" lang="zh-CN"' in text
    for address in re.findall(r'<(?:a|script)\b[^>]*?(?:href|src)="([^"#]+)', text):
        if not re.match(r"[a-z]+:", address):
            assert (file.parent / address.partition("?")[0]).exists(), address
    for base in re.findall(r'data-base="([^"]+)"', text):
        scripts = built / "_static" / "live"
        assert (scripts / base / "worker.js").exists()
    assert "<summary>Answer</summary>" not in text
    assert not re.search(r"<annotation[^>]*>(?:::|[^<]*\\text\{(?:else|or)\})", text)
    assert '<p class="note">first' not in text
    for link in re.findall(r"<a [^>]+>", text):
        out = re.search(r'href="((?:\.\./)+)(?!zh-CN)[^"]*\.html', link)
        if out and out[1].count("../") > page.count("/") and "hreflang" not in link:
            assert "english" in link, link
    article = text.split("<article")[1].split("</article>")[0]
    assert len(re.findall(r"[\u4e00-\u9fff]", article)) > 100


def test_the_chinese_search_finds_both_languages(browser: Any, built: Path):
    for query, page in (
        ("通道注意力", "blocks/channel"),
        ("SE模块", "blocks/se"),
        ("sigmoid", "ops/activation"),
        ("梯度检验", "checking"),
    ):
        browser.get((built / "search.html").as_uri() + f"?q={query}")
        found: list[str] = []
        for _ in range(100):
            found = browser.execute_script(RESULTS)
            if any(f"{page}.html" in address for address in found):
                break
            time.sleep(0.1)
        assert any(f"{page}.html" in address for address in found), (query, found)
