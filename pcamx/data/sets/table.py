"""Any data set, listed in a csv file with a header row.

Required columns: path, label, split. Optional: patient, study, part.
"""

from pathlib import Path

from pcamx.data.csv_files import csv_rows, relative
from pcamx.data.sets.entry import Entry
from pcamx.data.store import SPLITS
from pcamx.errors import PcamxError

REQUIRED = ("path", "label", "split")
OPTIONAL = ("patient", "study", "part")


def _check_header(header: list[str]) -> None:
    known = {*REQUIRED, *OPTIONAL}
    found = f"found: {', '.join(header) or 'nothing'}"
    missing = [name for name in REQUIRED if name not in header]
    unknown = [name or "(no name)" for name in header if name not in known]
    if missing:
        raise PcamxError(f"missing column {', '.join(missing)}; {found}")
    if unknown:
        names = ", ".join(unknown)
        raise PcamxError(
            f"unknown column {names}; known: {', '.join(REQUIRED + OPTIONAL)}; {found}"
        )
    if len(set(header)) < len(header):
        raise PcamxError(f"a column is given twice; {found}")


def _entry(row: dict[str, str], where: str) -> Entry:
    """One row, with the defaults filled in; raises PcamxError without a location."""
    path = relative(row["path"])
    if row["label"] not in ("0", "1"):
        raise PcamxError(f"label is {row['label']!r}; write 0 for normal, 1 for abnormal")
    if row["split"] not in SPLITS:
        raise PcamxError(f"split is {row['split']!r}; write {', '.join(SPLITS[:-1])} or test")
    patient = row.get("patient") or path
    # Tables number the studies within a patient as often as not; the pair is always unique.
    study = f"{patient}/{row['study']}" if row.get("study") else patient
    return Entry(where, path, int(row["label"]), patient, study, row.get("part", ""), row["split"])


def read_table(table: Path) -> list[Entry]:
    """Read the films of a csv, in its order; paths are relative to the data folder.

    A film without a patient counts as a patient of its own; a patient without studies as one
    study. Raises PcamxError that names file, line and remedy.
    """
    rows = csv_rows(table)
    _, header = next(rows, (0, []))
    entries: dict[str, Entry] = {}
    label_of: dict[str, Entry] = {}
    where = str(table)
    try:
        _check_header(header)
        for line, row in rows:
            where = f"{table}, line {line}"
            if len(row) != len(header):
                raise PcamxError(f"{len(header)} fields expected, found {len(row)}")
            entry = _entry(dict(zip(header, row, strict=True)), where)
            if entry.path in entries:
                raise PcamxError(
                    f"{entry.path} is listed twice ({entries[entry.path].where}); delete one row"
                )
            first = label_of.setdefault(entry.study, entry)
            if first.label != entry.label:
                raise PcamxError(
                    f"study {entry.study} has label {entry.label} here and {first.label} in "
                    f"{first.where}; a study has one label, the study column tells studies apart"
                )
            entries[entry.path] = entry
        if not entries:
            where = str(table)
            raise PcamxError("no films listed; add one row per film")
    except PcamxError as error:
        text = str(error)
        raise PcamxError(text if text.startswith(str(table)) else f"{where}: {text}") from None
    return list(entries.values())
