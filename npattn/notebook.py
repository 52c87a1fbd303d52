"""What a notebook shows of our results: tables, text and pictures as HTML, in the notebook's own colours."""

from __future__ import annotations

import base64
import html
import sys
from collections.abc import Iterable, Sequence

PNG = b"\x89PNG\r\n\x1a\n"
CELL = "text-align:left;padding:.15em .9em .15em 0;background:none"  # and no colour: the notebook has one
RULE = "border-bottom:1px solid currentColor"


def is_notebook() -> bool:
    """Whether this runs in a kernel that a notebook talks to, which is no terminal and yet shows bars and pictures."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return "IPKernelApp" in getattr(shell, "config", {})


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows below a row of headings. All of it is text, and none of it markup."""
    parts = [f'<th style="{CELL};{RULE}">{html.escape(cell)}</th>' for cell in head]
    lines = [f"<tr>{''.join(parts)}</tr>"]
    for row in rows:
        cells = "".join(f'<td style="{CELL}">{html.escape(cell)}</td>' for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    return f'<table style="border-collapse:collapse">{"".join(lines)}</table>'


def html_lines(lines: Iterable[str]) -> str:
    """A paragraph for each line."""
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def html_text(text: str) -> str:
    """Text as it is, in letters of one width."""
    return f'<pre style="background:none;color:inherit">{html.escape(text)}</pre>'


def html_picture(png: bytes, words: str) -> str:
    """A picture within the page, and what it is in words; nothing if the bytes are no PNG."""
    if not png.startswith(PNG):
        return ""
    data = base64.b64encode(png).decode()
    return f'<img alt="{html.escape(words)}" style="max-width:100%" src="data:image/png;base64,{data}">'
