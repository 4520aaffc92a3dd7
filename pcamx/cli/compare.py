"""`pcamx compare`: evaluated runs side by side."""

import argparse
from pathlib import Path

from pcamx.cli.command import Commands, command


def add(commands: Commands) -> None:
    """Add the command and its options."""
    sub = command(
        commands,
        "compare",
        run,
        "compare evaluated runs with the first of them, film by film; write compare.html, "
        "compare.json, figure2.png, and films.html with every film",
        "pcamx compare runs/demo runs/paper --out demo_paper",
    )
    sub.add_argument("run", type=Path, nargs="+", metavar="RUN", help="run.folder of the config")
    sub.add_argument(
        "--out",
        type=Path,
        default=Path("compare"),
        metavar="FOLDER",
        help="a new folder, or one of an earlier comparison, which is replaced (%(default)s)",
    )


def run(options: argparse.Namespace) -> None:
    from pcamx.compare import ALL_FILMS, FIGURE, PAGE, compare
    from pcamx.report.comparison_rows import print_comparison

    print_comparison(compare(options.run, options.out))
    print(
        f"{options.out / PAGE} is the comparison for people, {ALL_FILMS} every film, "
        f"{FIGURE} some for print"
    )
