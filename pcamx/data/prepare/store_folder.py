"""Whether a folder may make way for a new store: if it is a store and nothing else."""

import json
from pathlib import Path

from pcamx.data.csv_files import csv_rows
from pcamx.data.store import (
    CACHE,
    CANVASES,
    CONTENT,
    FILMS,
    HEAD,
    MANIFEST,
    MARKS,
    NEAR_COPIES,
    QUARANTINE,
    REPORT,
)
from pcamx.errors import PcamxError
from pcamx.output import plain_cell


def refuse_foreign(folder: Path) -> None:
    """Raise unless ``folder`` is missing, empty, or a store and nothing but a store."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise PcamxError(f"{folder} is a file; --out takes a folder for the store")
    names = {item.name for item in folder.iterdir()}
    foreign = _foreign(folder, names)
    if names and (foreign or HEAD not in names):
        what = f" (it holds {foreign[0]})" if foreign else ""
        raise PcamxError(f"{folder} is not empty and not a store{what}; choose another --out")


def _foreign(folder: Path, names: set[str]) -> list[str]:
    """What a folder with these ``names`` holds that a store does not."""
    ours = {
        MANIFEST,
        QUARANTINE,
        CONTENT,
        NEAR_COPIES,
        HEAD,
        MARKS,
        CACHE,
        f"{REPORT}.json",
        f"{REPORT}.md",
    }
    if FILMS in names and HEAD in names:
        # A folder of that name is ours only if the store says so: it is deleted with the store.
        try:
            head = json.loads((folder / HEAD).read_text(encoding="utf-8"))
        except ValueError:
            head = None
        if isinstance(head, dict) and head.get("root") == FILMS:
            ours.add(FILMS)
    files = [file.relative_to(folder) for file in (folder / MARKS).rglob("*") if file.is_file()]
    known = _masks(folder) if files else set()
    masks = [name for file in files if (name := file.as_posix()) not in known]
    cached = (folder / CACHE).iterdir() if (folder / CACHE).is_dir() else ()
    others = [f"{CACHE}/{file.name}" for file in cached if file.suffix != CANVASES]
    return sorted(names - ours) + sorted(others) + sorted(masks)


def _masks(folder: Path) -> set[str]:
    """The lesion masks that the manifest names: none if it is damaged, and then nothing goes."""
    try:
        header, *rows = [row for _, row in csv_rows(folder / MANIFEST)]
        return {plain_cell(row[header.index("mark")]) for row in rows}
    except (PcamxError, ValueError, IndexError):
        return set()
