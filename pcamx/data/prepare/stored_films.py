"""Films that lie in the store itself: a data set with DICOM, and what --transcode writes."""

import shutil
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from pcamx.data.canvas import side_markers
from pcamx.data.csv_files import csv_rows, csv_text
from pcamx.data.phantom import twins
from pcamx.data.prepare.dicom_to_png import take_in
from pcamx.data.prepare.parity import Parity, transcode_films
from pcamx.data.prepare.transcode import Kind
from pcamx.data.sets.listing import confounders
from pcamx.data.store import FILMS, Film
from pcamx.output import plain_cell, write_text
from pcamx.progress import Track

_TAKEN = "taken"  # DALI reads what is transcoded from there
_TABLES = {side_markers.FILE: 0, twins.FILE: 1}
"""What may lie beside the films, and which of its columns names one of them."""


def store_films(
    root: Path,
    draft: Path,
    films: Sequence[Film],
    dicoms: Set[str],
    transcode: Kind | None,
    workers: int | None,
    track: Track,
) -> tuple[Path, list[Film], Parity | None]:
    """Write what has to lie in the store ``draft``; ``dicoms`` are the paths of DICOM films.

    Returns the store's root, the films as its manifest is to have them, and what transcoding
    changed. Raises PcamxError if a film has changed since it was checked, OSError if the disk is
    full.
    """
    source, parity, stored = root, None, list(films)
    if dicoms:
        source = draft / (_TAKEN if transcode else FILMS)
        stored = take_in(root, source, films, dicoms, workers, track)
    if transcode is not None:
        stored, parity = transcode_films(source, draft, stored, transcode, workers, track)
    if dicoms and transcode is not None:
        shutil.rmtree(source)
    if not dicoms and transcode is None:
        return root, stored, parity
    named = {old.path: new.path for old, new in zip(films, stored, strict=True)}
    for name, column in _TABLES.items():
        if (root / name).is_file():
            _take_table(root / name, draft / FILMS / name, column, named)
    if not (root / side_markers.FILE).is_file() and (known := list(confounders(root))):
        # The set's own table stays behind.
        rows = [(named.get(path, path), marker, "", "", "", "") for path, marker in known]
        write_text(draft / FILMS / side_markers.FILE, csv_text(side_markers.HEADER, rows))
    return Path(FILMS), stored, parity


def _take_table(source: Path, target: Path, column: int, named: Mapping[str, str]) -> None:
    """Copy a csv file, its ``column`` by the films' new names ``named``."""
    rows = [[*map(plain_cell, row)] for _, row in csv_rows(source)]
    for row in rows[1:]:
        row[column : column + 1] = (named.get(path, path) for path in row[column : column + 1])
    write_text(target, csv_text(rows[0], rows[1:]) if rows else "")
