"""What one runs while working on npattn, each in an environment of its own: `nox -l` lists, `nox -s lint` runs one."""

from __future__ import annotations

import nox

nox.options.sessions = ["tests", "lint"]


@nox.session
def tests(session: nox.Session) -> None:
    """All tests. What follows `--` goes to pytest: nox -s tests -- -k cbam"""
    session.install(".[test]")
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session
def lowest(session: nox.Session) -> None:
    """All tests, with the lowest version of each package that pyproject.toml allows."""
    session.install(".[test]", "--constraint", "tests/lowest.txt")
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types and docstrings."""
    session.install(".[test,lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("pytest", "-q", "tests/layers/test_docstrings.py")


@nox.session
def docs(session: nox.Session) -> None:
    """The site, and the tests of its pages. Needs Node and npm, and for the tests Chromium with its driver."""
    session.install(".[test,docs]")
    session.run("sphinx-build", "-W", "--keep-going", "docs", "docs/_build/html")
    session.run(
        "pytest",
        "-q",
        *(f"tests/site/test_{name}.py" for name in ("docs", "live", "look", "draw", "atlas", "editions")),
    )


@nox.session
def bench(session: nox.Session) -> None:
    """Our times beside PyTorch's: nox -s bench -- --block se --shape 32,64,56,56"""
    session.install(".[oracle]")
    session.run("npattn", "bench", *session.posargs)


@nox.session
def mutation(session: nox.Session) -> None:
    """How many small errors the tests notice: nox -s mutation -- --changed main"""
    session.install("-e", ".[test,mutation]")
    session.run("python", "tests/mutation.py", *session.posargs)
