"""`pcamx phantom`: draw films with known lesions."""

import argparse
from pathlib import Path

from pcamx.cli.command import Commands, command


def add(commands: Commands) -> None:
    """Add the command and its options."""
    sub = command(
        commands,
        "phantom",
        run,
        "draw radiographs with known lesions, in MURA-v1.1's layout",
        "pcamx phantom phantoms --train 1200 --valid 400 --size 128",
    )
    sub.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    sub.add_argument("--train", type=int, default=1200, help="training films (%(default)s)")
    sub.add_argument("--valid", type=int, default=400, help="validation films (%(default)s)")
    sub.add_argument("--size", type=int, default=128, help="long side in pixels (%(default)s)")
    sub.add_argument("--seed", type=int, default=0, help="another seed draws others (%(default)s)")


def run(options: argparse.Namespace) -> None:
    from pcamx.data.phantom import draw_phantoms
    from pcamx.report.console import track

    draw_phantoms(
        options.out,
        train=options.train,
        valid=options.valid,
        size=options.size,
        seed=options.seed,
        track=track,
    )
    print(f"{options.out / 'MURA-v1.1'} holds the films, {options.out / 'marks'} their lesions")
