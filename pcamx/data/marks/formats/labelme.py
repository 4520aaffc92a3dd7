"""LabelMe: a json per image with "shapes" (github.com/wkentaro/labelme)."""

import base64
import io
import math
import posixpath
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from pcamx.data.marks.parse import image_size, number, objects, pair, points, word
from pcamx.data.marks.rle import Bits
from pcamx.data.marks.shapes import Annotated, Box, Mark, Polygon, Raster, Shape, by, ellipse
from pcamx.errors import PcamxError

_NO_AREA = ("point", "points", "line", "linestrip")


def fits(tree: Any) -> bool:
    """Whether this is LabelMe."""
    return isinstance(tree, dict) and "shapes" in tree


def read(tree: dict[str, Any], file: str) -> Iterator[Annotated]:
    """The image of the file. Raises PcamxError without the file."""
    path = word(tree.get("imagePath"), "imagePath").replace("\\", "/")
    name = posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
    size = image_size(tree.get("imageWidth"), tree.get("imageHeight"))
    marks, unread = [], []
    for count, item in enumerate(objects(tree, "shapes", "LabelMe"), 1):
        kind = item.get("shape_type") or "polygon"
        where = f"shape {count}"
        if kind in _NO_AREA:
            unread.append(f"{where}, a {kind}")
            continue
        try:
            shape = _shape(kind, item)
        except PcamxError as error:
            raise PcamxError(f"{where}: {error}") from None
        marks.append(Mark(f"{where} of {path}", str(item.get("label") or ""), shape))
    yield Annotated(name, size, tuple(marks), unread=tuple(unread))


def _shape(kind: str, item: dict[str, Any]) -> Shape:
    drawn = item.get("points")
    if kind in ("polygon", "oriented_rectangle"):
        return Polygon((points(drawn, f"a {kind}"),))
    if kind not in ("rectangle", "circle", "mask"):
        raise PcamxError(f"shape_type {kind!r} is not known; draw a polygon")
    if not isinstance(drawn, list) or len(drawn) != 2:
        raise PcamxError(f"a {kind} has two points; mend it")
    (x, y), (to_x, to_y) = (pair(point, f"a {kind}") for point in drawn)
    if kind == "circle":
        radius = number(math.hypot(to_x - x, to_y - y), "the radius")
        return ellipse(x, y, radius, radius)
    box = Box(min(x, to_x), min(y, to_y), max(x, to_x), max(y, to_y))
    return box if kind == "rectangle" else _mask(box, item.get("mask"))


def _mask(box: Box, encoded: Any) -> Shape:
    """The box's corners are the mask's first and last pixels."""
    left, top, right, bottom = map(math.floor, box.bounds())
    width, height = right - left + 1, bottom - top + 1
    text = word(encoded, "mask")
    return Raster(left, top, width, height, partial(_png, text, width, height))


def _png(text: str, width: int, height: int) -> Bits:
    try:
        with Image.open(io.BytesIO(base64.b64decode(text)), formats=["PNG"]) as image:
            if image.size != (width, height):
                raise PcamxError(
                    f"a mask of {by(image.size)} pixels in a box of {by((width, height))}; "
                    "draw it again"
                )
            return np.asarray(image.convert("L")) > 0
    except PcamxError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them
        raise PcamxError(f"the mask is no readable PNG ({error}); draw it again") from None
