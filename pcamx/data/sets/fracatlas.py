"""The public release of FracAtlas (Abedeen et al., Sci. Data 10, 2023, 10.1038/s41597-023-02432-4).

`dataset.csv` names 4,083 films, `images/{Fractured,Non_fractured}` holds them, and
`Annotations/COCO JSON/COCO_fracture_masks.json` the polygons of the fractures.

The release names no patients. Films of one patient have neighbouring numbers, so a block of 20
consecutive numbers stands for a patient: it lies in one split as a whole, and intervals are drawn
over blocks. Blocks are a stand-in: one can hold several patients, and a patient can straddle two.
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path

from pcamx.data import patients
from pcamx.data.csv_files import csv_rows, rows_that_say
from pcamx.data.sets.entry import Entry
from pcamx.errors import PcamxError

TABLE = "dataset.csv"
MARKS = "Annotations/COCO JSON/COCO_fracture_masks.json"
FOLDERS = ("images/Non_fractured", "images/Fractured")
"""By label."""
PARTS = ("hand", "leg", "hip", "shoulder")
CONFOUNDERS = ("hardware",)
"""Columns of the table that say what is on a film and is no fracture."""
BLOCK = 20
_VALID = 5
"""Of the blocks outside the test split, those whose number this divides are the valid split."""
_NAME = re.compile(r"IMG(\d{7})\.jpg")
_COPIES = {
    "test": (0, 1, 2, 3, 4, 5, 6, 261, 2300, 2379),
    "valid": (1763, 4341, 4346, 4347),
}
"""Numbers whose file is, to the byte, that of a film in another block, by the split of that film:
trained or chosen on, they would give away what the other is to measure."""


def is_fracatlas(root: Path) -> bool:
    """Tell whether the folder looks like the release, films there or not."""
    return (root / TABLE).is_file() and any((root / folder).is_dir() for folder in FOLDERS)


@cache
def test_blocks() -> frozenset[int]:
    """Return the blocks of the test split; a block is the film's number // 20."""
    text = (
        files("pcamx.data.sets").joinpath("fracatlas_test_blocks.txt").read_text(encoding="utf-8")
    )
    return frozenset(map(int, text.split()))


def split_of(block: int) -> str:
    """Return the split that a block of films belongs to: train, valid or test."""
    if block in test_blocks():
        return "test"
    return "train" if block % _VALID else "valid"


def read_fracatlas(root: Path) -> list[Entry]:
    """Read the films of the release, in the order of its csv file.

    The label is the csv's `fractured`; part is hand, leg, hip or shoulder, and mixed where the
    csv names several; a film is a study of its own. Raises PcamxError that names file, line and
    remedy.
    """
    table = root / TABLE
    rows = csv_rows(table)
    _, header = next(rows, (0, []))
    missing = [name for name in ("image_id", *PARTS, "fractured") if name not in header]
    if missing:
        raise PcamxError(
            f"{table}, line 1: column {', '.join(missing)} missing; "
            "copy the file from FracAtlas again"
        )
    entries: dict[str, Entry] = {}
    for line, fields in rows:
        where = f"{table}, line {line}"
        if len(fields) != len(header):
            raise PcamxError(f"{where}: {len(header)} fields expected, found {len(fields)}")
        row = dict(zip(header, fields, strict=True))
        name = row["image_id"]
        if name in entries:
            raise PcamxError(f"{where}: {name} is listed twice ({entries[name].where}); delete one")
        entries[name] = _entry(root, row, where)
    if not entries:
        raise PcamxError(f"{table}: no films listed; copy the file from FracAtlas again")
    return list(entries.values())


def confounders(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the path of each film with something on it that is no fracture, and what it is.

    Rows and columns that are not the release's are passed by; raises PcamxError where the table
    cannot be read.
    """
    for row in rows_that_say(root / TABLE, ("image_id", *CONFOUNDERS)):
        for name in CONFOUNDERS:
            if row[name] == "1":
                yield _path(root, row["image_id"], int(row.get("fractured") == "1")), name


def _entry(root: Path, row: dict[str, str], where: str) -> Entry:
    match = _NAME.fullmatch(row["image_id"])
    if not match:
        raise PcamxError(f"{where}: image_id is {row['image_id']!r}; write it as IMG0000000.jpg")
    for name in (*PARTS, "fractured"):
        if row[name] not in ("0", "1"):
            raise PcamxError(f"{where}: {name} is {row[name]!r}; write 0 or 1")
    number, label = int(match[1]), int(row["fractured"])
    block = number // BLOCK
    parts = [name for name in PARTS if row[name] == "1"]
    return Entry(
        where,
        _path(root, row["image_id"], label),
        label,
        patient=patients.block(block),
        study=row["image_id"].removesuffix(".jpg"),
        part="mixed" if len(parts) > 1 else "".join(parts),
        split=split_of(block),
        left_out=_left_out(number),
    )


def _path(root: Path, name: str, label: int) -> str:
    """One film lies in the folder that its label does not say, so look into both."""
    for folder in (FOLDERS[label], FOLDERS[1 - label]):
        if (root / folder / name).is_file():
            return f"{folder}/{name}"
    return f"{FOLDERS[label]}/{name}"


def _left_out(number: int) -> str:
    for split, copies in _COPIES.items():
        if number in copies:
            return f"the same file as a film of the {split} split"
    return ""
