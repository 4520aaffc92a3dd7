"""A store with more marks than another, of the same films: its masks are all that it adds."""

import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pcamx.data.contents import Content, sha256_of
from pcamx.data.csv_files import csv_rows
from pcamx.data.prepare.draw_marks import MarkTally, draw_marks
from pcamx.data.store import NEAR_COPIES, QUARANTINE, Film, Store, write_store
from pcamx.errors import PcamxError
from pcamx.output import plain_cell
from pcamx.progress import Track, silent

_LEARNED = "train"


@dataclass(frozen=True, slots=True)
class MoreMarks:
    """How the marks of the training films came together."""

    earlier: int
    """Films whose marks are those that they had."""
    renewed: int
    """Films whose new marks took the place of earlier ones."""
    new: int
    """Films that had none."""
    tally: MarkTally
    """What became of the new marks."""

    @property
    def films(self) -> int:
        """Training films with a mark."""
        return self.earlier + self.renewed + self.new


def add_marks(
    store: Store,
    earlier: Collection[str],
    sources: Sequence[Path],
    folder: Path,
    *,
    labels: Sequence[str] = (),
    track: Track = silent,
) -> MoreMarks:
    """Write into ``folder`` a store of the films of ``store`` with the marks of ``sources`` added.

    Newer marks win film by film: a training film that ``sources`` mark has their marks alone, put
    together as `pcamx.data.marks.read_marks` does; else those of ``store``, if ``earlier`` holds
    its path. The other splits keep the marks that they have, so that what learned from either
    store is measured by the same. The films' files are shared.

    Raises PcamxError where the marks cannot be read, or none lies on an abnormal training film.
    """
    rejected = [
        (plain_cell(path), plain_cell(reason))
        for number, (path, reason) in csv_rows(store.folder / QUARANTINE)
        if number > 1
    ]
    sizes: dict[str, tuple[int, int] | None] = {path: None for path, _ in rejected}
    sizes |= {film.path: (film.width, film.height) for film in store.films}
    bare = [replace(film, mark="") for film in store.films]
    drawn, tally = draw_marks(
        sources, labels, bare, sizes, folder, track, {_LEARNED}, root=store.root
    )
    if not tally.used:
        raise PcamxError(_nothing(store, sources, tally))
    films, contents = [], dict(store.contents)
    for old, new in zip(store.films, drawn, strict=True):
        kept = old.mark if old.split != _LEARNED or old.path in earlier else ""
        if kept and not new.mark:
            _copy_mark(store, old, folder)
        films.append(replace(old, mark=new.mark or kept))
        if old.path in contents:
            contents[old.path] = _content(contents[old.path], films[-1], folder)
    write_store(
        folder,
        store.root.resolve(),
        films,
        mean=store.mean,
        std=store.std,
        quarantine=rejected,
        contents=contents or None,
    )
    if (store.folder / NEAR_COPIES).is_file():
        shutil.copyfile(store.folder / NEAR_COPIES, folder / NEAR_COPIES)
    renewed = sum(
        bool(n.mark) and o.path in earlier for o, n in zip(store.films, drawn, strict=True)
    )
    marked = sum(bool(film.mark) for film in films if film.split == _LEARNED)
    return MoreMarks(marked - tally.used, renewed, tally.used - renewed, tally)


def _content(known: Content, film: Film, folder: Path) -> Content:
    return known._replace(mark_sha256=sha256_of(folder / film.mark) if film.mark else "")


def _copy_mark(store: Store, film: Film, folder: Path) -> None:
    store.check_mark(film)
    copy = folder / film.mark
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(store.folder / film.mark, copy)


def _nothing(store: Store, sources: Sequence[Path], tally: MarkTally) -> str:
    """Why none of the new marks can be learned from."""
    where: dict[str, Sequence[str]] = {
        "held out to measure on": tally.on_held_out,
        "labelled normal": tally.on_normal,
        "marked empty": tally.empty,
        "in the quarantine": tally.on_quarantined,
    }
    said = ", ".join(f"{len(films)} {what}" for what, films in where.items() if films)
    names = ", ".join(map(str, sources))
    return (
        f"{names}: no mark lies on an abnormal training film of {store.folder} (its films are: "
        f"{said}); mark some of those that pcamx marks suggest names"
    )
