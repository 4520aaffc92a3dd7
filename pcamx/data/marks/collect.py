"""Marks meet films: which film each annotated image is, and which of its marks can be used.

Shapes: H W the upright film.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pcamx.data.marks.formats.detect import open_marks
from pcamx.data.marks.names import Names
from pcamx.data.marks.parse import line
from pcamx.data.marks.shapes import Annotated, Box, Mark, Mask, Polygon, Size, by, draw
from pcamx.errors import PcamxError

MakeMask = Callable[[], Mask]
_SLACK = 1.0  # pixels over the border that are rounding
PROBLEMS = {
    "unknown": "images that are not films of this data set, not used",
    "ambiguous": "images that may be several films, not used; name them by the whole path",
    "frame": "images marked before the EXIF rotation (width and height swapped), not used",
    "size": "images marked at another size than the film's, not used",
    "outside": "marks outside the film, not used",
    "cut": "marks partly outside the film, cut at its border",
    "empty": "marks without any area, not used",
    "open": "points and lines, which have no area, not used",
    "twice": "films that several images stand for, their marks put together",
}
"""What may be wrong with marks that can be read."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something to look at."""

    kind: str
    """A key of PROBLEMS."""
    text: str
    """Which image or mark, and why."""
    film: str = ""
    """Of one whose marks are used all the same."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What a person's marks are, film by film."""

    kind: str
    """The format's name."""
    of: dict[str, tuple[Mark, ...]]
    """Film > the marks that can be used; none for a film that cannot be."""
    masks: dict[str, MakeMask | None]
    """Film > what makes its uint8 mask [H, W] of 0 and 255; None for one that cannot be used.

    Made when called for, since those of a large set would not fit into memory. A mask may be
    empty. Raises PcamxError where the pixels of a mark cannot be had.
    """
    unmarked: int
    """Images that the file holds without a mark."""
    unsized: tuple[str, ...]
    """Films whose marks come without the image's size, so that the frame is taken on trust."""
    problems: tuple[Problem, ...]

    def shapes(self) -> Counter[str]:
        """How many marks of which shape are used."""
        return Counter(mark.shape.kind for marks in self.of.values() for mark in marks)

    def notes(self) -> list[str]:
        """What a person should know before the marks are used, a line each."""
        boxes = self.shapes()[Box.kind]
        notes = [f"boxes taken as filled rectangles: {boxes}"] if boxes else []
        for kind, words in PROBLEMS.items():
            found = [problem.text for problem in self.problems if problem.kind == kind]
            if found:
                more = f" and {len(found) - 1} more" if len(found) > 1 else ""
                notes.append(f"{len(found)} {words}: {found[0]}{more}")
        return notes


@dataclass(slots=True)
class _Desk:
    """Where images are sorted to films."""

    films: Mapping[str, Size | None]
    problems: list[Problem] = field(default_factory=list)

    def note(self, kind: str, text: str, film: str = "") -> None:
        self.problems.append(Problem(kind, line(text), film))


def read_marks(source: Path, films: Mapping[str, Size | None]) -> Marks:
    """The marks of ``source``, a file or folder of any known kind, on the films they mean.

    ``films`` gives each film's upright size, None for one that cannot be used. What is damaged
    raises PcamxError with the file and the item; what cannot be used is a problem, and so is a
    size that tells of marks drawn before the EXIF rotation. PcamxError, too, if nothing is left.
    """
    kind, images = open_marks(source)
    desk = _Desk(films)
    marked: list[tuple[str, Annotated]] = []
    unmarked = 0
    for file, image in images:
        where = _where(file, source, image)
        for item in image.unread:
            desk.note("open", f"{where}: {item}")
        if image.marks:
            marked.append((where, image))
        elif not image.unread:
            unmarked += 1
    of: dict[str, tuple[Mark, ...]] = {}
    unsized: list[str] = []
    for film, where, image in _placed(marked, desk):
        size = films[film]
        if size is None:
            of.setdefault(film, ())
        elif _fits(image, size, film, where, desk):
            if marks := tuple(_usable(image, film, size, desk)):
                of[film] = of.get(film, ()) + marks
            if image.size is None:
                unsized.append(film)
    if not of:
        raise PcamxError(_nothing(source, kind, desk.problems))
    masks = {film: _mask(source, marks, films[film]) for film, marks in of.items()}
    return Marks(kind, of, masks, unmarked, tuple(unsized), tuple(desk.problems))


def _where(file: Path, source: Path, image: Annotated) -> str:
    """The image, and the file where there are many, unless one is named like the other."""
    if file == source or Path(image.name).stem == file.stem:
        return image.name
    return f"{image.name} ({file.relative_to(source)})"


def _mask(source: Path, marks: tuple[Mark, ...], size: Size | None) -> MakeMask | None:
    return partial(_draw, source, marks, size) if size else None


def _draw(source: Path, marks: tuple[Mark, ...], size: Size) -> Mask:
    try:
        return draw(marks, size)
    except PcamxError as error:
        raise PcamxError(f"{source}: {line(error)}") from None


def _placed(
    marked: list[tuple[str, Annotated]], desk: _Desk
) -> Iterator[tuple[str, str, Annotated]]:
    """Film, words for messages, image; of several images for one film those that fit it best."""
    names = Names(desk.films)
    found: dict[str, list[tuple[int, str, Annotated]]] = {}
    for where, image in marked:
        films, fit = names.find(image.name, suffix=image.suffix)
        if len(films) > 1:
            desk.note("ambiguous", f"{where} may be {films[0]} or {films[1]}")
        elif not films:
            desk.note("unknown", where)
        else:
            found.setdefault(films[0], []).append((fit, where, image))
    for film, several in found.items():
        best = max(fit for fit, _, _ in several)
        for fit, where, _ in several:
            if fit < best:
                desk.note("unknown", where)
        same = [(where, image) for fit, where, image in several if fit == best]
        if len(same) > 1:
            desk.note("twice", f"{film} by {same[0][0]} and {same[1][0]}", film)
        yield from ((film, where, image) for where, image in same)


def _fits(image: Annotated, size: Size, film: str, where: str, desk: _Desk) -> bool:
    """Whether the marks were drawn on the upright film at its own size, as far as it is said."""
    if image.size in (None, size):
        return True
    swapped = image.size == size[::-1]
    text = f"{where} is {by(image.size or size)} there, the upright film {film} has {by(size)}"
    desk.note("frame" if swapped else "size", text)
    return False


def _usable(image: Annotated, film: str, size: Size, desk: _Desk) -> Iterator[Mark]:
    for mark in image.marks:
        if image.relative and isinstance(mark.shape, Box | Polygon):
            mark = replace(mark, shape=mark.shape.scaled(*size))
        left, top, right, bottom = mark.shape.bounds()
        reach = max(-left, -top, right - size[0], bottom - size[1])
        if left >= size[0] or top >= size[1] or right <= 0 or bottom <= 0:
            desk.note("outside", f"{mark.where}, a film of {by(size)}")
        elif not isinstance(mark.shape, Polygon) and (left == right or top == bottom):
            desk.note("empty", mark.where)
        else:
            if reach > _SLACK:
                desk.note("cut", f"{mark.where}, {reach:.0f} pixels of it", film)
            yield mark


def _nothing(source: Path, kind: str, problems: list[Problem]) -> str:
    if not problems:
        return f"{source}: {kind}, but nothing is marked in it; export it again with the marks"
    first = problems[0]
    return (
        f"{source}: {kind}, but no mark can be used; {PROBLEMS[first.kind]}: {first.text}; "
        "check that the films are those of this data set"
    )
