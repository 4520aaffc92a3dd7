"""The `pcamx` command: everything around training, which is launch/train.py."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from pcamx import __version__
from pcamx.errors import PcamxError

# Imports of the subcommands stand inside them: `pcamx --help` answers at once, and the worker
# processes of `prepare` and `phantom`, which import this module anew, start without torch.


def _phantom(options: argparse.Namespace) -> None:
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


def _prepare(options: argparse.Namespace) -> None:
    from pcamx.data.prepare import prepare
    from pcamx.report.console import track

    found = prepare(
        options.root, options.out, table=options.table, marks=options.marks, track=track
    )
    for split, (normal, abnormal) in found.counts.items():
        print(f"{split}: {normal + abnormal} films, {abnormal} of them abnormal")
    print(f"marked: {found.marked}; mean {found.mean:.2f}, std {found.std:.2f} grey levels")
    dropped = {
        "marks on films labelled normal, not used": found.marks_on_normal,
        "empty marks, not used": found.marks_empty,
        "marks on quarantined films, not used": found.marks_on_quarantined,
        f"films left out, see {options.out / 'quarantine.csv'}": found.quarantined,
    }
    for what, count in dropped.items():
        if count:
            print(f"{count} {what}")


def _evaluate(options: argparse.Namespace) -> None:
    from pcamx.evaluate import evaluate
    from pcamx.report.console import print_results, track

    report = evaluate(options.run, track=track)
    print_results(report)
    for number in report["unfinished"]:
        print(f"stage {number} is not finished and not measured; train it on with --resume")
    print(f"{options.run / 'report.html'} is the report for people, report.json for programs")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pcamx", description="Bone X-ray classification whose decision rests on the lesion."
    )
    parser.add_argument("--version", action="version", version=f"pcamx {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], None], text: str, example: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, epilog=f"example: {example}")
        sub.set_defaults(command=run)
        return sub

    sub = command(
        "phantom",
        _phantom,
        "draw radiographs with known lesions, in MURA-v1.1's layout",
        "pcamx phantom phantoms --train 1200 --valid 400 --size 128",
    )
    sub.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    sub.add_argument("--train", type=int, default=1200, help="training films (%(default)s)")
    sub.add_argument("--valid", type=int, default=400, help="validation films (%(default)s)")
    sub.add_argument("--size", type=int, default=128, help="long side in pixels (%(default)s)")
    sub.add_argument("--seed", type=int, default=0, help="another seed draws others (%(default)s)")

    sub = command(
        "prepare",
        _prepare,
        "check every film of a data set once and write the store that training reads",
        "pcamx prepare MURA-v1.1 --out store --marks marks.json",
    )
    sub.add_argument("root", type=Path, metavar="ROOT", help="a MURA-v1.1 folder, or any other")
    sub.add_argument("--out", type=Path, required=True, metavar="STORE", help="folder to write")
    sub.add_argument(
        "--table",
        type=Path,
        metavar="CSV",
        help="path, label, split and, if known, patient, study, part of each film; "
        "for data that is not MURA-v1.1",
    )
    sub.add_argument(
        "--marks", type=Path, metavar="PATH", help="COCO .json or a folder of mask images"
    )

    sub = command(
        "evaluate",
        _evaluate,
        "measure a run on the validation split; write report.json and report.html into it",
        "pcamx evaluate runs/demo",
    )
    sub.add_argument("run", type=Path, metavar="RUN", help="run.folder of the config")
    return parser


def main() -> int:
    """Run the command; 0, or 2 with one line for a mistake, or 130 after Ctrl-C."""
    options = _parser().parse_args()
    try:
        options.command(options)
    except PcamxError as error:
        print(f"pcamx: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pcamx: stopped; nothing was written", file=sys.stderr)
        return 130
    return 0
