"""How a subcommand is declared: one help text, one example, one function that runs it.

Imports of what a command needs stand inside its `run`: `pcamx --help` answers at once, and the
worker processes of `prepare` and `phantom`, which import these modules anew, start without torch.
"""

import argparse
from collections.abc import Callable
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


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
