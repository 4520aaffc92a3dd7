"""GRAZPEDWRI-DX (Nagy et al., Sci. Data 9, 2022, 10.1038/s41597-022-01328-z): children's wrists.

`dataset.csv` names 20,327 films, one a row, `images_part1` to `images_part4` hold them as PNG of
8 or 16 bits, and `pascalvoc` (or `folder_structure/pascalvoc`, as it is unpacked) the boxes of
nine classes, of which `fracture` alone is taken as a lesion: `text` is on most films. Where only
`yolov5` was unpacked, its boxes are the same: `--marks yolov5/labels --labels 3`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from pcamx.data.csv_files import csv_rows, relative, rows_that_say
from pcamx.data.sets.entry import Entry
from pcamx.errors import PcamxError

TABLE = "dataset.csv"
LABELS = ("fracture",)
FOLDERS = (*(f"images_part{i}" for i in range(1, 5)), "images")
MARKS = ("pascalvoc", "folder_structure/pascalvoc")
COLUMNS = ("filestem", "patient_id", "study_number", "fracture_visible")
CONFOUNDERS = ("cast", "metal")
"""Columns of the table that say what is on a film and is no fracture."""
_TEST, _VALID = {0}, {1, 2}
"""Last digits of patient_id, whose patients are the test and the valid split: 10 and 20 %."""


def is_graz(root: Path) -> bool:
    """Tell whether the folder looks like the release: its table, and a folder of films."""
    table = root / TABLE
    if not table.is_file() or not any((root / folder).is_dir() for folder in FOLDERS):
        return False
    _, header = next(csv_rows(table), (0, []))
    return COLUMNS[0] in header


def marks_of(root: Path) -> Path | None:
    """Return the folder of the release's boxes, None where it was not unpacked."""
    return next((root / name for name in MARKS if (root / name).is_dir()), None)


def read_graz(root: Path) -> list[Entry]:
    """Return the films of the release, in the order of its csv file.

    The label is `fracture_visible`: 1, or empty. A patient lies in one split as a whole, by the
    last digit of the patient's number, since the release names no splits. Raises PcamxError that
    names file, line and remedy.
    """
    table = root / TABLE
    rows = csv_rows(table)
    _, header = next(rows, (0, []))
    if missing := [name for name in COLUMNS if name not in header]:
        raise PcamxError(
            f"{table}, line 1: column {', '.join(missing)} missing; "
            "copy the file from GRAZPEDWRI-DX again"
        )
    folder_of = _folders(root)
    entries: dict[str, Entry] = {}
    for line, fields in rows:
        where = f"{table}, line {line}"
        if len(fields) != len(header):
            raise PcamxError(f"{where}: {len(header)} fields expected, found {len(fields)}")
        row = dict(zip(header, fields, strict=True))
        name = row["filestem"]
        if name in entries:
            raise PcamxError(f"{where}: {name} is listed twice ({entries[name].where}); delete one")
        entries[name] = _entry(folder_of, row, where)
    if not entries:
        raise PcamxError(f"{table}: no films listed; copy the file from GRAZPEDWRI-DX again")
    return list(entries.values())


def confounders(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the path of each film with something on it that is no fracture, and what it is.

    Rows and columns that are not the release's are passed by; raises PcamxError where the table
    cannot be read.
    """
    folder_of = _folders(root)
    for row in rows_that_say(root / TABLE, (COLUMNS[0], *CONFOUNDERS)):
        for name in CONFOUNDERS:
            if row[name] in ("1", "1.0"):
                yield _path(folder_of, row[COLUMNS[0]]), name


def _path(folder_of: Mapping[str, str], stem: str) -> str:
    return f"{folder_of.get(stem, FOLDERS[0])}/{stem}.png"


def _folders(root: Path) -> dict[str, str]:
    """The folder of each PNG, by its name without the suffix."""
    found: dict[str, str] = {}
    for folder in FOLDERS:
        if (root / folder).is_dir():
            for path in (root / folder).glob("*.png"):
                found.setdefault(path.stem, folder)
    return found


def _entry(folder_of: dict[str, str], row: dict[str, str], where: str) -> Entry:
    name, patient, seen = row["filestem"], row["patient_id"], row["fracture_visible"]
    try:
        relative(name)
    except PcamxError as error:
        raise PcamxError(f"{where}: {error}") from None
    if not patient.isascii() or not patient.isdigit():
        raise PcamxError(f"{where}: patient_id is {patient!r}; write a whole number")
    if seen not in ("", "0", "1", "0.0", "1.0"):
        raise PcamxError(f"{where}: fracture_visible is {seen!r}; write 1, or leave it empty")
    digit = int(patient) % 10
    return Entry(
        where,
        _path(folder_of, name),
        int(float(seen or 0)),
        patient=f"patient {int(patient)}",
        study=f"patient {int(patient)}/{row['study_number']}",
        part="wrist",
        split="test" if digit in _TEST else "valid" if digit in _VALID else "train",
    )
