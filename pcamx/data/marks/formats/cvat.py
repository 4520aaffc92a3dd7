"""CVAT for images 1.1: one xml (docs.cvat.ai, xml_format)."""

from collections.abc import Iterator
from functools import partial
from typing import Any
from xml.etree.ElementTree import Element

from pcamx.data.marks import rle
from pcamx.data.marks.annotated import Annotated, Draft, label_of, unreadable
from pcamx.data.marks.parse import box, image_size, number, points, whole, word
from pcamx.data.marks.shapes import A_NUMBER, Bits, Polygon, Raster, Shape, about_middle, ellipse
from pcamx.errors import PcamxError

_NO_AREA = ("polyline", "points", "skeleton")
_OF_THE_IMAGE = ("tag", "attribute")


def fits(tree: Any) -> bool:
    """Tell whether this is CVAT's own xml."""
    return isinstance(tree, Element) and tree.tag == "annotations"


def read(tree: Element, file: str) -> Iterator[Annotated]:
    """Return the images of the file. Raises PcamxError without the file."""
    del file
    if tree.find("track") is not None:
        raise PcamxError("CVAT for video; export the task as CVAT for images 1.1")
    for image in tree.iter("image"):
        name = word(image.get("name"), "the name of an image")
        draft = Draft()
        for count, item in enumerate(image, 1):
            where = f"{item.tag} {count} of {name}"
            if item.tag in _NO_AREA:
                draft.leave(where, "no area", "open")
            elif item.tag in _SHAPES:
                draft.take(where, label_of(item.get("label")), partial(_SHAPES[item.tag], item))
            elif item.tag not in _OF_THE_IMAGE:
                draft.leave(where, "not known; draw a polygon")
        try:
            size = image_size(image.get("width"), image.get("height"))
        except PcamxError as error:
            yield unreadable(PcamxError(f"{name}: {error}"))
            continue
        yield draft.image(name, size)


def _numbers(item: Element, names: tuple[str, ...]) -> list[float]:
    return [number(item.get(name), name) for name in names]


def _turn(item: Element) -> float:
    return number(item.get("rotation", "0"), "rotation")


def _box(item: Element) -> Shape:
    return about_middle(box(*_numbers(item, ("xtl", "ytl", "xbr", "ybr"))), _turn(item))


def _polygon(item: Element) -> Shape:
    pairs = [point.split(",") for point in item.get("points", "").split(";") if point.strip()]
    return Polygon((points(pairs, "a polygon"),))


def _ellipse(item: Element) -> Shape:
    x, y, across, down = _numbers(item, ("cx", "cy", "rx", "ry"))
    return ellipse(x, y, across, down, _turn(item))


def _mask(item: Element) -> Shape:
    left, top, width, height = (whole(item.get(n), n) for n in ("left", "top", "width", "height"))
    runs = item.get("rle", "").split(",")
    effort = A_NUMBER * len(runs)
    return Raster(left, top, width, height, partial(_pixels, runs, width, height), effort)


def _pixels(runs: list[str], width: int, height: int) -> Bits:
    counts = [whole(run, "a run length") for run in runs]
    return rle.expand(counts, width, height, columns=False)


_SHAPES = {"box": _box, "polygon": _polygon, "ellipse": _ellipse, "mask": _mask}
