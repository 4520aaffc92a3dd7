"""YOLO: a txt per image, a line per lesion: class, then a box's centre and size, or a polygon.

All are shares of the image's width and height (docs.ultralytics.com, datasets/detect, segment).
The file says neither the image's size nor its suffix.
"""

from collections.abc import Iterator
from typing import Any

from pcamx.data.marks.parse import box, number, points
from pcamx.data.marks.shapes import Annotated, Mark, Polygon, Shape
from pcamx.errors import PcamxError

_SHARE = 2.0
"""A share may lie a little outside the image; what lies farther is given in pixels."""


def fits(tree: Any) -> bool:
    """Whether these are the lines of a YOLO file: a class's number leads."""
    return isinstance(tree, list) and bool(tree) and isinstance(tree[0], str) and _leads(tree[0])


def _leads(line: str) -> bool:
    first, *rest = line.split()
    return bool(rest) and first.isdecimal()


def lines(content: str) -> list[str]:
    """The lines that are not blank."""
    return [line for line in content.splitlines() if line.strip()]


def read(tree: list[str], file: str) -> Iterator[Annotated]:
    """The image of the file. Raises PcamxError without the file."""
    marks = []
    for count, line in enumerate(tree, 1):
        where = f"line {count}"
        label, *fields = line.split()
        values = [number(field, where) for field in fields]
        if any(abs(value) > _SHARE for value in values):
            raise PcamxError(f"{where}: {max(values, key=abs):g} is no share of the image; mend it")
        try:
            marks.append(Mark(f"{where} of {file}", label, _shape(values)))
        except PcamxError as error:
            raise PcamxError(f"{where}: {error}") from None
    yield Annotated(file, None, tuple(marks), relative=True)


def _shape(values: list[float]) -> Shape:
    if len(values) == 4:
        x, y, width, height = values
        return box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    if len(values) < 6 or len(values) % 2:
        raise PcamxError(
            f"{len(values)} numbers after the class; a box has 4, a polygon 6, 8, ...; mend it"
        )
    return Polygon((points(list(zip(values[::2], values[1::2], strict=True)), "a polygon"),))
