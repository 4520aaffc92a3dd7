"""`pcamx phantom`: draw films with known lesions."""

import argparse
from pathlib import Path

from pcamx.cli.command import Commands, command
from pcamx.errors import PcamxError

NONE = "none"


def add(commands: Commands) -> None:
    """Add the command and its options."""
    sub = command(
        commands,
        "phantom",
        run,
        "draw radiographs with known lesions, in MURA-v1.1's layout",
        "pcamx phantom phantoms --train 1200 --valid 400 --size 128 --temptation plate --twins",
    )
    sub.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    sub.add_argument("--train", type=int, default=1200, help="training films (%(default)s)")
    sub.add_argument("--valid", type=int, default=400, help="validation films (%(default)s)")
    sub.add_argument("--size", type=int, default=128, help="long side in pixels (%(default)s)")
    sub.add_argument("--seed", type=int, default=0, help="another seed draws others (%(default)s)")
    sub.add_argument(
        "--temptation",
        nargs="+",
        action="extend",
        metavar="KIND",
        help="what goes with the label in training and is no lesion: letter, plate, cast, "
        "exposure, collimation, several of them, or none (letter)",
    )
    sub.add_argument(
        "--share",
        type=float,
        help="of the studies on which it is in play and says abnormal or normal: a letter by R or "
        "L, the others by being there or not (letter 0.4, others 1)",
    )
    sub.add_argument(
        "--follows",
        type=float,
        help="how often it then says the label in training; in validation half the time "
        "(letter 0.8, others 0.9)",
    )
    sub.add_argument(
        "--twins",
        action="store_true",
        help="draw each validation film again without its lesion, or with one, and with each "
        "temptation toggled; OUT/twins/twins.csv pairs them",
    )


def run(options: argparse.Namespace) -> None:
    from pcamx.data.phantom import THE_LETTER, draw_phantoms, temptation
    from pcamx.report.console import track

    kinds = _kinds(options.temptation or [THE_LETTER.kind])
    draw_phantoms(
        options.out,
        train=options.train,
        valid=options.valid,
        size=options.size,
        seed=options.seed,
        temptations=[temptation(kind, options.share, options.follows) for kind in kinds],
        twins=options.twins,
        track=track,
    )
    print(f"{options.out / 'MURA-v1.1'} holds the films, {options.out / 'marks'} their lesions")
    if options.twins:
        twins = options.out / "twins"
        print(f"{twins} holds the twins, {twins / 'twins.csv'} says of which film")


def _kinds(words: list[str]) -> list[str]:
    """The kinds that were named, with commas or without, each once."""
    kinds = list(dict.fromkeys(kind for word in words for kind in word.split(",") if kind))
    if not kinds:
        raise PcamxError(f"temptation is {' '.join(words)!r}: name a kind, or none")
    if NONE in kinds and len(kinds) > 1:
        raise PcamxError(f"temptation is {', '.join(kinds)}: name none alone, or leave it out")
    return [kind for kind in kinds if kind != NONE]
