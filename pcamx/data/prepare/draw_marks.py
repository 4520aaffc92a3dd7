"""Lesion marks drawn as masks into the store."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from pcamx.data.marks import MakeMask, Marks, read_marks
from pcamx.data.marks.problems import counted
from pcamx.data.marks.usable import is_frame_told
from pcamx.data.store import MARKS, SPLITS, Film
from pcamx.progress import Track
from pcamx.types import NORMAL

_LARGE = 0.5
"""Share of a film from which on a lesion is hardly one."""


@dataclass(frozen=True, slots=True)
class MarkTally:
    """Which marks went where."""

    used: int = 0
    on_normal: tuple[str, ...] = ()
    """Films whose marks are left out because they are labelled normal, which their label stays."""
    empty: tuple[str, ...] = ()
    on_quarantined: tuple[str, ...] = ()
    on_held_out: tuple[str, ...] = ()
    """Left out because the film is of another split than those whose marks were asked for."""
    notes: tuple[str, ...] = ()
    """What else is to be known of the marks, a line each: boxes, images that are no films, ..."""

    def dropped(self) -> list[str]:
        """Say on which films marks are not used, a line for each reason."""
        reasons = {
            "marked films that are held out to measure on, which keep the marks they have": (
                self.on_held_out
            ),
            "marks on films labelled normal, not used": self.on_normal,
            "empty marks, not used": self.empty,
            "marks on quarantined films, not used": self.on_quarantined,
        }
        return [counted(films, what) for what, films in reasons.items() if films]


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
    turns: Mapping[str, int] = MappingProxyType({}),
) -> tuple[list[Film], MarkTally]:
    """Write the masks that ``marks`` hold below ``draft``; see `pcamx.data.marks.read_marks`.

    ``root`` is the data folder, ``turns`` are the films' EXIF orientations where they are known.
    Films of other splits than ``splits`` get none. Returns the films with their ``mark`` filled in.
    """
    if marks is None:
        return list(films), MarkTally()
    found = read_marks(marks, size_of, labels, track, root)
    tally: dict[str, list[str]] = defaultdict(list)
    work = track(found.masks.items(), "drawing marks", len(found.masks))
    marked = _add_marks(films, work, draft, tally, splits)
    return marked, MarkTally(
        used=len(tally["used"]),
        on_normal=tuple(tally["normal"]),
        empty=tuple(tally["empty"]),
        on_quarantined=tuple(tally["quarantined"]),
        on_held_out=tuple(tally["held out"]),
        notes=(*found.notes(), *_to_look_at(found, tally["large"], size_of, turns)),
    )


def _to_look_at(
    found: Marks,
    large: Sequence[str],
    size_of: Mapping[str, tuple[int, int] | None],
    turns: Mapping[str, int],
) -> Iterator[str]:
    """What may be wrong with marks that are used."""
    told = {problem.film for problem in found.problems if problem.kind == "ground"}
    if large := [film for film in large if film not in told]:
        yield counted(large, "marks on more than half of a film, as a negative of a mask is")
    sizes = {film: size for film in found.masks if (size := size_of[film])}
    turned = [
        film
        for film, size in sizes.items()
        if not is_frame_told(turns.get(film, 1), size, film not in found.unsized)
    ]
    if turned:
        yield counted(
            turned,
            "marked films that EXIF turns, drawn before or after that, which their size does not "
            "tell; look at them with pcamx marks check",
        )


def _add_marks(
    films: Sequence[Film],
    masks: Iterable[tuple[str, MakeMask | None]],
    draft: Path,
    tally: dict[str, list[str]],
    splits: Collection[str],
) -> list[Film]:
    """Write the masks below ``draft``/marks; the films with their ``mark`` filled in."""
    by_path = {film.path: film for film in films}
    for path, make in masks:
        if make is None:
            tally["quarantined"].append(path)
            continue
        film, mask_HW = by_path[path], make()
        if film.split not in splits:
            tally["held out"].append(path)
        elif not mask_HW.any():
            tally["empty"].append(path)
        elif film.label == NORMAL:
            tally["normal"].append(path)
        else:
            tally["used"].append(path)
            if np.count_nonzero(mask_HW) > _LARGE * mask_HW.size:
                tally["large"].append(path)
            # The film's suffix stays: a.jpg and a.png may lie side by side.
            mark = f"{MARKS}/{path}.png"
            (draft / mark).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask_HW).save(draft / mark)
            by_path[path] = replace(film, mark=mark)
    return list(by_path.values())
