"""Bring the Chinese catalogues up to what the pages say now: `python docs/locale/update.py [PAGE …]`, from the root.

Every page that has a catalogue is looked at, and those that are named get one. New messages come in empty, changed ones
with their old translation and marked fuzzy; both are to be written, in docs/locale/zh_CN/LC_MESSAGES/PAGE.po, and the
mark removed. words.po has what is said by directives, drawings, exercises and scripts. tests/site/test_editions.py
counts what is left. Needs what `pip install ".[docs]"` brings.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po, write_po

LOCALE = Path(__file__).resolve().parent
DOCS = LOCALE.parent
WRITTEN = datetime(2026, 11, 30, tzinfo=UTC)  # one for all, or each run would change every file
CATALOGUES = LOCALE / "zh_CN" / "LC_MESSAGES"
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]

from npattn_editions import WORDS, pages  # noqa: E402

from npattn.exercises import exercises  # noqa: E402


def of_pages(folder: Path) -> dict[str, Catalog]:
    """What the pages say, by page, as Sphinx takes it from them."""
    options = ("-q", "-b", "gettext", "-D", "nb_execution_mode=off")
    subprocess.run([sys.executable, "-m", "sphinx", *options, str(DOCS), str(folder)], check=True)
    found = {}
    for path in folder.rglob("*.pot"):
        with path.open("rb") as file:
            found[path.relative_to(folder).with_suffix("").as_posix()] = read_po(file)
    return found


def of_code(there: set[str]) -> Catalog:
    """What the extensions, drawings, scripts and exercises of these pages say: each `said(…)`, each title and hint."""
    said = Catalog()
    for method, pattern in (("python", "_ext/*.py"), ("python", "_figures.py"), ("javascript", "_static/live/*.js")):
        for path in sorted(DOCS.glob(pattern)):
            for _, message, _, _ in extract_from_file(method, str(path), keywords={"said": None}):
                said.add(message, locations=[(path.relative_to(DOCS).as_posix(), 0)])
    for one in exercises().values():
        if one.page not in there:
            continue
        for text in (one.title, one.title[0].upper() + one.title[1:], *one.hints):
            said.add(text, locations=[("exercises", 0)])
    return said


def update(path: Path, template: Catalog) -> str:
    """Write the catalogue anew with the messages of the template, and return what is left to do in it."""
    catalogue = Catalog(locale="zh_CN")
    if path.exists():
        with path.open("rb") as file:
            catalogue = read_po(file, locale="zh_CN")
    catalogue.update(template, update_header_comment=False)
    catalogue.obsolete.clear()
    catalogue.project, catalogue.version, catalogue.fuzzy = "npattn", "", False
    catalogue.msgid_bugs_address = catalogue.last_translator = catalogue.language_team = ""
    catalogue.creation_date = catalogue.revision_date = WRITTEN
    catalogue.header_comment = f"# What {path.relative_to(CATALOGUES).with_suffix('')} says, in Chinese."
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_po(file, catalogue, width=0, omit_header=False, include_lineno=False)
    empty = sum(1 for one in catalogue if one.id and not one.string)
    fuzzy = sum(1 for one in catalogue if one.id and one.fuzzy)
    return f"{path.relative_to(CATALOGUES)}: {len(catalogue)} messages, {empty} empty, {fuzzy} fuzzy"


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        templates = of_pages(Path(folder))
    wanted = pages() | set(sys.argv[1:])
    unknown = wanted - set(templates)
    if unknown:
        print(f"expected pages under docs/, without their ending, got {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    for page in sorted(wanted):
        print(update(CATALOGUES / f"{page}.po", templates[page]))
    print(update(CATALOGUES / f"{WORDS}.po", of_code(wanted)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
