"""The Chinese edition: nothing on its pages is left in English, and it leads to the English one and back.

The catalogues are looked at by themselves; the built pages where there is a site (see test_docs.py), which for the
Chinese edition is its folder zh-CN.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

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
