"""`pcamx prepare`: check the films once and write the store."""

import argparse
from pathlib import Path

from pcamx.cli.command import Commands, command
from pcamx.cli.options import FORMATS, MERGING, add_labels, add_words
from pcamx.errors import MismatchError, PcamxError
from pcamx.output import counted, printable


def add(commands: Commands) -> None:
    """Add the command and its options."""
    sub = command(
        commands,
        "prepare",
        run,
        "check every film of a data set once and write the store that training reads",
        "pcamx prepare MURA-v1.1 --out store --marks marks.json",
    )
    sub.add_argument(
        "root",
        type=Path,
        nargs="?",
        metavar="ROOT",
        help="a folder of MURA-v1.1, FracAtlas or GRAZPEDWRI-DX, or any other",
    )
    sub.add_argument("--out", type=Path, metavar="STORE", help="folder to write")
    sub.add_argument(
        "--table",
        type=Path,
        metavar="CSV",
        help="path, label and, if known, split, patient, study, part of each film; for other data",
    )
    add_words(sub)
    sub.add_argument(
        "--transcode",
        choices=["jpeg", "htj2k"],
        help="write the films anew into the store, in a format that DALI decodes on a GPU: "
        "jpeg loses a little, htj2k nothing",
    )
    sub.add_argument(
        "--marks",
        type=Path,
        nargs="+",
        action="extend",
        metavar="PATH",
        help=f"{FORMATS}; {MERGING}; look at them first with pcamx marks check; FracAtlas "
        "and GRAZPEDWRI-DX bring their own",
    )
    add_labels(sub)
    sub.add_argument(
        "--verify",
        action="store_true",
        help="write nothing: read every film and mask of a store (pcamx prepare STORE --verify), "
        "name those whose content has changed since, and exit with 1 if there are any",
    )


def run(options: argparse.Namespace) -> None:
    if options.verify:
        _verify(options)
        return
    if options.root is None or options.out is None:
        raise PcamxError(
            "name the folder of the films and the store to write: pcamx prepare ROOT --out STORE"
        )
    from pcamx.data.prepare.store_builder import prepare
    from pcamx.data.sets.table import label_words
    from pcamx.report.console import track

    found = prepare(
        options.root,
        options.out,
        table=options.table,
        words=label_words(options.normal, options.abnormal),
        marks=options.marks,
        labels=options.labels,
        transcode=options.transcode,
        track=track,
    )
    for note in found.notes:
        print(note)
    for split, (normal, abnormal) in found.counts.items():
        print(f"{split}: {counted(normal + abnormal, 'film')}, {abnormal} of them abnormal")
    print(f"marked: {found.marks.used}; mean {found.mean:.2f}, std {found.std:.2f} grey levels")
    for split, count in found.missing.items():
        told = counted(count, "film")
        print(f"{told} of the {split} split listed, but not in {options.root}")
    for note in found.marks.dropped():
        print(note)
    if found.quarantined:
        print(
            f"{counted(found.quarantined, 'film')} left out, see {options.out / 'quarantine.csv'}"
        )
    if found.copies.pairs:
        pairs = counted(found.copies.pairs, "pair")
        left_out = counted(len(found.copies.left_out), "film")
        print(
            f"near copies: {pairs} of films, {found.copies.across} of them across splits, "
            f"{left_out} left out (test wins over valid, valid over train); "
            f"see {options.out / 'near_copies.csv'}"
        )
    if found.copies.kept:
        print(
            f"warning: {found.copies.kept} training films are copies of held-out films and stay, "
            "since nothing else of their class is there to train on; no figure on those films holds"
        )
    if found.dicoms:
        dicoms = counted(found.dicoms, "DICOM film")
        print(f"{dicoms}, which DALI does not decode: the store holds all films")
    for note in found.marks.notes:
        print(note)
    if found.parity is not None:
        print(f"{options.out / 'transcode_report.md'}: {found.parity.summary()}")


def _verify(options: argparse.Namespace) -> None:
    from pcamx.data.prepare.verify_store import changed_films
    from pcamx.report.console import track

    store = options.out or options.root
    others = ("table", "normal", "abnormal", "transcode", "marks", "labels")
    if store is None or any(getattr(options, name) for name in others):
        raise PcamxError("--verify takes a store and nothing else: pcamx prepare STORE --verify")
    changed, films = changed_films(store, track)
    for line in changed:
        print(printable(line))
    if changed:
        raise MismatchError(
            f"{store}: {len(changed)} files have changed since pcamx prepare; put them back, or "
            "run it again"
        )
    print(f"{store}: {films} films are as pcamx prepare checked them")
