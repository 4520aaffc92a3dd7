"""`pcamx marks check`: what marks a file holds, on which films of a store, and what is odd.

Shapes: H W the film, on the canvas the canvas.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import ExifTags, Image

from pcamx.data.canvas.lesion_mask import lay_lesion
from pcamx.data.canvas.placement import fit, on_film
from pcamx.data.csv_files import csv_rows
from pcamx.data.marks import Marks, read_marks
from pcamx.data.marks.usable import is_frame_told
from pcamx.data.store import QUARANTINE, SPLITS, Film, Store, read_store
from pcamx.marking import film_tiles
from pcamx.progress import Track, silent
from pcamx.report.figures.contact_sheet import FILMS, check_place, save_sheet
from pcamx.report.figures.film_figure import Panel
from pcamx.types import NORMAL

CANVAS = 320


@dataclass(frozen=True, slots=True)
class Part:
    """One body part's row of the table."""

    name: str
    films: int
    abnormal: int
    marked: int
    """Abnormal films with a mark that training can use."""
    marks: int
    """Lesions drawn on them."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` found."""

    marks: Marks
    usable: tuple[Film, ...]
    """Abnormal films with a mark that is not empty."""
    share: dict[str, float]
    """Film > share of it that is marked."""
    parts: tuple[Part, ...]
    splits: dict[str, int]
    """Split > usable films."""
    labels: Counter[str]
    normal: tuple[str, ...]
    """Films labelled normal that are marked."""
    empty: tuple[str, ...]
    quarantined: tuple[str, ...]
    turned: tuple[str, ...]
    """Films turned by EXIF on which the size cannot tell in which frame the marks were drawn."""
    shown: int
    """Films on the contact sheet; none of them of the test split."""


def check(
    sources: Path | Sequence[Path],
    store_folder: Path,
    sheet: Path,
    *,
    labels: Sequence[str] = (),
    track: Track = silent,
) -> Checked:
    """Read the marks of ``sources`` as `pcamx prepare` would and draw the films into ``sheet``.

    ``labels``: the classes that are lesions, where there are several. Raises PcamxError for marks
    that cannot be read, for classes to be chosen, or if none is on a film of the store.
    """
    check_place(sheet, ".png")
    store = read_store(store_folder)
    film_of = {film.path: film for film in store.films}
    rejected = [row[0] for number, row in csv_rows(store.folder / QUARANTINE) if number > 1]
    sizes = {path: (film.width, film.height) for path, film in film_of.items()}
    marks = read_marks(sources, dict.fromkeys(rejected) | sizes, labels, track, store.root)
    share: dict[str, float] = {}
    for path, make in track(marks.masks.items(), "drawing marks", len(marks.masks)):
        if make is not None:
            mask_HW = make()
            share[path] = float((mask_HW > 0).mean())
    # Whoever looks at test films chooses by them, if only which marks to mend.
    shown = [film_of[path] for path in share if film_of[path].split != "test"]
    lit = [film_of[path] for path, covered in share.items() if covered]
    usable = tuple(film for film in lit if film.label != NORMAL)
    found = Checked(
        marks=marks,
        usable=usable,
        share=share,
        parts=_parts(store.films, usable, marks),
        splits={s: n for s in SPLITS if (n := sum(film.split == s for film in usable))},
        labels=marks.labels(),
        normal=tuple(film.path for film in lit if film.label == NORMAL),
        empty=tuple(path for path, covered in share.items() if not covered),
        quarantined=tuple(path for path, make in marks.masks.items() if make is None),
        turned=tuple(path for path in share if _unsure(store, film_of[path], marks)),
        shown=min(len(shown), FILMS),
    )
    if shown:
        _draw(found, store, shown, sheet, track)
    return found


def _parts(films: Sequence[Film], usable: Sequence[Film], marks: Marks) -> tuple[Part, ...]:
    names = sorted({film.part for film in films})
    return tuple(
        Part(
            name or "unknown",
            sum(film.part == name for film in films),
            sum(film.part == name and film.label != NORMAL for film in films),
            sum(film.part == name for film in usable),
            sum(len(marks.of[film.path]) for film in usable if film.part == name),
        )
        for name in names
    )


def _unsure(store: Store, film: Film, marks: Marks) -> bool:
    """Whether EXIF turns the film in a way that the recorded size does not show."""
    try:
        with Image.open(store.root / film.path) as image:
            # Pillow decodes a whole PNG in search of EXIF at its end; what is at hand will do.
            exif = Image.Exif()
            exif.load(image.info.get("exif", b""))
    except (OSError, ValueError, SyntaxError):
        return False  # decoding it for the sheet, or training, will say so
    turn = exif.get(ExifTags.Base.Orientation, 1)
    return not is_frame_told(turn, (film.width, film.height), film.path not in marks.unsized)


def _draw(found: Checked, store: Store, films: Sequence[Film], sheet: Path, track: Track) -> None:
    odd = {problem.film for problem in found.marks.problems} | {*found.normal, *found.turned}
    films = choose(films, odd, FILMS)
    panels: list[Panel] = []
    cpu = torch.device("cpu")
    for batch, canvas_B1HW in film_tiles.batches(store, films, CANVAS, cpu, track, "drawing films"):
        for film, canvas_1HW in zip(batch, canvas_B1HW, strict=True):
            make = found.marks.masks[film.path]
            assert make is not None
            lesion_HW = lay_lesion(make() > 0, CANVAS)[0]
            place = fit(film.width, film.height, CANVAS)
            panels.append(
                Panel(
                    title=film.path,
                    caption=_caption(film, found),
                    image_HW=on_film(canvas_1HW[0], place).numpy(),
                    maps={},
                    lesion_HW=on_film(lesion_HW, place).numpy(),
                )
            )
    what = f"{found.marks.kind}: {len(films)} of {len(found.share)} marked films"
    order = ", those to look at first" if odd & {film.path for film in films} else ""
    save_sheet(panels, sheet, f"{what}{order}; blue outline: marked lesion")


def choose(films: Sequence[Film], first: set[str], count: int) -> list[Film]:
    """Choose up to ``count`` films: those named ``first``, then evenly from all parts."""
    ahead = [film for film in films if film.path in first][:count]
    rest = sorted((f for f in films if f.path not in first), key=lambda f: (f.part, f.path))
    room = min(count - len(ahead), len(rest))
    return ahead + [rest[k * len(rest) // room] for k in range(room)]


def _caption(film: Film, found: Checked) -> str:
    number = len(found.marks.of[film.path])
    odd = {
        "LABELLED NORMAL": film.path in found.normal,
        "EMPTY": film.path in found.empty,
        "TURNED BY EXIF": film.path in found.turned,
    } | {p.kind.upper(): True for p in found.marks.problems if p.film == film.path}
    said = [word for word, holds in odd.items() if holds]
    marks = f"{number} mark{'s' if number > 1 else ''}"
    return ", ".join(filter(None, (film.part, marks, f"{found.share[film.path]:.1%}", *said)))
