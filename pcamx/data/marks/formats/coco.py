"""COCO: one json with "images" and "annotations" (cocodataset.org, format-data).

A mark is a segmentation (polygons, or run lengths as a list or as text), or a box where there is
none.
"""

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any

from pcamx.data.marks import rle
from pcamx.data.marks.parse import box, image_size, number, objects, points, word
from pcamx.data.marks.shapes import Annotated, Mark, Polygon, Raster, Shape, Size, by
from pcamx.errors import PcamxError


def fits(tree: Any) -> bool:
    """Whether this is COCO."""
    return isinstance(tree, dict) and {"images", "annotations"} <= set(tree)


def read(tree: Any, file: str) -> Iterator[Annotated]:
    """The images of the file. Raises PcamxError without the file."""
    del file
    images = _images(tree)
    labels = {item.get("id"): item.get("name") for item in _categories(tree)}
    drawn: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for item in objects(tree, "annotations", "COCO"):
        key = item.get("image_id")
        if not isinstance(key, int | str) or key not in images:
            raise PcamxError(
                f"annotation {item.get('id')!r}: image_id {key!r} is not among the images; mend it"
            )
        drawn[key].append(item)
    for key, image in images.items():
        name, size = image["file_name"], image_size(image.get("width"), image.get("height"))
        marks = tuple(_mark(item, name, size, labels) for item in drawn[key])
        yield Annotated(name, size, marks)


def _categories(tree: dict[str, Any]) -> list[dict[str, Any]]:
    items = objects(tree, "categories", "COCO") if "categories" in tree else []
    return [item for item in items if isinstance(item.get("id"), int | str)]


def _images(tree: Any) -> dict[Any, dict[str, Any]]:
    images: dict[Any, dict[str, Any]] = {}
    for image in objects(tree, "images", "COCO"):
        key = image.get("id")
        if not isinstance(key, int | str):
            raise PcamxError(f"image id {key!r} is neither number nor text; export the marks again")
        if key in images:
            raise PcamxError(f"image id {key} is given twice; export the marks again")
        images[key] = image | {"file_name": word(image.get("file_name"), f"file_name of {key}")}
    return images


def _mark(item: dict[str, Any], name: str, size: Size | None, labels: dict[Any, Any]) -> Mark:
    where = f"annotation {item.get('id')!r} of {name}"
    try:
        category = item.get("category_id")
        label = labels.get(category) if isinstance(category, int | str) else None
        return Mark(where, str(label or ""), _shape(item, size))
    except PcamxError as error:
        raise PcamxError(f"{where}: {error}") from None


def _shape(item: dict[str, Any], size: Size | None) -> Shape:
    drawn = item.get("segmentation")
    if isinstance(drawn, dict):
        return _runs(drawn, size)
    if not drawn:
        return _box(item.get("bbox"))
    if not isinstance(drawn, list):
        raise PcamxError("segmentation is neither polygons nor run lengths; export it again")
    return Polygon(tuple(_ring(ring) for ring in drawn))


def _ring(flat: Any) -> tuple[tuple[float, float], ...]:
    if not isinstance(flat, list) or len(flat) % 2:
        raise PcamxError("a polygon is at least three pairs x, y in one list; mend it")
    return points(list(zip(flat[::2], flat[1::2], strict=True)), "a polygon")


def _box(edges: Any) -> Shape:
    if not isinstance(edges, list) or len(edges) != 4:
        raise PcamxError("neither a segmentation nor a bbox of four numbers; draw it again")
    left, top, width, height = (number(edge, "bbox") for edge in edges)
    return box(left, top, left + width, top + height)


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
    return Raster(0, 0, *theirs, partial(_pixels, counts, *theirs))


def _pixels(counts: str | list[int], width: int, height: int) -> rle.Bits:
    numbers = rle.coco_counts(counts) if isinstance(counts, str) else counts
    return rle.expand(numbers, width, height, columns=True)
