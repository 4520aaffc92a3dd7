"""Which films a data folder holds, by its layout or a csv, and what must hold between them."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pcamx.data.sets import fracatlas, graz
from pcamx.data.sets.entry import Entry
from pcamx.data.sets.mura import is_mura, read_mura
from pcamx.data.sets.table import NUMBERS, REQUIRED, read_table
from pcamx.errors import PcamxError

TABLE = "labels.csv"
_NAMED = 5  # patients that a message names before it counts the rest


class Listed(NamedTuple):
    """What a data set says of itself."""

    entries: list[Entry]
    marks: Path | None
    """The lesion marks that it brings, for `pcamx.data.marks`."""
    labels: tuple[str, ...] = ()
    """The classes among those that are lesions, where it has others."""
    notes: tuple[str, ...] = ()
    """What a table leaves out and was made up for, a sentence each."""


def list_films(root: Path, table: Path | None, words: Mapping[str, int] = NUMBERS) -> Listed:
    """Read ``table``, or what ``root`` holds: MURA-v1.1, labels.csv, GRAZPEDWRI-DX or
    FracAtlas, in this order. ``words`` are the labels of a table.

    Raises PcamxError that names file and row: a row that cannot be understood, a patient in two
    splits, a link that leaves ``root``.
    """
    listed = _list(root, table, words)
    _check_patients(listed.entries)
    _check_links(root, listed.entries)
    return listed._replace(notes=(*listed.notes, *_spellings(listed.entries)))


def _list(root: Path, table: Path | None, words: Mapping[str, int]) -> Listed:
    if table is None and not is_mura(root) and (root / TABLE).is_file():
        table = root / TABLE
    if table is not None:
        entries, notes = read_table(table, words, root)
        return Listed(entries, None, notes=notes)
    if words is not NUMBERS:
        raise PcamxError("--normal and --abnormal are words of a table; name it with --table")
    if is_mura(root):
        return Listed(read_mura(root), None)
    if graz.is_graz(root):
        return Listed(graz.read_graz(root), graz.marks_of(root), graz.LABELS)
    if fracatlas.is_fracatlas(root):
        marks = root / fracatlas.MARKS
        return Listed(fracatlas.read_fracatlas(root), marks if marks.is_file() else None)
    raise PcamxError(
        f"{root}: neither a MURA-v1.1 folder (no train_image_paths.csv) nor FracAtlas (no "
        f"{fracatlas.TABLE} beside images/) nor GRAZPEDWRI-DX (no {graz.TABLE} beside "
        f"{graz.FOLDERS[0]}/) nor one with {TABLE}; "
        f"list the films in a csv with the columns {' and '.join(REQUIRED)}, which pcamx prepare "
        "takes after --table and pcamx init instead of the folder"
    )


def confounders(root: Path) -> Iterator[tuple[str, str]]:
    """Yield what the data set in ``root`` itself says is on films and is no lesion: path and name.

    FracAtlas names hardware, GRAZPEDWRI-DX casts and metal; others nothing. Raises PcamxError where
    their table cannot be read.
    """
    try:
        of_graz = graz.is_graz(root)
    except PcamxError:  # a table of the same name that is none of theirs
        return
    if of_graz:
        yield from graz.confounders(root)
    elif fracatlas.is_fracatlas(root):
        yield from fracatlas.confounders(root)


def _check_patients(entries: Sequence[Entry]) -> None:
    """A patient in two splits lets a network score by knowing the patient: refuse."""
    first: dict[str, Entry] = {}
    torn: dict[str, Entry] = {}
    for entry in entries:
        if first.setdefault(entry.patient, entry).split != entry.split:
            torn.setdefault(entry.patient, entry)
    if torn:
        name, other = next(iter(torn.items()))
        one = first[name]
        names, rest = ", ".join(list(torn)[:_NAMED]), len(torn) - _NAMED
        more = f" and {rest} more" if rest > 0 else ""
        what = "patients are" if len(torn) > 1 else "patient is"
        raise PcamxError(
            f"{len(torn)} {what} in more than one split: {names}{more}; of {name} {one.path} is in "
            f"{one.split} ({one.where}) and {other.path} in {other.split} ({other.where}); put all "
            "films of a patient into one split"
        )


def _spellings(entries: Sequence[Entry]) -> Iterator[str]:
    """Warn of names in different splits that may be one patient's: P1 and p1, 7 and 007 or 7.0."""
    first: dict[str, Entry] = {}
    twins: dict[str, str] = {}
    for entry in entries:
        if entry.patient == entry.path:  # one that is not known
            continue
        one = first.setdefault(_spelt(entry.patient), entry)
        if one.patient != entry.patient and one.split != entry.split:
            told = f"{one.patient} ({one.split}) and {entry.patient} ({entry.split})"
            twins.setdefault(_spelt(entry.patient), told)
    if twins:
        named, rest = ", ".join(list(twins.values())[:_NAMED]), len(twins) - _NAMED
        more = f" and {rest} more" if rest > 0 else ""
        yield (
            f"warning: {len(twins)} patients may be spelt in two ways and lie in two splits: "
            f"{named}{more}; if so, spell each in one way"
        )


def _spelt(patient: str) -> str:
    """The name without case, blanks, zeros before a number, and a spreadsheet's zeros after it."""
    name = "".join(patient.casefold().split())
    return re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"^(\d+)\.0+$", r"\1", name))


def _check_links(root: Path, entries: Sequence[Entry]) -> None:
    """Raise if a film's path leads out of ``root`` through a link."""
    real: dict[str, str] = {}
    home = os.path.join(root, "")
    for entry in entries:
        folder, _, name = entry.path.rpartition("/")
        if folder not in real:
            real[folder] = os.path.realpath(home + folder)
        path = os.path.join(real[folder], name)
        if os.path.islink(path):
            path = os.path.realpath(path)
        if not path.startswith(home):
            raise PcamxError(
                f"{entry.where}: {entry.path} is a link that leaves {root}; copy the film into it"
            )
