"""COCO: one json with "images" and "annotations" (cocodataset.org, format-data).

A mark is a segmentation (polygons, or run lengths as a list or as text), or a box where there is
none. CVAT writes a turned box as it was before the turn, and the turn beside it as
`attributes.rotation`, in degrees clockwise about the box's middle.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any

from pcamx.data.marks import rle
from pcamx.data.marks.annotated import Annotated, Draft, Remark, label_of
from pcamx.data.marks.parse import box, image_size, number, objects, points, short, word
from pcamx.data.marks.shapes import (
    A_NUMBER,
    Bits,
    Points,
    Polygon,
    Raster,
    Shape,
    Size,
    about_middle,
    by,
)
from pcamx.errors import PcamxError

_PLAIN = re.compile(r"0|[1-9][0-9]{0,17}")
"""A whole number as text, written as it always is: 007 is another name than 7."""


def fits(tree: Any) -> bool:
    """Tell whether this is COCO."""
    return isinstance(tree, dict) and {"images", "annotations"} <= set(tree)


def read(tree: Any, file: str) -> Iterator[Annotated]:
    """Return the images of the file. Raises PcamxError without the file."""
    del file
    images = _images(tree)
    labels = _categories(tree)
    drafts: dict[Any, Draft] = defaultdict(Draft)
    for item in objects(tree, "annotations", "COCO"):
        key = _key(item.get("image_id"))
        where = f"annotation {short(item.get('id'))}"
        if key is None or key not in images:
            why = f"image_id {short(item.get('image_id'))} is not among the images"
            yield Annotated("", remarks=(Remark("damaged", f"{where}: {why}"),))
            continue
        name, size = images[key]
        category = item.get("category_id")
        called = labels.get(_key(category), ()) or label_of(category)
        _take(item, f"{where} of {name}", size, called, drafts[key])
    for key, (name, size) in images.items():
        yield drafts[key].image(name, size)


def _key(value: Any) -> int | str | None:
    """An id as it is compared: 1.0 and "1" are 1, as tables make them; None for what is none."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return int(value)
    return value if isinstance(value, int | str) else None


def _images(tree: Any) -> dict[Any, tuple[str, Size | None]]:
    """Key > name and size. Two of one key raise: their marks could be either's."""
    images: dict[Any, tuple[str, Size | None]] = {}
    for image in objects(tree, "images", "COCO"):
        key = _key(image.get("id"))
        if key is None:
            shown = short(image.get("id"))
            raise PcamxError(f"image id {shown} is neither number nor text; export the marks again")
        if key in images:
            raise PcamxError(f"image id {key} is given twice; export the marks again")
        name = word(image.get("file_name"), f"file_name of {key}")
        images[key] = name, image_size(image.get("width"), image.get("height"))
    return images


def _categories(tree: Any) -> dict[Any, tuple[str, ...]]:
    """Key > name. Two names of one key raise, as of images."""
    labels: dict[Any, tuple[str, ...]] = {}
    for item in objects(tree, "categories", "COCO") if "categories" in tree else []:
        key, name = _key(item.get("id")), label_of(item.get("name"))
        if key is not None and labels.setdefault(key, name) != name:
            raise PcamxError(f"category id {key} is given to two names; export the marks again")
    return labels


def _take(
    item: dict[str, Any], where: str, size: Size | None, labels: tuple[str, ...], draft: Draft
) -> None:
    """Add one annotation to ``draft``, of several polygons those that can be read."""
    drawn = item.get("segmentation")
    if isinstance(drawn, dict):
        return draft.take(where, labels, partial(_runs, drawn, size))
    rings = _rings(drawn)
    if rings is None:
        return draft.leave(where, "segmentation is neither polygons nor run lengths; mend it")
    if not rings and not item.get("bbox") and item.get("keypoints"):
        return draft.leave(where, "keypoints", "open")
    if not rings:
        return draft.take(where, labels, partial(_box, item))
    sound = []
    for count, ring in enumerate(rings, 1):
        try:
            sound.append(_ring(ring))
        except PcamxError as error:
            draft.leave(f"{where}, polygon {count}" if len(rings) > 1 else where, str(error))
    if sound:
        draft.take(where, labels, partial(Polygon, tuple(sound)))


def _rings(drawn: Any) -> list[Any] | None:
    """The polygons that are not empty, also of one that stands in no list; None for others."""
    if not drawn:
        return []
    if not isinstance(drawn, list):
        return None
    flat = not any(isinstance(ring, list) for ring in drawn)
    return [drawn] if flat else [ring for ring in drawn if ring != []]


def _ring(flat: Any) -> Points:
    if not isinstance(flat, list) or len(flat) % 2:
        raise PcamxError("a polygon is at least three pairs x, y in one list; mend it")
    return points(list(zip(flat[::2], flat[1::2], strict=True)), "a polygon")


def _box(item: dict[str, Any]) -> Shape:
    edges, said = item.get("bbox"), item.get("attributes")
    if not isinstance(edges, list) or len(edges) != 4:
        raise PcamxError("neither a segmentation nor a bbox of four numbers; draw it again")
    left, top, width, height = (number(edge, "bbox") for edge in edges)
    turn = said.get("rotation") if isinstance(said, dict) else None
    drawn = box(left, top, left + width, top + height)
    return about_middle(drawn, number(turn, "attributes.rotation") if turn is not None else 0.0)


def _runs(drawn: dict[str, Any], size: Size | None) -> Shape:
    counts, claim = drawn.get("counts"), drawn.get("size")
    if not isinstance(claim, list) or len(claim) != 2:
        raise PcamxError("a run-length mask lacks its size [height, width]; export it again")
    theirs = image_size(claim[1], claim[0]) or (0, 0)
    if theirs != (size or theirs):
        raise PcamxError(
            f"a run-length mask of {by(theirs)} pixels on an image of {by(size or theirs)}; "
            "export it again"
        )
    if not isinstance(counts, str | list):
        raise PcamxError("a run-length mask lacks its counts; export it again")
    effort = A_NUMBER * len(counts)
    return Raster(0, 0, *theirs, partial(_pixels, counts, *theirs), effort)


def _pixels(counts: str | list[int], width: int, height: int) -> Bits:
    numbers = rle.coco_counts(counts) if isinstance(counts, str) else counts
    return rle.expand(numbers, width, height, columns=True)
