"""Markers: where something lies on a film that says nothing of a lesion, for data sets that say so.

``markers.csv`` in the data folder, beside the films: a header and one row for each lead letter or
plate of a film, its box in the upright film's pixels (right and bottom just past it; all four empty
where it is not known or has no place, as an exposure). Phantoms come with one; without one, what
the data set itself names counts, whose place is not known: FracAtlas' hardware, GRAZPEDWRI-DX's
casts and metal. Nothing is learned from it; `pcamx evaluate` counts the maps that peak on a marker
and compares films with the same markers, and `data.balanced: markers` draws as many abnormal as
normal films of those.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pcamx.data.canvas.placement import fit
from pcamx.data.csv_files import csv_rows, delimiter_of, film_path
from pcamx.data.sets.listing import confounders
from pcamx.data.store import Film, Store
from pcamx.errors import PcamxError
from pcamx.output import plain_cell

FILE = "markers.csv"
HEADER = ("path", "marker", "left", "top", "right", "bottom")
_BEFORE = ("path", "letter", *HEADER[2:])
"""When only letters were markers."""
_MARGIN = 1 / 16
"""Of the canvas, around a marker: one cell of a 20 x 20 map is 1/20 wide, so that a map which
looks at it may peak that far beside it."""


class Box(NamedTuple):
    """Pixels from left and top up to, not including, right and bottom."""

    left: int
    top: int
    right: int
    bottom: int


def read_markers(store: Store, films: Sequence[Film], canvas: int) -> list[tuple[Box, ...]]:
    """Read the regions of each film's markers on the canvas, margin included.

    Raises PcamxError that names the line of a file that cannot be understood.
    """
    regions: dict[str, list[Box]] = {}
    for film, _, box in _rows(store):
        if box is not None:
            regions.setdefault(film.path, []).append(_region(box, film, canvas))
    return [tuple(regions.get(film.path, ())) for film in films]


def marker_names(store: Store, films: Sequence[Film]) -> list[tuple[str, ...]]:
    """Return which markers each film has, sorted; also those whose place is not known.

    Raises PcamxError as `read_markers`.
    """
    names: dict[str, set[str]] = {}
    for film, name, _ in _rows(store):
        names.setdefault(film.path, set()).add(name)
    return [tuple(sorted(names.get(film.path, ()))) for film in films]


def strata_of(store: Store, films: Sequence[Film]) -> list[str]:
    """Return for each film one name of all its markers, "none" for those without.

    Empty names throughout where the films are not told apart: nothing is known, or all have the
    same. Raises PcamxError as `read_markers`.
    """
    names = [" ".join(markers) or "none" for markers in marker_names(store, films)]
    return names if len(set(names)) > 1 else [""] * len(films)


def _rows(store: Store) -> Iterator[tuple[Film, str, Box | None]]:
    """Film, marker and box of each row; without a file what the data set itself names."""
    path = store.root / FILE
    known = {film.path: film for film in store.films}
    if not path.is_file():
        for name, marker in confounders(store.root):
            if film := known.get(name):
                yield film, marker, None
        return
    for number, (line, row) in enumerate(csv_rows(path, delimiter_of(path))):
        if number == 0:
            if tuple(row) not in (HEADER, _BEFORE):
                raise PcamxError(f"{path}: line 1 must be {','.join(HEADER)}; mend it or remove it")
            continue
        row = [*map(plain_cell, row)]
        try:
            name = film_path(row[0])
        except PcamxError as error:
            raise PcamxError(f"{path}, line {line}: {error}") from None
        if film := known.get(name):  # a film that was quarantined is not
            placed = len(row) != len(HEADER) or any(row[2:])
            box = _box(row, film) if placed else None
            if placed and box is None:
                raise PcamxError(f"{path}, line {line}: not a box on that film; mend it")
            yield film, row[1], box


def _box(row: list[str], film: Film) -> Box | None:
    if len(row) != len(HEADER) or not all(field.isdecimal() for field in row[2:]):
        return None
    box = Box(*map(int, row[2:]))
    inside = box.left < box.right <= film.width and box.top < box.bottom <= film.height
    return box if inside else None


def _region(box: Box, film: Film, canvas: int) -> Box:
    """The box where the film lies on the canvas, grown by the margin and cut at the edge."""
    place = fit(film.width, film.height, canvas)
    across, down = place.width / film.width, place.height / film.height
    margin = _MARGIN * canvas
    return Box(
        max(0, round(place.left + box.left * across - margin)),
        max(0, round(place.top + box.top * down - margin)),
        min(canvas, round(place.left + box.right * across + margin)),
        min(canvas, round(place.top + box.bottom * down + margin)),
    )
