"""Marks meet films: which film each annotated image is, and which of its marks can be used.

Shapes: H W the upright film.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pcamx.data.marks import classes
from pcamx.data.marks.annotated import Annotated
from pcamx.data.marks.formats.detect import MASKS, ONE_EACH, open_marks
from pcamx.data.marks.names import WHOLE, Beside, Names, foreign_folder
from pcamx.data.marks.problems import PROBLEMS, Desk, Problem, notes_of
from pcamx.data.marks.shapes import Box, Mask, Size, draw
from pcamx.data.marks.usable import Drawn, fits, usable
from pcamx.data.marks.work import Work
from pcamx.errors import PcamxError
from pcamx.progress import Track, silent

MakeMask = Callable[[], Mask]


@dataclass(frozen=True, slots=True)
class Marks:
    """What people's marks are, film by film."""

    kind: str
    """The formats' names."""
    of: dict[str, tuple[Drawn, ...]]
    """Film > the marks that can be used; none for a film that cannot be."""
    masks: dict[str, MakeMask | None]
    """Film > what makes its uint8 mask [H, W] of 0 and 255; None for one that cannot be used.

    Made when called for, since those of a large set would not fit into memory. A mask may be
    empty.
    """
    unmarked: int
    """Images that the sources hold without a mark."""
    unsized: tuple[str, ...]
    """Films whose marks come without the image's size, so that the frame is taken on trust."""
    left_out: Counter[str]
    """Class > marks that were not chosen; "" for those without a class."""
    problems: tuple[Problem, ...]

    def shapes(self) -> Counter[str]:
        """Count how many marks of which shape are used."""
        return Counter(mark.shape.kind for marks in self.of.values() for mark in marks)

    def labels(self) -> Counter[str]:
        """Count how many marks of which class are used."""
        return classes.count(mark.labels for marks in self.of.values() for mark in marks)

    def notes(self) -> list[str]:
        """Say what a person should know before the marks are used, a line each."""
        boxes, labels = self.shapes()[Box.kind], self.labels()
        notes = [f"boxes taken as filled rectangles: {boxes}"] if boxes else []
        if labels:
            notes.append(f"classes taken as lesions: {classes.listed(labels)}")
        if self.left_out:
            notes.append(self.left_out_note())
        return notes + notes_of(self.problems)

    def left_out_note(self) -> str:
        """Say in words which classes were not chosen."""
        named = Counter({name or "(no class)": n for name, n in self.left_out.items()})
        return f"marks of classes that were not chosen, not used: {classes.listed(named)}"


class _Marked(NamedTuple):
    """An image with marks, before its film is known."""

    where: str
    """For messages."""
    image: Annotated
    own: str
    """The file's path in the source, where each file is of one image that it names; else ""."""


@dataclass(slots=True)
class _Found:
    """What one source gives."""

    source: Path
    kind: str
    of: dict[str, tuple[Drawn, ...]]
    unmarked: int
    unsized: list[str]


def read_marks(
    sources: Path | Sequence[Path],
    films: Mapping[str, Size | None],
    labels: Sequence[str] = (),
    track: Track = silent,
    root: Path | None = None,
) -> Marks:
    """Read the marks of ``sources``, files or folders of any known kind, on the films they mean.

    ``films`` gives each film's upright size, None for one that cannot be used. ``labels`` are the
    classes that are lesions; marks of others are left out, and a source whose marks have no class
    is used as a whole. Left out itself, every source must be of one class. Marks of one film are
    put together, in a source and over all: what any of them holds is lesion. An image that lies in
    the data folder ``root`` under its whole name is that one, also where it is none of the films.

    A file that is damaged raises PcamxError; an item that cannot be read or used is a problem,
    and so is a size that tells of marks drawn before the EXIF rotation. PcamxError, too, for the
    predictions of a model, for classes to be chosen, and if a source has nothing to use.
    """
    paths = [sources] if isinstance(sources, Path) else list(dict.fromkeys(sources))
    desk, work = Desk(), Work()
    found = []
    for path in paths:
        desk.source = f"{path}: " if len(paths) > 1 else ""
        found.append(_read(path, films, desk, work, track, root))
    desk.source = ""
    left_out = _choose(found, labels)
    of: dict[str, tuple[Drawn, ...]] = {}
    by_film: dict[str, list[Path]] = {}
    for one in found:
        for film, marks in one.of.items():
            of[film] = of.get(film, ()) + marks
            by_film.setdefault(film, []).append(one.source)
    for film, several in by_film.items():
        if len(several) > 1:
            desk.note("merged", f"{film} by {several[0]} and {several[1]}")
    return Marks(
        kind=" and ".join(dict.fromkeys(one.kind for one in found)),
        of=of,
        masks={film: _mask(marks, films[film]) for film, marks in of.items()},
        unmarked=sum(one.unmarked for one in found),
        unsized=tuple(dict.fromkeys(film for one in found for film in one.unsized)),
        left_out=left_out,
        problems=tuple(desk.problems),
    )


def _choose(found: Sequence[_Found], labels: Sequence[str]) -> Counter[str]:
    """Leave the marks of classes that are no lesions out of ``found``; class > how many."""
    counts = list(map(_classes, found))
    left_out: Counter[str] = Counter()
    if labels:
        classes.require_known(labels, sum(counts, Counter()))
    for one, count in zip(found, counts, strict=True):
        if not labels:
            classes.require_one(one.source, count)
        elif count:
            for film, marks in list(one.of.items()):
                kept = tuple(mark for mark in marks if classes.is_chosen(mark.labels, labels))
                rest = [mark for mark in marks if not classes.is_chosen(mark.labels, labels)]
                left_out.update(label for mark in rest for label in mark.labels or ("",))
                one.of[film] = kept
                if marks and not kept:
                    del one.of[film]
    return left_out


def _read(
    source: Path,
    films: Mapping[str, Size | None],
    desk: Desk,
    work: Work,
    track: Track,
    root: Path | None,
) -> _Found:
    """The usable marks of one source, of every class. Raises PcamxError if there are none."""
    kind, images = open_marks(source)
    marked: list[_Marked] = []
    found = _Found(source, kind, {}, 0, [])
    before = len(desk.problems)
    for file, image in images:
        for remark in image.remarks:
            where = file.relative_to(source) if file != source else file.name
            told = str(where) in remark.text or bool(desk.source and file == source)
            desk.note(remark.kind, remark.text if told else f"{where}: {remark.text}")
        if image.marks:
            own = file.relative_to(source).as_posix() if file != source else file.name
            marked.append(_Marked(_where(file, source, image), image, own * (kind in ONE_EACH)))
        elif not image.remarks:
            found.unmarked += 1
    placed = list(_placed(marked, films, desk, root))
    if kind == MASKS:
        _note_folders(placed, desk)
    for film, where, image in track(placed, "reading marks", len(placed)):
        size = films[film]
        if size is None:
            found.of.setdefault(film, ())
        elif fits(image, size, film, where, desk):
            if marks := tuple(usable(image, film, size, desk, work)):
                found.of[film] = found.of.get(film, ()) + marks
            if image.size is None:
                found.unsized.append(film)
    if not found.of:
        raise PcamxError(_nothing(source, kind, desk.problems[before:]))
    if kind == MASKS and len(_classes(found)) == 1:  # 0 and 1, or 0 and red: no class is meant
        for film, marks in found.of.items():
            found.of[film] = tuple(replace(mark, labels=()) for mark in marks)
    return found


def _classes(found: _Found) -> Counter[str]:
    return classes.count(mark.labels for marks in found.of.values() for mark in marks)


def _where(file: Path, source: Path, image: Annotated) -> str:
    """The image, and the file where there are many, unless one is named like the other."""
    if file == source or Path(image.name).stem == file.stem:
        return image.name
    return f"{image.name} ({file.relative_to(source)})"


def _mask(marks: tuple[Drawn, ...], size: Size | None) -> MakeMask | None:
    return partial(draw, [mark.shape for mark in marks], size) if size else None


def _placed(
    marked: list[_Marked],
    films: Mapping[str, Size | None],
    desk: Desk,
    root: Path | None,
) -> Iterator[tuple[str, str, Annotated]]:
    """Film, words for messages, image; of several images for one film those that fit it best."""
    names, beside = Names(films), Beside(root) if root else None
    found: dict[str, list[tuple[int, str, Annotated]]] = {}
    for where, image, own in marked:
        meant, fit = names.find(image.name, suffix=image.suffix)
        if not meant and (shorter := names.without_prefix(image.name)):
            meant, fit = names.find(shorter, suffix=image.suffix)
            if len(meant) == 1:
                desk.note("prefix", f"{where} for {meant[0]}")
        if fit < WHOLE and beside and beside.is_other(image.name, meant):
            desk.note("unknown", f"{where}, which lies in {root} beside the films")
        elif len(meant) > 1:
            desk.note("ambiguous", f"{where} may be {meant[0]} or {meant[1]}")
        elif not meant:
            desk.note("unknown", where)
        else:
            if own and meant[0] not in ((named := names.find(own)[0]) or meant):
                desk.note("renamed", f"{own} for {meant[0]}, not {named[0]}")
            found.setdefault(meant[0], []).append((fit, where, image))
    for film, several in found.items():
        best = max(fit for fit, _, _ in several)
        for fit, where, _ in several:
            if fit < best:
                desk.note("unknown", where)
        same = [(where, image) for fit, where, image in several if fit == best]
        away = [where for where, image in same if names.differs(image.name, film, best)]
        for where in dict.fromkeys(away):
            desk.note("folders", f"{where} for {film}")
        if len(same) > 1:
            desk.note("twice", f"{film} by {same[0][0]} and {same[1][0]}", film)
        yield from ((film, where, image) for where, image in same)


def _note_folders(placed: Sequence[tuple[str, str, Annotated]], desk: Desk) -> None:
    """Say where masks lie in folders of which no film tells: one for each class, it may be."""
    folders = {foreign_folder(image.name, film) for film, _, image in placed}
    if len(folders) > 1:
        desk.note("classes", ", ".join(sorted(folder or "." for folder in folders)))


def _nothing(source: Path, kind: str, problems: list[Problem]) -> str:
    if not problems:
        return f"{source}: {kind}, but nothing is marked in it; export it again with the marks"
    first = min(problems, key=lambda problem: list(PROBLEMS).index(problem.kind))
    strange = first.kind in ("unknown", "ambiguous", "frame", "size")
    advice = "; check that the films are those of this data set" if strange else ""
    return (
        f"{source}: {kind}, but no mark can be used; {PROBLEMS[first.kind]}: {first.text}{advice}"
    )
