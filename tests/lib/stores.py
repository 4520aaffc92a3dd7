"""Change a prepared store's manifest, and what store.json counts of it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

from pcamx.data.store import fingerprint

Row = dict[str, str]


def change(folder: Path, edit: Callable[[Row], Row | None], **head_values: float) -> None:
    """Replace every row by ``edit(row)``, None drops it, and values of store.json."""
    with (folder / "manifest.csv").open(newline="") as file:
        rows = [new for row in csv.DictReader(file) if (new := edit(row)) is not None]
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    head = json.loads((folder / "store.json").read_text())
    for split in ("train", "valid", "test"):
        head["counts"][split] = sum(row["split"] == split for row in rows)
    head |= head_values
    (folder / "store.json").write_text(json.dumps(head))
    head["fingerprint"] = fingerprint(folder)
    (folder / "store.json").write_text(json.dumps(head))


def abnormal_validation_only(row: Row) -> Row | None:
    return None if row["split"] == "valid" and row["label"] == "0" else row


def no_validation_marks(row: Row) -> Row | None:
    return row | {"mark": ""} if row["split"] == "valid" else row
