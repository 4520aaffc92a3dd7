"""`pcamx figure`: the paper's Figure 2 of films of one's choice."""

import argparse
from pathlib import Path

from pcamx.cli.command import Commands, command


def add(commands: Commands) -> None:
    """Add the command and its options."""
    sub = command(
        commands,
        "figure",
        run,
        "draw films of one's choice under the maps of every stage, as PDF, SVG or PNG",
        "pcamx figure runs/demo patient00801/study1_positive/image1.png --out figure.pdf",
    )
    sub.add_argument("run", type=Path, metavar="RUN", help="run.folder of the config")
    sub.add_argument(
        "films",
        nargs="+",
        metavar="FILM",
        help="its path as in films.csv, or the end of it; 50 at most",
    )
    sub.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="figure.pdf, .svg or .png"
    )
    sub.add_argument(
        "--store", type=Path, metavar="STORE", help="films of another store, as in pcamx evaluate"
    )
    sub.add_argument(
        "--split", choices=["valid", "test"], default="valid", help="their split (%(default)s)"
    )


def run(options: argparse.Namespace) -> None:
    from pcamx.evaluation.chosen_figure import draw_figure
    from pcamx.report.console import say, track

    films = draw_figure(
        options.run,
        options.films,
        options.out,
        other=options.store,
        split=options.split,
        track=track,
        say=say,
    )
    print(f"{options.out} shows {len(films)} film{'' if len(films) == 1 else 's'}")
