"""Lesion marks drawn as masks into the store."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from pcamx.data.marks import MakeMask, read_marks
from pcamx.data.store import MARKS, SPLITS, Film
from pcamx.progress import Track
from pcamx.types import NORMAL


@dataclass(frozen=True, slots=True)
class MarkTally:
    """How many marks went where."""

    used: int = 0
    on_normal: int = 0
    """Left out because the film is labelled normal, which its label stays."""
    empty: int = 0
    on_quarantined: int = 0
    on_held_out: int = 0
    """Left out because the film is of another split than those whose marks were asked for."""
    notes: tuple[str, ...] = ()
    """What else is to be known of the marks, a line each: boxes, images that are no films, ..."""


def draw_marks(
    marks: Path | Sequence[Path] | None,
    labels: Sequence[str],
    films: Sequence[Film],
    size_of: Mapping[str, tuple[int, int] | None],
    draft: Path,
    track: Track,
    splits: Collection[str] = SPLITS,
    *,
    root: Path,
) -> tuple[list[Film], MarkTally]:
    """Write the masks that ``marks`` hold below ``draft``; see `pcamx.data.marks.read_marks`.

    ``root`` is the data folder. Films of other splits than ``splits`` get none. Returns the films
    with their ``mark`` filled in.
    """
    if marks is None:
        return list(films), MarkTally()
    found = read_marks(marks, size_of, labels, track, root)
    tally: Counter[str] = Counter()
    work = track(found.masks.items(), "drawing marks", len(found.masks))
    marked = _add_marks(films, work, draft, tally, splits)
    return marked, MarkTally(
        used=tally["used"],
        on_normal=tally["normal"],
        empty=tally["empty"],
        on_quarantined=tally["quarantined"],
        on_held_out=tally["held out"],
        notes=tuple(found.notes()),
    )


def _add_marks(
    films: Sequence[Film],
    masks: Iterable[tuple[str, MakeMask | None]],
    draft: Path,
    tally: Counter[str],
    splits: Collection[str],
) -> list[Film]:
    """Write the masks below ``draft``/marks; the films with their ``mark`` filled in."""
    by_path = {film.path: film for film in films}
    for path, make in masks:
        if make is None:
            tally["quarantined"] += 1
            continue
        film, mask_HW = by_path[path], make()
        if film.split not in splits:
            tally["held out"] += 1
        elif not mask_HW.any():
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
