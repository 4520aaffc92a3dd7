"""Which marks of an image can be used on the film that it shows."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pcamx.data.marks import classes
from pcamx.data.marks.annotated import Annotated, Mark
from pcamx.data.marks.problems import Desk
from pcamx.data.marks.shapes import Bitmap, Drawable, Polygon, Raster, Size, by
from pcamx.data.marks.work import Work
from pcamx.errors import PcamxError

_SLACK = 1.0  # pixels over the border that are rounding


@dataclass(frozen=True, slots=True)
class Drawn:
    """A mark that can be used."""

    labels: tuple[str, ...]
    """Its classes, none where the tool gives none."""
    shape: Drawable


_TRANSPOSED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


def is_frame_told(turn: int, size: Size, sized: bool) -> bool:
    """Tell whether it is known that marks were drawn on the upright film, of ``size``.

    ``turn`` is the film's EXIF orientation; ``sized``: the marks come with the image's size, which
    `fits` has compared.
    """
    return turn == 1 or (turn in _TRANSPOSED and sized and size[0] != size[1])


def fits(image: Annotated, size: Size, film: str, where: str, desk: Desk) -> bool:
    """Tell whether the marks were drawn on the upright film at its own size, as far as is said."""
    if image.size in (None, size):
        return True
    swapped = image.size == size[::-1]
    text = f"{where} is {by(image.size or size)} there, the upright film {film} has {by(size)}"
    desk.note("frame" if swapped else "size", text)
    return False


def usable(image: Annotated, film: str, size: Size, desk: Desk, work: Work) -> Iterator[Drawn]:
    """Return the image's marks that lie on the film, of ``size``, with some area.

    Of very many or very intricate ones those for which ``work`` has room.
    """
    for mark in image.marks:
        labels = tuple(dict.fromkeys(map(classes.class_name, mark.labels)))
        given = mark.shape
        if image.relative and not isinstance(given, Raster):
            given = given.scaled(*size)
        if not work.has_room(film, given, size):
            desk.note("heavy", f"{mark.where}, film {film}")
            continue
        for drawn in _decoded(replace(mark, shape=given), labels, film, size, desk):
            shape = drawn.shape
            left, top, right, bottom = shape.bounds()
            reach = max(-left, -top, right - size[0], bottom - size[1])
            if not isinstance(shape, Bitmap) and 0 <= min(left, top) and max(right, bottom) <= 1:
                desk.note("shares", mark.where)
                continue
            flat = not isinstance(shape, Polygon) and (left == right or top == bottom)
            if flat and not image.suffix:
                yield drawn  # a mask image may be empty
            elif flat:
                desk.note("empty", mark.where)
            elif left >= size[0] or top >= size[1] or right <= 0 or bottom <= 0:
                desk.note("outside", f"{mark.where}, a film of {by(size)}")
            else:
                if reach > _SLACK:
                    desk.note("cut", f"{mark.where}, {reach:.0f} pixels of it", film)
                yield drawn


def _decoded(
    mark: Mark, labels: tuple[str, ...], film: str, size: Size, desk: Desk
) -> Iterator[Drawn]:
    """The mark in pixels of the film; one of pixels by their classes, if they have any."""
    if not isinstance(mark.shape, Raster):
        yield Drawn(labels, mark.shape)
        return
    try:
        layers, remark = mark.shape.decoded(size)
    except PcamxError as error:
        desk.note("damaged", f"{mark.where}: {error}")
        return
    if remark:
        desk.note("greys", f"{mark.where} ({remark})", film)
    if any(bitmap.is_ground(size) for bitmap in layers.values()):
        desk.note("ground", f"{mark.where}, film {film}", film)
    for name, bitmap in layers.items():
        yield Drawn((name,) if name else labels, bitmap)
