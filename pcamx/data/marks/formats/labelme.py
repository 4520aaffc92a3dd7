"""LabelMe: a json per image with "shapes" (github.com/wkentaro/labelme)."""

import math
import posixpath
from collections.abc import Iterator
from functools import partial
from typing import Any

from pcamx.data.marks.annotated import Annotated, Draft, label_of
from pcamx.data.marks.formats.predictions import LABELME_VERSION
from pcamx.data.marks.mask_pixels import embedded
from pcamx.data.marks.parse import image_size, number, objects, pair, points, word
from pcamx.data.marks.shapes import Box, Points, Polygon, Raster, Shape, ellipse
from pcamx.errors import PcamxError
from pcamx.output import counted

_NO_AREA = ("point", "points", "line", "linestrip")
_CORNERS = ("polygon", "oriented_rectangle", "rotation", "quadrilateral")
"""What is drawn corner by corner; the last two are X-AnyLabeling's."""


def fits(tree: Any) -> bool:
    """Tell whether this is LabelMe."""
    return isinstance(tree, dict) and "shapes" in tree


def read(tree: dict[str, Any], file: str) -> Iterator[Annotated]:
    """Return the image of the file. Raises PcamxError without the file."""
    path = word(tree.get("imagePath"), "imagePath").replace("\\", "/")
    name = posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
    size = image_size(tree.get("imageWidth"), tree.get("imageHeight"))
    draft = Draft()
    if tree.get("version") == LABELME_VERSION:  # not saved: nobody has said that it is right
        if shapes := objects(tree, "shapes", "LabelMe"):
            draft.leave(path, counted(len(shapes), "candidate"), "unsaved")
        yield draft.image(name, size)
        return
    for count, item in enumerate(objects(tree, "shapes", "LabelMe"), 1):
        kind = item.get("shape_type") or "polygon"
        where = f"shape {count} of {path}"
        if kind in _NO_AREA:
            draft.leave(where, f"a {kind}", "open")
        else:
            draft.take(where, label_of(item.get("label")), partial(_shape, kind, item))
    yield draft.image(name, size)


def _shape(kind: str, item: dict[str, Any]) -> Shape:
    drawn = item.get("points")
    if kind in _CORNERS:
        return Polygon((points(drawn, f"a {kind}"),))
    if kind not in ("rectangle", "circle", "mask"):
        raise PcamxError(f"shape_type {kind!r} is not known; draw a polygon")
    if kind == "rectangle" and isinstance(drawn, list) and len(drawn) == 4:
        return _of_corners(points(drawn, "a rectangle"))
    if not isinstance(drawn, list) or len(drawn) != 2:
        number_of = "two or four points" if kind == "rectangle" else "two points"
        raise PcamxError(f"a {kind} has {number_of}; mend it")
    (x, y), (to_x, to_y) = (pair(point, f"a {kind}") for point in drawn)
    if kind == "circle":
        radius = number(math.hypot(to_x - x, to_y - y), "the radius")
        return ellipse(x, y, radius, radius)
    box = Box(min(x, to_x), min(y, to_y), max(x, to_x), max(y, to_y))
    return box if kind == "rectangle" else _mask(box, item.get("mask"))


def _of_corners(corners: Points) -> Shape:
    """A box where the four corners are an upright rectangle's, else the polygon that they make."""
    xs, ys = zip(*corners, strict=True)
    box = Box(min(xs), min(ys), max(xs), max(ys))
    upright = {(x, y) for x in (box.left, box.right) for y in (box.top, box.bottom)}
    if set(corners) == upright:
        return box
    x, y = sum(xs) / 4, sum(ys) / 4  # in whatever order they stand
    around = sorted(corners, key=lambda corner: math.atan2(corner[1] - y, corner[0] - x))
    return Polygon((tuple(around),))


def _mask(box: Box, encoded: Any) -> Shape:
    """The box's corners are the mask's first and last pixels."""
    left, top, right, bottom = map(math.floor, box.bounds())
    size = right - left + 1, bottom - top + 1
    return Raster(left, top, *size, partial(embedded, word(encoded, "mask"), size))
