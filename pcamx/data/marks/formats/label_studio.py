"""Label Studio: the JSON export, one list of tasks (labelstud.io, guide/task_format).

Coordinates are per cent of the image. All annotations of a task count, but for the cancelled;
predictions do not.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pcamx.data.marks.parse import box, image_size, number, objects, points
from pcamx.data.marks.rle import label_studio_brush
from pcamx.data.marks.shapes import (
    Annotated,
    Mark,
    Polygon,
    Raster,
    Shape,
    Size,
    ellipse,
    rectangle,
)
from pcamx.errors import PcamxError

_IMAGES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".webp"}
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded file."""


def fits(tree: Any) -> bool:
    """Whether these are Label Studio's tasks."""
    return isinstance(tree, list) and bool(tree) and isinstance(tree[0], dict) and "data" in tree[0]


def read(tree: list[dict[str, Any]], file: str) -> Iterator[Annotated]:
    """The images of the file. Raises PcamxError without the file."""
    del file
    for task in tree:
        where = f"task {task.get('id')!r}" if isinstance(task, dict) else "a task"
        try:
            yield _task(task, where)
        except PcamxError as error:
            raise PcamxError(f"{where}: {error}") from None


def _task(task: Any, where: str) -> Annotated:
    name = image_name(task)
    marks: list[Mark] = []
    unread: list[str] = []
    sizes: set[Size] = set()
    for annotation in objects(task, "annotations", "Label Studio's JSON export"):
        if annotation.get("was_cancelled"):
            continue
        for count, item in enumerate(objects(annotation, "result", "an annotation"), 1):
            kind, value = item.get("type"), item.get("value")
            if not isinstance(kind, str) or not isinstance(value, dict) or not _is_drawn(value):
                continue  # a choice or a text about the image, not a region of it
            kind = kind.removesuffix("labels")
            if kind not in _SHAPES:
                unread.append(f"region {count}, a {kind}")
                continue
            shape, size = _region(kind, item, value, count)
            labels = value.get(f"{kind}labels")
            label = str(labels[0]) if isinstance(labels, list) and labels else ""
            marks.append(Mark(f"{where}, region {count}", label, shape))
            sizes.add(size)
    if len(sizes) > 1:
        raise PcamxError("its regions name images of different sizes; export the marks again")
    return Annotated(name, next(iter(sizes), None), tuple(marks), unread=tuple(unread))


def image_name(task: Any) -> str:
    """The path of a task's image, from its address.

    Local files are `/data/local-files/?d=path`, uploads `/data/upload/1/1a2b3c4d-name`.
    """
    data = task.get("data") if isinstance(task, dict) else None
    texts = {k: v for k, v in data.items() if isinstance(v, str)} if isinstance(data, dict) else {}
    found = {k: path for k, v in texts.items() if PurePosixPath(path := _path(v)).suffix}
    images = {k: p for k, p in found.items() if PurePosixPath(p).suffix.lower() in _IMAGES}
    if "image" not in images and len(images) != 1:
        raise PcamxError("its data name no image, or several; name the one marked `image`")
    return images["image"] if "image" in images else next(iter(images.values()))


def _path(address: str) -> str:
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    local = parse_qs(parts.query).get("d")
    if local:
        return local[0]
    if not parts.scheme and not parts.path.startswith("/data/"):
        return address
    folder, _, name = unquote(parts.path).rpartition("/")
    return (
        f"{folder}/{_UPLOAD.sub('', name)}"
        if folder.startswith("/data/upload")
        else unquote(parts.path)
    )


def _is_drawn(value: dict[str, Any]) -> bool:
    return bool({"x", "points", "vertices", "rle", "imageDataURL"} & set(value))


def _region(
    kind: str, item: dict[str, Any], value: dict[str, Any], count: int
) -> tuple[Shape, Size]:
    try:
        if item.get("image_rotation"):
            raise PcamxError("drawn on an image turned in Label Studio; draw it on the upright one")
        size = image_size(item.get("original_width"), item.get("original_height"))
        if size is None:
            raise PcamxError("lacks original_width and original_height; export the marks again")
        return _SHAPES[kind](value, size), size
    except PcamxError as error:
        raise PcamxError(f"region {count}: {error}") from None


def _numbers(value: dict[str, Any], names: Sequence[str]) -> list[float]:
    return [number(value.get(name), name) for name in names]


def _rectangle(value: dict[str, Any], size: Size) -> Shape:
    x, y, width, height = _numbers(value, ("x", "y", "width", "height"))
    drawn = box(x, y, x + width, y + height).scaled(size[0] / 100, size[1] / 100)
    return rectangle(drawn, number(value.get("rotation", 0), "rotation"), (drawn.left, drawn.top))


def _polygon(value: dict[str, Any], size: Size) -> Shape:
    ring = points(value.get("points"), "a polygon")
    return Polygon((ring,)).scaled(size[0] / 100, size[1] / 100)


def _ellipse(value: dict[str, Any], size: Size) -> Shape:
    x, y, across, down = _numbers(value, ("x", "y", "radiusX", "radiusY"))
    if min(across, down) < 0:
        raise PcamxError(f"an ellipse with radii {across:g} and {down:g}; mend it")
    wide, high = size[0] / 100, size[1] / 100
    turn = number(value.get("rotation", 0), "rotation")
    return ellipse(x * wide, y * high, across * wide, down * high, turn)


def _brush(value: dict[str, Any], size: Size) -> Shape:
    numbers = value.get("rle")
    # Not bytes(numbers) of whatever comes: of one number it would make as many zeros.
    if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 256 for n in numbers):
        raise PcamxError("a brush mask's rle is no list of bytes; export it again")
    data = bytes(numbers)
    return Raster(0, 0, *size, partial(label_studio_brush, data, *size))


_SHAPES = {"rectangle": _rectangle, "polygon": _polygon, "ellipse": _ellipse, "brush": _brush}
