"""Pascal VOC: an xml of boxes per image, as LabelImg and many others write it.

Also the turned boxes of roLabelImg (an angle in radians, clockwise) and of CVAT (as they were
before the turn, and an attribute `rotation` in degrees, clockwise), and the polygons that Roboflow
and the first LabelMe write there.

Edges are taken as continuous coordinates from 0, which is how today's tools write them; the
challenge's own files counted pixels from 1, which would shift a box by one pixel at most.
"""

import math
import posixpath
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any
from xml.etree.ElementTree import Element

from pcamx.data.marks.annotated import Annotated, Draft, label_of
from pcamx.data.marks.parse import box, image_size, number, points, word
from pcamx.data.marks.shapes import Polygon, Shape, about_middle, rectangle
from pcamx.errors import PcamxError


def fits(tree: Any) -> bool:
    """Tell whether this is Pascal VOC."""
    return isinstance(tree, Element) and tree.tag == "annotation"


def read(tree: Element, file: str) -> Iterator[Annotated]:
    """Return the image of the file. Raises PcamxError without the file."""
    name = word(tree.findtext("filename"), "filename")
    path = (tree.findtext("path") or "").strip().replace("\\", "/")
    # The whole path tells apart what has one name; where it is another file's, it is a leftover.
    whole = path if posixpath.basename(path) == name else posixpath.join(*_folder(file), name)
    size = image_size(tree.findtext("size/width"), tree.findtext("size/height"))
    draft = Draft()
    for count, item in enumerate(tree.iter("object"), 1):
        if item.findtext("deleted") == "1":
            continue  # the first LabelMe keeps what was deleted
        label, where = label_of(item.findtext("name")), f"object {count} of {name}"
        for shape in _shapes(item) or [item]:
            draft.take(where, label, partial(_shape, item, shape))
    yield draft.image(whole, size)


def _folder(file: str) -> tuple[str, ...]:
    return tuple(filter(None, (posixpath.dirname(file),)))


def _shapes(item: Element) -> list[Element]:
    """What is drawn of an object, mostly one: its polygons, else its turned boxes, else boxes."""
    polygons = [polygon for polygon in item.findall("polygon") if len(polygon)]
    return polygons or item.findall("robndbox") or item.findall("bndbox")


def _shape(item: Element, shape: Element) -> Shape:
    if shape.tag == "polygon":
        return Polygon((points(_corners(shape), "a polygon"),))
    if shape.tag == "robndbox":
        x, y, width, height, angle = _numbers(shape, ("cx", "cy", "w", "h", "angle"))
        drawn = box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return rectangle(drawn, math.degrees(angle), (x, y))
    if shape.tag != "bndbox":
        raise PcamxError("no bndbox; draw it again")
    drawn = box(*_numbers(shape, ("xmin", "ymin", "xmax", "ymax")))
    attributes = item.iterfind("attributes/attribute")
    turns = (one.findtext("value") for one in attributes if one.findtext("name") == "rotation")
    return about_middle(drawn, number(next(turns, "0"), "rotation"))


def _corners(polygon: Element) -> list[tuple[str | None, str | None]]:
    """The corners of a polygon, given as pt elements of x and y, or as x1, y1, x2, ..."""
    if polygon.find("pt") is not None:
        return [(pt.findtext("x"), pt.findtext("y")) for pt in polygon.iter("pt")]
    count = sum(child.tag[:1] == "x" for child in polygon)
    return [(polygon.findtext(f"x{k}"), polygon.findtext(f"y{k}")) for k in range(1, count + 1)]


def _numbers(item: Element, names: Sequence[str]) -> list[float]:
    return [number(item.findtext(name), name) for name in names]
