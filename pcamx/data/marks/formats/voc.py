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
        label = label_of(item.findtext("name"))
        draft.take(f"object {count} of {name}", label, partial(_shape, item))
    yield draft.image(whole, size)


def _folder(file: str) -> tuple[str, ...]:
    return tuple(filter(None, (posixpath.dirname(file),)))


def _shape(item: Element) -> Shape:
    polygon, turned = item.find("polygon"), item.find("robndbox")
    if polygon is not None and len(polygon):
        return Polygon((points(_corners(polygon), "a polygon"),))
    if turned is not None:
        x, y, width, height, angle = _numbers(turned, ("cx", "cy", "w", "h", "angle"))
        drawn = box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return rectangle(drawn, math.degrees(angle), (x, y))
    edges = item.find("bndbox")
    if edges is None:
        raise PcamxError("no bndbox; draw it again")
    drawn = box(*_numbers(edges, ("xmin", "ymin", "xmax", "ymax")))
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
