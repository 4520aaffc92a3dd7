"""What `pcamx prepare` did, for whoever prints it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pcamx.data.files.file_content import MISSING
from pcamx.data.prepare.copies_apart import Copies
from pcamx.data.prepare.draw_marks import MarkTally
from pcamx.data.prepare.parity import Parity
from pcamx.data.prepare.verify import Facts
from pcamx.data.sets.entry import Entry
from pcamx.data.store import SPLITS, Film


@dataclass(frozen=True, slots=True)
class Summary:
    """What `prepare` did."""

    counts: dict[str, tuple[int, int]]
    """Split > normal and abnormal films; the splits that have any."""
    quarantined: int
    missing: dict[str, int]
    """Split > films that the data set lists and the folder lacks; they count as quarantined."""
    marks: MarkTally
    mean: float
    """Grey level on 0..255 of the training films, and its standard deviation."""
    std: float
    parity: Parity | None = None
    """What transcoding changed; None where the films stayed as they are."""
    dicoms: int = 0
    """DICOM films; with any, the store holds all films."""
    copies: Copies = Copies(0, 0, {}, (), 0)
    """Films that are the same picture."""
    notes: tuple[str, ...] = ()
    """What a table leaves out and was made up for, a sentence each."""


def counts(films: Sequence[Film]) -> dict[str, tuple[int, int]]:
    """Return split > normal and abnormal films, of the splits that have any."""
    number = Counter((film.split, film.label) for film in films)
    found = {split: (number[split, 0], number[split, 1]) for split in SPLITS}
    return {split: count for split, count in found.items() if any(count)}


def missing(entries: Sequence[Entry], facts: Sequence[Facts | str]) -> dict[str, int]:
    """Return split > films that the data set lists and the folder lacks."""
    pairs = zip(entries, facts, strict=True)
    number = Counter(entry.split for entry, fact in pairs if fact == MISSING)
    return {split: number[split] for split in SPLITS if number[split]}
