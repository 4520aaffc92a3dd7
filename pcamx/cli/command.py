"""How a subcommand is declared: one help text, one example, one function that runs it.

Imports of what a command needs stand inside its `run`: `pcamx --help` answers at once, and the
worker processes of `prepare` and `phantom`, which import these modules anew, start without torch.
"""

import argparse
import difflib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from pcamx.output import NO_HOME

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class Parser(argparse.ArgumentParser):
    """A parser that says which of its words was meant."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse, and refuse what is unknown here, where the options are known."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            words = [word.partition("=")[0] for word in unknown if word.startswith("-")]
            hint = _hint(words[0], self._option_string_actions) if words else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        for name, value in vars(found).items():
            if isinstance(value, Path):
                setattr(found, name, self._at_home(value))
            elif isinstance(value, list | tuple) and any(isinstance(one, Path) for one in value):
                paths = [self._at_home(one) if isinstance(one, Path) else one for one in value]
                setattr(found, name, paths)
        return found, unknown

    def _at_home(self, path: Path) -> Path:
        """Write the home folder out where no shell has: behind --out=, or of nobody known."""
        if not str(path).startswith("~") or os.path.exists(path):
            return path
        try:
            return path.expanduser()
        except RuntimeError:
            self.error(NO_HOME.format(path))

    def error(self, message: str) -> NoReturn:
        """Exit with 2, the usage and one line, which for a word out of a list names the nearest."""
        wrong = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)$", message)
        known = re.findall(r"'([^']*)'", wrong[2]) if wrong else []
        super().error(message + (_hint(wrong[1], known) if wrong else ""))


def _hint(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], None],
    text: str,
    example: str,
) -> argparse.ArgumentParser:
    """Add ``name`` to the commands; the parser returned takes its arguments."""
    sub = commands.add_parser(name, help=text, description=text, epilog=f"example: {example}")
    sub.set_defaults(command=run)
    return sub
