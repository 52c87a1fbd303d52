"""Sphinx's settings. Build with `sphinx-build -W docs docs/_build/html` from the root of the repository."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path

import jupytext
import sphinxcontrib.katex as katex

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS / "_ext"), str(DOCS)]
# the notebooks run in a process of their own, on this tree's npattn
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

import npattn  # noqa: E402

project = "npattn"
author = "the npattn contributors"
copyright = "the npattn contributors; MIT license"
version = release = npattn.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinxcontrib.katex",
    "npattn_docs",
    "npattn_live",
    "npattn_atlas",
    "npattn_editions",
]
exclude_patterns = ["_build", "_ext", "_live", "_static", "locale"]

# The Chinese edition, docs/locale: see _ext/npattn_editions.py
locale_dirs = ["locale"]
gettext_compact = False  # a catalogue for each page
gettext_location = False  # or every line that moves would change them

myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3
default_role = "py:obj"  # a name in backquotes is a link where there is something of that name

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say it in words, with shapes
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # an attribute that is a property too is described once

# Links to Python's and NumPy's own pages. The names stand here, and not in inventories that a build would have to
# fetch, so that it needs no network.
PYTHON = {"exceptions.html#$": "TypeError ValueError KeyError RuntimeError OSError AttributeError ArithmeticError"}
NUMPY = {
    "reference/generated/$.html#$": "numpy.ndarray numpy.load numpy.savez",
    "reference/random/generator.html#$": "numpy.random.Generator",
}


def inventory(project: str, kind: str, pages: dict[str, str]) -> str:
    """Write the names as an objects.inv, version 2, and return where it is."""
    entries = [(name, page) for page, names in pages.items() for name in names.split()]
    lines = [f"{name} {kind} 1 {page.replace('$', name)} -\n" for name, page in entries]
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n# compressed by zlib\n"
    path = DOCS / "_build" / f"{project}.inv"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(head.encode() + zlib.compress("".join(lines).encode()))
    return str(path)


intersphinx_mapping = {
    "python": ("https://docs.python.org/3/library", inventory("Python", "py:exception", PYTHON)),
    "numpy": ("https://numpy.org/doc/stable", inventory("NumPy", "py:class", NUMPY)),
}

# Mathematics is rendered here, once; a page carries the result. The CSS and fonts are KaTeX 0.16.22's, the version that
# the extension bundles: the markup of one version and the CSS of another do not fit.
katex_prerender = True
katex_css_path = "katex/katex.min.css"


def connected(rundir: Path, timeout: float) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start KaTeX's server and connect to its Unix socket, which is there a moment before anybody listens.

    The extension gives up in that moment. By way of a port it does not, and each equation takes 90 ms instead of 1,
    since a request goes out in two parts and the second waits until the first is acknowledged.
    """
    path, ends = rundir / "katex.sock", time.monotonic() + timeout
    command = katex.KaTeXServer.build_command(socket=path)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=rundir)
    while True:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            found.connect(str(path))
            return process, found
        except (FileNotFoundError, ConnectionRefusedError):
            found.close()
            if time.monotonic() > ends:
                raise katex.KaTeXServer.timeout_error(timeout) from None
            time.sleep(0.01)


katex.KaTeXServer.start_server_process = staticmethod(connected)  # on Windows the extension takes a port
katex.KATEX_DEFAULT_OPTIONS |= {
    "throwOnError": True,  # a formula that cannot be read ends the build
    "macros": {
        r"\d": r"\mathrm{d}",  # \d x is the gradient of the loss with respect to x
        r"\wone": r"w^{(1)}",
        r"\wtwo": r"w^{(2)}",
        r"\relu": r"\operatorname{relu}",
        r"\mlp": r"\operatorname{mlp}",
        r"\pd": r"\frac{\partial #1}{\partial #2}",
        r"\code": r"\texttt{#1}",
        r"\pmax": r"p^{\text{max}}",  # where the first maximum is: a pixel, a channel, …
        r"\cmax": r"c^{\text{max}}",
        r"\kmax": r"k^{\text{max}}",
        r"\lmax": r"l^{\text{max}}",
    },
}

html_theme = "furo"
html_title = "npattn"
html_static_path = ["_static"]
html_css_files = ["npattn.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"sidebar_hide_name": False}
pygments_style = "tango"
pygments_dark_style = "github-dark"

# The notebooks of examples/ are Python files, cells marked with # %%. They are run while the site is built.
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_excludepatterns = ["conf.py"]
nb_merge_streams = True
nb_output_stderr = "remove"  # the bar of a training, which is drawn again at every step
exclude_patterns += ["conf.py", "_figures.py", "_dataflow.py", "_demo_figures.py", "_parallel.py"]
exclude_patterns += ["_atlas.py", "_atlas_graph.py", "_atlas_picture.py"]
exclude_patterns += ["_measured.md"]  # it is included by fused.md
exclude_patterns += ["examples/*.ipynb"]  # to download; the page is made of the Python file

shutil.rmtree(DOCS / "examples", ignore_errors=True)  # copied in at every build, since Sphinx reads below docs/ only
(DOCS / "examples").mkdir()
for notebook in (ROOT / "examples").glob("*.py"):
    text = notebook.read_text(encoding="utf-8")
    if "# %%" in text:  # the others are plain scripts
        jupytext.write(jupytext.reads(text, "py:percent"), DOCS / "examples" / f"{notebook.stem}.ipynb")
        download = f"# %% [markdown]\n# {{download}}`Download this page as a notebook <{notebook.stem}.ipynb>`\n"
        (DOCS / "examples" / notebook.name).write_text(f"{text}\n{download}", encoding="utf-8")
