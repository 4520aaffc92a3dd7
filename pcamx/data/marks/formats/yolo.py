"""YOLO: a txt per image, a line per lesion: class, then a box's centre and size, or a polygon.

All are shares of the image's width and height (docs.ultralytics.com, datasets/detect, segment).
The file says neither the image's size nor its suffix.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from pcamx.data.marks.annotated import Annotated, Draft, label_of
from pcamx.data.marks.parse import box, check_points, number, points, short
from pcamx.data.marks.shapes import Polygon, Shape
from pcamx.errors import PcamxError

_LAST_CLASS = 1_000_000
_SHARE = 2.0
"""A share may lie a little outside the image; what lies farther is given in pixels."""


def fits(tree: Any) -> bool:
    """Tell whether these are a YOLO file's lines: in one at least a class's number leads."""
    return isinstance(tree, list) and any(isinstance(one, str) and _leads(one) for one in tree)


def _leads(line: str) -> bool:
    first, *rest = line.split()
    return _class(first) is not None and bool(rest) and _float(rest[0]) is not None


def _class(text: str) -> str | None:
    """A class's number, also written with a point or an exponent, as numpy saves it."""
    value = _float(text)
    whole = value is not None and value.is_integer() and 0 <= value <= _LAST_CLASS
    return str(int(value or 0)) if whole else None


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def lines(content: str) -> list[str]:
    """Return the lines that are not blank."""
    return [line for line in content.splitlines() if line.strip()]


def read(tree: list[str], file: str) -> Iterator[Annotated]:
    """Return the image of the file. Raises PcamxError without the file."""
    draft = Draft()
    for count, line in enumerate(tree, 1):
        label, *fields = line.split()
        labels = label_of(_class(label))
        draft.take(f"line {count} of {file}", labels, partial(_shape, label, fields))
    yield draft.image(file, None, relative=True)


def _shape(label: str, fields: list[str]) -> Shape:
    if _class(label) is None:
        raise PcamxError(f"{short(label)} is no class's number; mend it")
    check_points(len(fields) // 2, "a polygon")
    values = [number(field, "a share of the image") for field in fields]
    if len(values) == 6 and fields[-1].isdigit() and _inside(*values[:4]):
        raise PcamxError(
            "6 numbers after the class, the last a whole one: a tracker's box with confidence and "
            "number, or a polygon; remove the two, or write the polygon's last with a point"
        )
    seen = fields[6::3]  # of a pose each point's third number
    if len(values) in range(10, 1000, 3) and _inside(*values[:4]) and {*seen} <= {"0", "1", "2"}:
        raise PcamxError(
            f"{len(values)} numbers after the class, every third behind the fourth 0, 1 or 2: a "
            "box with a pose's points, or a polygon; remove the points, or write the polygon's "
            "numbers with a point"
        )
    if any(abs(value) > _SHARE for value in values):
        raise PcamxError(f"{max(values, key=abs):g} is no share of the image; mend it")
    if len(values) == 4:
        x, y, width, height = values
        return box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    if len(values) < 6 or len(values) % 2:
        raise PcamxError(
            f"{len(values)} numbers after the class; a box has 4, a polygon 6, 8, ... "
            "(a fifth is the confidence of a prediction); mend it"
        )
    return Polygon((points(list(zip(values[::2], values[1::2], strict=True)), "a polygon"),))


def _inside(x: float, y: float, width: float, height: float) -> bool:
    """Whether a box with this centre lies within the image, but for rounding."""
    return all(
        size > 0 and -0.01 <= middle - size / 2 and middle + size / 2 <= 1.01
        for middle, size in ((x, width), (y, height))
    )
