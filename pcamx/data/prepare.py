"""`pcamx prepare`: from a data set to a store that holds only films that decode."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from pcamx.data.marks import MakeMask, read_marks
from pcamx.data.mura import is_mura, read_mura
from pcamx.data.parity import Parity, transcode_films
from pcamx.data.processes import in_processes
from pcamx.data.replacing import replacing
from pcamx.data.store import FILMS, MARKS, SPLITS, Entry, Film, write_store
from pcamx.data.table import REQUIRED, read_table
from pcamx.data.transcode import Kind, check_codec
from pcamx.data.verify import Facts, verify
from pcamx.errors import PcamxError
from pcamx.progress import Track, silent
from pcamx.types import NORMAL

TABLE = "labels.csv"
_SAID = ("path", "label", "patient", "study", "part", "split")  # what Entry and Film share
_NAMED = 5  # patients that a message names before it counts the rest


@dataclass(frozen=True, slots=True)
class Summary:
    """What `prepare` did."""

    counts: dict[str, tuple[int, int]]
    """Split > normal and abnormal films; the splits that have any."""
    quarantined: int
    marked: int
    marks_on_normal: int
    """Marks left out because the film is labelled normal, which its label stays."""
    marks_empty: int
    marks_on_quarantined: int
    mark_notes: tuple[str, ...]
    """What else is to be known of the marks, a line each: boxes, images that are no films, ..."""
    mean: float
    """Grey level on 0..255 of the training films, and its standard deviation."""
    std: float
    parity: Parity | None = None
    """What transcoding changed; None where the films stayed as they are."""


def prepare(
    root: Path,
    out: Path,
    *,
    table: Path | None = None,
    marks: Path | None = None,
    transcode: Kind | None = None,
    workers: int | None = None,
    track: Track = silent,
) -> Summary:
    """Verify a data set's films and write the store ``out``, as a whole or not at all.

    ``root`` is a MURA-v1.1 folder, or holds the films that ``table`` (root/labels.csv if left
    out) lists. ``marks``: what `pcamx.data.marks` reads. ``transcode`` writes the films anew into
    the store, with a report. ``workers``: processes, all cores by default; the result does not
    depend on it. Run it under ``if __name__ == "__main__"``.

    Raises PcamxError that names file and row for any mistake; a store already at ``out`` is
    then as it was.
    """
    root, out = root.resolve(), out.resolve()
    _check_arguments(root, out, workers)
    if transcode is not None:
        check_codec(transcode)
    entries = _list(root, table)
    _check_patients(entries)
    _check_links(root, entries)
    with replacing(out) as draft:
        paths = [root / entry.path for entry in entries]
        checks = in_processes(verify, paths, paths, workers)
        facts = list(track(checks, "checking films", len(entries)))
        films, quarantine, size_of = _sort_out(entries, facts)
        _check_training(films, quarantine, root)
        mean, std = _grey(entries, facts)
        tally: Counter[str] = Counter()
        notes: list[str] = []
        if marks is not None:
            found = read_marks(marks, size_of)
            notes = found.notes()
            work = track(found.masks.items(), "drawing marks", len(found.masks))
            films = _add_marks(films, work, draft, tally)
        home, parity = root, None
        if transcode is not None:
            films, parity = transcode_films(root, draft, films, transcode, workers, track)
            home = Path(FILMS)
        write_store(draft, home, films, mean=mean, std=std, quarantine=quarantine)
    return Summary(
        counts=_counts(films),
        quarantined=len(quarantine),
        marked=tally["used"],
        marks_on_normal=tally["normal"],
        marks_empty=tally["empty"],
        marks_on_quarantined=tally["quarantined"],
        mark_notes=tuple(notes),
        mean=mean,
        std=std,
        parity=parity,
    )


def _check_arguments(root: Path, out: Path, workers: int | None) -> None:
    if not root.is_dir():
        raise PcamxError(f"{root}: no such folder; name the folder that holds the films")
    if workers is not None and workers < 1:
        raise PcamxError(f"workers is {workers}: it must be 1 or more")
    if root.is_relative_to(out):
        what = "is the data folder itself" if out == root else f"holds the data folder {root}"
        raise PcamxError(f"--out {out} {what}; choose a folder for the store")


def _list(root: Path, table: Path | None) -> list[Entry]:
    if table is not None:
        return read_table(table)
    if is_mura(root):
        return read_mura(root)
    if (root / TABLE).is_file():
        return read_table(root / TABLE)
    raise PcamxError(
        f"{root}: neither a MURA-v1.1 folder (no train_image_paths.csv) nor one with {TABLE}; "
        f"list the films in a csv with the columns {', '.join(REQUIRED)} and pass it as --table"
    )


def _check_patients(entries: Sequence[Entry]) -> None:
    """A patient in two splits lets a network score by knowing the patient: refuse."""
    split_of: dict[str, str] = {}
    torn: dict[str, None] = {}
    for entry in entries:
        if split_of.setdefault(entry.patient, entry.split) != entry.split:
            torn[entry.patient] = None
    if torn:
        names, rest = ", ".join(list(torn)[:_NAMED]), len(torn) - _NAMED
        more = f" and {rest} more" if rest > 0 else ""
        what = "patients are" if len(torn) > 1 else "patient is"
        raise PcamxError(
            f"{len(torn)} {what} in more than one split: {names}{more}; "
            "put all films of a patient into one split"
        )


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


def _sort_out(
    entries: Sequence[Entry], facts: Sequence[Facts | str]
) -> tuple[list[Film], list[tuple[str, str]], dict[str, tuple[int, int] | None]]:
    """Sound films, quarantine rows, and every film's size, None for the quarantined."""
    films: list[Film] = []
    quarantine: list[tuple[str, str]] = []
    size_of: dict[str, tuple[int, int] | None] = {}
    for entry, fact in zip(entries, facts, strict=True):
        if isinstance(fact, str):
            quarantine.append((entry.path, fact))
            size_of[entry.path] = None
            continue
        size_of[entry.path] = (fact.width, fact.height)
        said = {name: getattr(entry, name) for name in _SAID}
        films.append(Film(width=fact.width, height=fact.height, white=fact.white, mark="", **said))
    return films, quarantine, size_of


def _counts(films: Sequence[Film]) -> dict[str, tuple[int, int]]:
    number = Counter((film.split, film.label) for film in films)
    counts = {split: (number[split, 0], number[split, 1]) for split in SPLITS}
    return {split: count for split, count in counts.items() if any(count)}


def _check_training(
    films: Sequence[Film], quarantine: Sequence[tuple[str, str]], root: Path
) -> None:
    for label, count in zip(
        ("normal", "abnormal"), _counts(films).get("train", (0, 0)), strict=True
    ):
        if not count:
            bad = ""
            if quarantine:
                path, reason = quarantine[0]
                bad = f" ({len(quarantine)} unusable, the first: {root / path}: {reason})"
            raise PcamxError(
                f"no {label} film is left to train on{bad}; a classifier needs both classes"
            )


def _grey(entries: Sequence[Entry], facts: Sequence[Facts | str]) -> tuple[float, float]:
    """Mean and standard deviation of the training films' grey levels; each film weighs the same."""
    train = [
        fact
        for entry, fact in zip(entries, facts, strict=True)
        if entry.split == "train" and isinstance(fact, Facts)
    ]
    # fsum is exact, so the order of the films does not show.
    mean = math.fsum(fact.mean for fact in train) / len(train)
    variance = math.fsum(fact.mean_square for fact in train) / len(train) - mean**2
    if variance < 1e-6:
        raise PcamxError("every training film is one flat grey; check that these are the films")
    return mean, math.sqrt(variance)


def _add_marks(
    films: Sequence[Film],
    masks: Iterable[tuple[str, MakeMask | None]],
    draft: Path,
    tally: Counter[str],
) -> list[Film]:
    """Write the masks below ``draft``/marks; the films with their ``mark`` filled in."""
    by_path = {film.path: film for film in films}
    for path, make in masks:
        if make is None:
            tally["quarantined"] += 1
            continue
        film, mask_HW = by_path[path], make()
        if not mask_HW.any():
            tally["empty"] += 1
        elif film.label == NORMAL:
            tally["normal"] += 1
        else:
            tally["used"] += 1
            # The film's suffix stays: a.jpg and a.png may lie side by side.
            mark = f"{MARKS}/{path}.png"
            (draft / mark).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask_HW).save(draft / mark)
            by_path[path] = replace(film, mark=mark)
    return list(by_path.values())
