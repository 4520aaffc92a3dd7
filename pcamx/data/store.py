"""The prepared store: a folder with `manifest.csv`, `quarantine.csv`, `store.json`, `marks/`.

`content.csv` says what the files held (`pcamx.data.contents`), `near_copies.csv` which films are
the same picture. One that was transcoded or holds DICOM films also has `films/`, its root, and
the former `transcode_report.*`; `cache/` comes with training and may be deleted at any time.

The manifest lists only films that decode; what follows relies on it, because the decoder stops
the whole run on a bad file and does not say which one it was.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

from pcamx.data.contents import COLUMNS, Content, check_mark, parse, rows, without_times
from pcamx.data.csv_files import csv_rows, csv_text, relative
from pcamx.errors import PcamxError
from pcamx.output import plain_cell

FORMAT = 1
SPLITS = ("train", "valid", "test")
MANIFEST, QUARANTINE, HEAD, MARKS = "manifest.csv", "quarantine.csv", "store.json", "marks"
CONTENT, NEAR_COPIES = "content.csv", "near_copies.csv"
FILMS, REPORT, CACHE = "films", "transcode_report", "cache"
_DIGITS = 18
"""Of the longest number that can be right."""
CANVASES = ".canvases"
"""Ending of the files in `cache/`."""


@dataclass(frozen=True, slots=True)
class Film:
    """One row of the manifest; the header row holds these names."""

    path: str
    """Relative to the store's root, with forward slashes."""
    label: int
    """0 normal, 1 abnormal."""
    patient: str
    study: str
    """Unique over the whole set."""
    part: str
    """Body part, "" if unknown."""
    split: str
    """train, valid or test."""
    width: int
    """Upright pixels, after the EXIF rotation."""
    height: int
    white: int
    """Grey level shown as white. 255 if and only if the file has at most 8 bits a sample;
    deeper: the smallest 2^b - 1 that no pixel exceeds, at least 256."""
    mark: str
    """Lesion mask, a PNG of 0 and 255 relative to the store's folder; "" if not marked."""


@dataclass(frozen=True, slots=True)
class Store:
    """A store that was read; `mean` and `std` are grey levels on 0..255."""

    folder: Path
    root: Path
    films: tuple[Film, ...]
    mean: float
    std: float
    contents: Mapping[str, Content] = field(default_factory=dict)
    """By the film's path; empty in a store of a pcamx that did not keep them."""

    def check_mark(self, film: Film) -> None:
        """Raise PcamxError unless the film's mask is the one that `pcamx prepare` wrote."""
        check_mark(self.folder / film.mark, self.contents.get(film.path))

    def split(self, name: str) -> tuple[Film, ...]:
        """Return the films of one split, in the manifest's order."""
        return tuple(film for film in self.films if film.split == name)


def write_store(
    folder: Path,
    root: Path,
    films: Sequence[Film],
    *,
    mean: float,
    std: float,
    quarantine: Sequence[tuple[str, str]] = (),
    contents: Mapping[str, Content] | None = None,
) -> None:
    """Write the csv files and store.json into a folder; `replacing_folder` makes it atomic.

    ``root`` is absolute, or relative to the store's folder. ``contents`` are by the film's path.
    """
    names = [field.name for field in fields(Film)]
    listed = ([getattr(film, name) for name in names] for film in films)
    (folder / MANIFEST).write_text(csv_text(names, listed), encoding="utf-8")
    if contents is not None:
        (folder / CONTENT).write_text(csv_text(COLUMNS, rows(contents)), encoding="utf-8")
    bad = csv_text(("path", "reason"), quarantine)
    (folder / QUARANTINE).write_text(bad, encoding="utf-8")
    counts = {split: sum(film.split == split for film in films) for split in SPLITS}
    counts |= {"marked": sum(bool(film.mark) for film in films), "quarantined": len(quarantine)}
    head = {"format": FORMAT, "root": str(root), "mean": mean, "std": std, "counts": counts}
    head["fingerprint"] = _fingerprint(folder, float(mean), float(std))
    (folder / HEAD).write_text(json.dumps(head, indent=2) + "\n", encoding="utf-8")


def fingerprint(folder: Path) -> str:
    """Return the SHA-256 of all of a store that training depends on.

    The manifest's films, labels, splits and marks, the contents of their files and masks, mean
    and std; not when a file was changed, which a copy changes. Raises PcamxError if it is gone or
    damaged.
    """
    return next(fingerprints(folder))


def fingerprints(folder: Path) -> Iterator[str]:
    """Yield `fingerprint`, then what an earlier pcamx had for it, with the times of change."""
    head = read_head(folder)
    yield _fingerprint(folder, head.mean, head.std)
    yield _fingerprint(folder, head.mean, head.std, times=True)


def manifest_digest(folder: Path) -> str:
    """Return the SHA-256 of the manifest, which is what runs of an earlier pcamx know their store
    by.
    """
    return hashlib.sha256(_bytes(folder / MANIFEST)).hexdigest()


def _fingerprint(folder: Path, mean: float, std: float, *, times: bool = False) -> str:
    content = _bytes(folder / CONTENT) if (folder / CONTENT).exists() else b""
    if content and not times:
        content = without_times(content)
    parts = (_bytes(folder / MANIFEST), content, repr((mean, std)).encode())
    # Of digests, so that no byte can move from one part into the next.
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PcamxError(f"{path}: {error.strerror}; run pcamx prepare again") from None


class Head(NamedTuple):
    """What store.json says of the films as a whole."""

    root: Path
    mean: float
    std: float
    films: int
    fingerprint: str | None
    """As it was written; None in a store of an earlier pcamx."""


def read_head(folder: Path) -> Head:
    """Read store.json alone: what standardises a film, also where the films are gone.

    Raises PcamxError if the folder is missing, no store, or one of another format.
    """
    head_file = folder / HEAD
    if not head_file.is_file():
        what = "not a store (no store.json)" if folder.is_dir() else "no such folder"
        raise PcamxError(f"{folder}: {what}; make one with: pcamx prepare ROOT --out {folder}")
    try:
        head = json.loads(head_file.read_text(encoding="utf-8"))
        version, root = head["format"], folder / head["root"]
        if version != FORMAT:
            raise PcamxError(
                f"{head_file}: format {version}, this pcamx reads {FORMAT}; run pcamx prepare again"
            )
        mean, std = float(head["mean"]), float(head["std"])
        count = sum(int(head["counts"][split]) for split in SPLITS)
        written = head.get("fingerprint")
        if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise PcamxError(f"{head_file}: damaged; run pcamx prepare again") from None
    return Head(root, mean, std, films=count, fingerprint=written)


def read_store(folder: Path) -> Store:
    """Read what `pcamx prepare` wrote; does not open the films.

    Raises PcamxError if the folder is missing or no store, if the root is gone, or if a file
    was changed by hand and no longer fits.
    """
    root, mean, std, count, written = read_head(folder)
    if not os.path.isdir(root):  # false also of a name too long
        raise PcamxError(f"{root}: the films of store {folder} are gone; run pcamx prepare again")
    films = tuple(_films(folder))
    if len(films) != count:
        raise PcamxError(
            f"{folder / MANIFEST}: {len(films)} films, store.json says {count}; "
            "run pcamx prepare again"
        )
    if written is not None and not any(written == one for one in fingerprints(folder)):
        raise PcamxError(
            f"{folder}: {HEAD}, {MANIFEST} and {CONTENT} do not belong together, one has changed "
            "since pcamx prepare; run it again"
        )
    return Store(folder, root, films, mean, std, _contents(folder))


def _contents(folder: Path) -> dict[str, Content]:
    path = folder / CONTENT
    if not path.exists():
        return {}
    try:
        return parse([[*map(plain_cell, row)] for _, row in csv_rows(path)])
    except (ValueError, TypeError):
        raise PcamxError(f"{path}: damaged; run pcamx prepare again") from None


def _films(folder: Path) -> Iterator[Film]:
    path = folder / MANIFEST
    rows = csv_rows(path)
    names = [field.name for field in fields(Film)]
    _, header = next(rows, (0, []))
    if header != names:
        raise PcamxError(f"{path}: line 1 must be {','.join(names)}; run pcamx prepare again")
    seen: set[str] = set()
    for line, row in rows:
        try:
            if len(row) != len(names):
                raise PcamxError(f"{len(names)} fields expected, found {len(row)}")
            film = _film(dict(zip(names, map(plain_cell, row), strict=True)))
            if film.path in seen:
                raise PcamxError(f"{film.path} is listed twice")
            if film.mark and not os.path.isfile(folder / film.mark):
                raise PcamxError(f"lesion mask {film.mark} is missing")
        except PcamxError as error:
            raise PcamxError(f"{path}, line {line}: {error}; run pcamx prepare again") from None
        seen.add(film.path)
        yield film


def _film(row: dict[str, str]) -> Film:
    """One checked row of the manifest; raises PcamxError without a location."""
    number: dict[str, int] = {}
    for name, low in {"label": 0, "width": 1, "height": 1, "white": 255}.items():
        # Python reads no number of thousands of digits.
        if not row[name].isdecimal() or len(row[name]) > _DIGITS or int(row[name]) < low:
            raise PcamxError(f"{name} is {row[name][:40]!r}")
        number[name] = int(row[name])
    if number["label"] > 1:
        raise PcamxError(f"label is {number['label']}, not 0 or 1")
    if row["split"] not in SPLITS:
        raise PcamxError(f"split is {row['split']!r}, not one of {', '.join(SPLITS)}")
    text = {key: row[key] for key in ("patient", "study", "part", "split")}
    mark = relative(row["mark"]) if row["mark"] else ""
    return Film(path=relative(row["path"]), mark=mark, **text, **number)  # type: ignore[arg-type]
