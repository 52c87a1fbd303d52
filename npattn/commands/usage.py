"""What all commands have in common in what is typed: how it is taken apart, and what is refused.

UsageError                  the command cannot be run as it was given: status 2
Parser                      argparse's, which knows shapes in several arguments and says which word was probably meant
given(arguments, names)     those options that were typed
refuse(arguments, names, why)   those must not have been
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from npattn.arguments import did_you_mean
from npattn.commands.shapes import joined


class UsageError(Exception):
    """The command cannot be run as it was given. Told in one line; the status is 2."""


class Parser(argparse.ArgumentParser):
    """A parser of a command line, and of a sub-command's part of it."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """What argparse does, with shapes joined, and an error of the sub-command itself for what it does not know."""
        found, rest = super().parse_known_args(None if args is None else joined(args), namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        """End with status 2, after the usage and a line that names the nearest word that there is."""
        unknown = re.match(r"unrecognized arguments: (-\S*?)(=|\s|$)", message)
        choice = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)$", message)
        if unknown:
            options = {one.lstrip("-"): one for one in self._option_string_actions if one.startswith("--")}
            end = did_you_mean(unknown[1].lstrip("-"), options)
            message += end.replace("mean ", "mean --").replace(" or ", " or --")
        elif choice:
            message += did_you_mean(choice[1], re.findall(r"[\w.-]+", choice[2]))
        super().error(message)

    def told(self, message: str) -> str:
        """An error's message, with the arguments in front of its colon as they were typed: --batch-size: expected …

        It stays as it is if there are none, and what went wrong is nothing that was typed: "model: expected one whose
        scores are finite".
        """
        front = re.match(r"[a-z_]+(, [a-z_]+)*(?=: | \([a-z]+\): |\[\d+\]: )", message)
        known = {one.dest: one.option_strings[-1] if one.option_strings else str(one.metavar) for one in self._actions}
        names = front[0].split(", ") if front else []
        if front is None or not set(names) <= set(known):
            return message
        return ", ".join(known[name] for name in names) + message[front.end() :]


def given(arguments: argparse.Namespace, names: Iterable[str]) -> list[str]:
    """Those of the options that were typed: an option that was not is None, False or an empty list."""
    values = {name: getattr(arguments, name) for name in names}
    return [name for name, value in values.items() if value is not None and value is not False and value != []]


def refuse(arguments: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """Raise UsageError if one of these options was typed, which would change nothing: "has no effect with --list"."""
    if found := given(arguments, names):
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in found)
        raise UsageError(f"{flags} {'has' if len(found) == 1 else 'have'} no effect {why}")
