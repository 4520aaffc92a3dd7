"""`pcamx explain`: films in; pictures, maps and lesion candidates out."""

import argparse
import math
from pathlib import Path

from pcamx.catalogue import MAPS, classifiers, key_of
from pcamx.cli.command import Commands, command
from pcamx.errors import PcamxError
from pcamx.output import counted, printable

_SHOWN = 10  # films that are named on the screen, of each kind


def add(commands: Commands) -> None:
    """Add the command and its options."""
    sub = command(
        commands,
        "explain",
        run,
        "explain films: probability, map, lesion candidates as pictures, JSON, COCO",
        "pcamx explain runs/demo wrist.png study/*.dcm --out explained",
    )
    sub.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or an export's")
    sub.add_argument(
        "films",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="PNG, JPEG, TIFF, BMP or DICOM; of a folder, all films below it",
    )
    sub.add_argument("--out", type=Path, metavar="FOLDER", help="folder to write (RUN/explain)")
    sub.add_argument(
        "--replace", action="store_true", help="an earlier explanation in that folder may go"
    )
    sub.add_argument(
        "--stage",
        type=key_of,
        choices=[entry.key for entry in classifiers()],
        help="the last finished one if not given",
    )
    sub.add_argument(
        "--map",
        choices=[kind.key for kind in MAPS if not kind.gradient],
        help="whose peaks are the candidates: the decoder's if the stage has one, else the "
        "positive CAM's, if not given",
    )
    sub.add_argument(
        "--level",
        type=_level,
        metavar="VALUE",
        help="least peak of a candidate, in the map's own unit; the one that 5 %% of the normal "
        "training films reach if not given",
    )
    sub.add_argument(
        "--dicom-seg",
        action="store_true",
        help="beside each DICOM film a DICOM Segmentation of its candidates",
    )


def _level(text: str) -> float:
    try:
        level = float(text)
    except ValueError:
        level = math.nan
    if not math.isfinite(level):
        raise argparse.ArgumentTypeError(f"{text!r} is not a level of a map")
    return level


def run(options: argparse.Namespace) -> None:
    from pcamx.explain.folder import explain
    from pcamx.report.console import track

    done = explain(
        options.run,
        options.films,
        out=options.out,
        replace=options.replace,
        stage=options.stage,
        map_key=options.map,
        level=options.level,
        dicom_seg=options.dicom_seg,
        track=track,
    )
    skipped, incomplete = done.skipped(), done.incomplete()
    for row in skipped[:_SHOWN]:
        print(printable(f"skipped {row.film}: {row.reason}"))
    for row in incomplete[:_SHOWN]:
        print(printable(f"{row.film}: {row.reason}"))
    abnormal = sum(row.called == "abnormal" for row in done.rows)
    candidates = sum(bool(row.candidates) for row in done.rows)
    print(
        f"{counted(len(done.rows) - len(skipped), 'film')} explained, {abnormal} called abnormal; "
        f"{candidates} with a lesion candidate"
    )
    if done.level is None:
        print(
            "no level of a candidate's peak is known, so a film has one wherever its scaled map "
            "reaches the threshold: pcamx evaluate"
        )
    table = printable(done.out / "films.csv")
    print(f"{table} lists them; {printable(done.out / 'films')} holds the pictures")
    counts = {"were skipped": len(skipped), "have no segmentation": len(incomplete)}
    if any(counts.values()):
        told = ", ".join(f"{n} of {len(done.rows)} films {what}" for what, n in counts.items() if n)
        raise PcamxError(f"{told}; the reasons are in {table}")
