"""Any data set, listed in a csv file with a header row; commas, semicolons or tabs between fields.

Required columns: path and label. Optional: patient, study, part, and split, which is made from the
patients' names where there is none. Others are ignored.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pcamx.data.csv_files import csv_rows, delimiter_of, film_path
from pcamx.data.sets.entry import Entry
from pcamx.data.store import SPLITS
from pcamx.errors import PcamxError

REQUIRED = ("path", "label")
OPTIONAL = ("split", "patient", "study", "part")
NUMBERS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
"""Labels where no words are named; the last two are how pandas writes a column with gaps."""
_ALSO = {"val": "valid", "validation": "valid"}
_UNKNOWN = {"", "na", "n/a", "nan", "none", "null"}
"""What stands for a patient who is not known."""
_VALID, _TEST = 0.2, 0.1
"""Shares of the patients in the splits that are made."""


class Table(NamedTuple):
    """The films of a csv, in its order, and sentences on what was taken or left."""

    entries: list[Entry]
    notes: tuple[str, ...] = ()


def label_words(normal: str | None, abnormal: str | None) -> Mapping[str, int]:
    """Return the words for the labels 0 and 1 in a table; the numbers where neither is given.

    Raises PcamxError where one of them is missing or both are the same.
    """
    if normal is None and abnormal is None:
        return NUMBERS
    if normal is None or abnormal is None:
        raise PcamxError("--normal and --abnormal belong together; name the words of both labels")
    words = {normal.strip().casefold(): 0, abnormal.strip().casefold(): 1}
    if len(words) < 2:
        raise PcamxError(f"--normal and --abnormal are both {normal}; name two words")
    return words


def split_of(patient: str) -> str:
    """Return the split of a patient whom no table gives one: by a hash of the name alone.

    So films that are added later move nobody.
    """
    digest = hashlib.sha256(patient.encode()).digest()
    share = int.from_bytes(digest[:8]) / 2**64
    return "test" if share < _TEST else "valid" if share < _TEST + _VALID else "train"


def read_table(table: Path, labels: Mapping[str, int] = NUMBERS, root: Path | None = None) -> Table:
    """Read a csv whose paths lie in the data folder ``root`` and whose labels are ``labels``.

    A path is relative to ``root``, or stands in full where that is given, resolved. A film without
    a patient counts as a patient of its own. A patient without studies is one study, or, where the
    films have both labels, each film is. Raises PcamxError that names file, line and remedy.
    """
    rows = csv_rows(table, delimiter_of(table))
    _, given = next(rows, (0, []))
    header = [name.lower() for name in given]
    entries: dict[str, Entry] = {}
    where = str(table)
    try:
        _check_header(header, given)
        for line, row in rows:
            where = f"{table}, line {line}"
            if len(row) != len(header):
                raise PcamxError(f"{len(header)} fields expected, found {len(row)}")
            fields = {n: v for n, v in zip(header, row, strict=True) if n in REQUIRED + OPTIONAL}
            entry = _entry(fields, labels, where, root)
            if before := entries.get(entry.path):
                labels_of = "" if before.label == entry.label else ", with two labels"
                raise PcamxError(
                    f"{entry.path} is listed twice{labels_of} ({before.where}); delete one row"
                )
            entries[entry.path] = entry
        where = str(table)
        if not entries:
            raise PcamxError("no films listed; add one row per film")
        films, made = _with_splits(list(entries.values()))
        films, mixed = _with_studies(films)
    except PcamxError as error:
        text = str(error)
        raise PcamxError(text if text.startswith(str(table)) else f"{where}: {text}") from None
    return Table(films, tuple(_notes(table, header, given, films, made, mixed)))


def _check_header(header: Sequence[str], given: Sequence[str]) -> None:
    found = f"found: {', '.join(given) or 'nothing'}"
    if missing := [name for name in REQUIRED if name not in header]:
        raise PcamxError(f"missing column {', '.join(missing)}; {found}")
    if any(header.count(name) > 1 for name in REQUIRED + OPTIONAL):
        raise PcamxError(f"a column is given twice; {found}")


def _entry(
    row: Mapping[str, str], labels: Mapping[str, int], where: str, root: Path | None
) -> Entry:
    """One row, with the defaults filled in; raises PcamxError without a location.

    Study and split are "" where the table names none.
    """
    path = film_path(row["path"], root)
    label = labels.get(row["label"].casefold())
    if label is None:
        remedy = "write 0 for normal, 1 for abnormal, or name the words with --normal, --abnormal"
        if labels is not NUMBERS:
            normal, abnormal = labels
            remedy = f"--normal is {normal}, --abnormal {abnormal}"
        raise PcamxError(f"label is {row['label']!r}; {remedy}")
    patient = row.get("patient", "")
    patient = path if patient.casefold() in _UNKNOWN else patient
    split = row.get("split", "").lower()
    split = _ALSO.get(split, split)
    if split and split not in SPLITS:
        raise PcamxError(_no_split(row["split"]))
    # Tables number the studies within a patient as often as not; the pair is always unique.
    study = f"{patient}/{row['study']}" if row.get("study") else ""
    return Entry(where, path, label, patient, study, row.get("part", ""), split)


def _no_split(given: str) -> str:
    return f"split is {given!r}; write {', '.join(SPLITS[:-1])} or test"


def _with_splits(entries: Sequence[Entry]) -> tuple[list[Entry], bool]:
    """Make the splits where no row names one, and tell whether they were made.

    Raises PcamxError where some rows do, or nobody would be in a split that training needs.
    """
    without = [entry for entry in entries if not entry.split]
    if len(without) == len(entries):
        films = [replace(entry, split=split_of(entry.patient)) for entry in entries]
        _check_made(films)
        return films, True
    if without:
        raise PcamxError(f"{without[0].where}: {_no_split('')}, or leave it empty in every row")
    return list(entries), False


def _with_studies(entries: Sequence[Entry]) -> tuple[list[Entry], int]:
    """Fill in the studies that no row names; the patients whose films became studies are counted.

    Raises PcamxError where a study has two labels.
    """
    labels: dict[str, set[int]] = {}
    first: dict[str, Entry] = {}
    for entry in entries:
        if not entry.study:
            labels.setdefault(entry.patient, set()).add(entry.label)
        elif first.setdefault(entry.study, entry).label != entry.label:
            other = first[entry.study]
            raise PcamxError(
                f"{entry.where}: study {entry.study} has label {entry.label} here and "
                f"{other.label} in {other.where}; a study has one label, the study column tells "
                "studies apart"
            )
    films = []
    for entry in entries:
        # Not a study a label: that would tell the mean over a study what the label is.
        both = len(labels.get(entry.patient, ())) > 1
        own = f"{entry.patient}/{entry.path}" if both else entry.patient
        films.append(entry if entry.study else replace(entry, study=own))
    return films, sum(len(found) > 1 for found in labels.values())


def _check_made(films: Sequence[Entry]) -> None:
    for split in ("train", "valid"):
        if not any(film.split == split for film in films):
            raise PcamxError(
                f"no film has a split, and by the patients' names none of them falls to {split}: "
                "these are too few; fill a column split with train, valid or test"
            )


def _notes(
    table: Path,
    header: Sequence[str],
    given: Sequence[str],
    films: Sequence[Entry],
    made: bool,
    mixed: int,
) -> list[str]:
    """What was ignored, made or assumed, a sentence each."""
    known = REQUIRED + OPTIONAL
    notes = []
    pairs = zip(header, given, strict=True)
    if others := [shown or "(no name)" for name, shown in pairs if name not in known]:
        notes.append(f"{table}: ignored the columns {', '.join(others)}; read: {', '.join(known)}")
    if made:
        count = Counter(film.split for film in films)
        counts = ", ".join(f"{count[split]} {split}" for split in SPLITS)
        notes.append(
            f"{table}: no film has a split; split by a hash of the patient's name into {counts}, "
            "which stays the same when films are added"
        )
    if unknown := sum(film.patient == film.path for film in films):
        notes.append(
            f"warning: {table}: the patient of {unknown} films is unknown, so each counts as a "
            "patient; films of one patient may lie in two splits, and intervals come out too narrow"
        )
    if mixed:
        notes.append(
            f"{table}: {mixed} patients have films of both labels and no study that tells them "
            "apart; each of these films counts as a study"
        )
    return notes
