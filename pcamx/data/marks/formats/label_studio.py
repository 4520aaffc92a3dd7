"""Label Studio: the JSON export, one list of tasks (labelstud.io, guide/task_format).

Coordinates are per cent of the image. All annotations of a task count, whoever made them, but for
the cancelled; predictions do not. A painted region is a list of run lengths or, of the tags Bitmask
and BitmaskLabels, a PNG of black pixels on transparent ground.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from pcamx.data.marks.annotated import Annotated, Draft, unreadable
from pcamx.data.marks.formats.label_studio_images import image_of, images_of
from pcamx.data.marks.mask_pixels import embedded
from pcamx.data.marks.parse import box, image_size, number, objects, points, short
from pcamx.data.marks.rle import label_studio_brush
from pcamx.data.marks.shapes import A_NUMBER, Polygon, Raster, Shape, Size, ellipse, rectangle
from pcamx.errors import PcamxError

_NO_AREA = ("keypoint",)
_OF_A_REGION = ("", "choices", "textarea", "rating", "number", "taxonomy", "datetime")
"""What may be said of a region, in an item of its own with the region's id; "" its labels."""
_OF_THE_IMAGE = ("relation", "pairwise", "ranker")
"""Items that are never a region."""
_DRAWN = {"x", "points", "vertices", "rle", "imageDataURL", "maskDataURL"}
_Place = tuple[str, Size | None]


def fits(tree: Any) -> bool:
    """Tell whether these are Label Studio's tasks."""
    return isinstance(tree, list) and bool(tree) and isinstance(tree[0], dict) and "data" in tree[0]


def read(tree: list[dict[str, Any]], file: str) -> Iterator[Annotated]:
    """Return the images of the file. Raises PcamxError without the file."""
    del file
    for task in tree:
        where = f"task {short(task.get('id'))}" if isinstance(task, dict) else "a task"
        try:
            yield from _task(task, where)
        except PcamxError as error:
            yield unreadable(PcamxError(f"{where}: {error}"))


def _task(task: Any, where: str) -> Iterator[Annotated]:
    """A task's images with the regions drawn on each, by the size that the regions name."""
    drafts: dict[_Place, Draft] = defaultdict(Draft)
    people = 0
    for annotation in objects(task, "annotations", "Label Studio's JSON export"):
        if not annotation.get("was_cancelled"):
            before = sum(len(draft.marks) for draft in drafts.values())
            _annotation(annotation, task, where, drafts)
            people += sum(len(draft.marks) for draft in drafts.values()) > before
    if unsent := _drafts(task):
        drafts["", None].leave(where, f"{unsent} drafts", "drafts")
    if people > 1:
        place = next(place for place, draft in drafts.items() if draft.marks)
        drafts[place].leave(where, f"{people} annotations", "people")
    if not drafts:  # a task that is not marked
        images = [path for paths in images_of(task, set()).values() for path in paths]
        yield Annotated(images[0] if images else where)
    for (name, size), draft in drafts.items():
        yield draft.image(name, size)


def _drafts(task: dict[str, Any]) -> int:
    """How many drafts of the task have a region; a number alone is a draft that is not exported."""
    saved = task.get("drafts")
    drafts = [one for one in saved if isinstance(one, dict)] if isinstance(saved, list) else []
    items = [draft.get("result") for draft in drafts]
    return sum(any(map(_is_region, one)) for one in items if isinstance(one, list))


def _annotation(
    annotation: dict[str, Any], task: Any, where: str, drafts: dict[_Place, Draft]
) -> None:
    items = objects(annotation, "result", "an annotation")
    drawn = [item for item in items if _kind(item) in _SHAPES]
    images = images_of(task, {str(item.get("to_name")) for item in drawn})
    own = [item for item in items if _is_region(item) and _kind(item) not in _OF_A_REGION]
    ids = {str(item["id"]) for item in own if "id" in item}
    for count, item in enumerate(items, 1):
        region = f"{where}, region {count}"
        kind = _kind(item)
        if kind in _SHAPES:
            try:
                place = image_of(item, images), _size(item)
            except PcamxError as error:
                drafts["", None].leave(region, str(error))
                continue
            drafts[place].take(region, _labels(item, items), partial(_region, item))
        elif _is_region(item) and not (kind in _OF_A_REGION and str(item.get("id")) in ids):
            what = f"a {kind or 'label without a region'}"
            drafts["", None].leave(region, what, "open" if kind in _NO_AREA else "damaged")


def _kind(item: dict[str, Any]) -> str:
    """The region's tool, whether it gives labels or not; "" for labels alone."""
    kind = item.get("type")
    return kind.removesuffix("labels") if isinstance(kind, str) else "region without a type"


def _labels(item: dict[str, Any], items: list[dict[str, Any]]) -> tuple[str, ...]:
    """The region's labels, its own or those of the items that speak of it."""
    told = [item] + [
        one
        for one in items
        if one is not item and "id" in item and one.get("id") == item["id"] and _kind(one) == ""
    ]
    values = [one["value"] for one in told if isinstance(one.get("value"), dict)]
    lists = [value.get(key) for value in values for key in (f"{_kind(item)}labels", "labels")]
    names = [str(name).strip() for one in lists if isinstance(one, list) for name in one]
    return tuple(dict.fromkeys(name for name in names if name))


def _is_region(item: Any) -> bool:
    """Whether the item is a region, also of a tool that is not known, not a choice or a text."""
    if not isinstance(item, dict):
        return False
    value, kind = item.get("value"), _kind(item)
    is_drawn = isinstance(value, dict) and bool(_DRAWN & set(value))
    return is_drawn or not (kind in _OF_THE_IMAGE or kind and kind in _OF_A_REGION)


def _size(item: dict[str, Any]) -> Size:
    if item.get("image_rotation"):
        raise PcamxError("drawn on an image turned in Label Studio; draw it on the upright one")
    size = image_size(item.get("original_width"), item.get("original_height"))
    if size is None:
        raise PcamxError("lacks original_width and original_height; export the marks again")
    return size


def _region(item: dict[str, Any]) -> Shape:
    value = item.get("value")
    if not isinstance(value, dict):
        raise PcamxError("its value is no object; export it again")
    return _SHAPES[_kind(item)](value, _size(item))


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


def _mask(value: dict[str, Any], size: Size) -> Shape:
    """What is painted: run lengths, or a picture in a data URL."""
    for key in ("imageDataURL", "maskDataURL", "image"):
        if isinstance(value.get(key), str):
            return Raster(0, 0, *size, partial(embedded, value[key], size))
    numbers = value.get("rle")
    # Not bytes(numbers) of whatever comes: of one number it would make as many zeros.
    if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 256 for n in numbers):
        raise PcamxError("a brush mask's rle is no list of bytes; export it again")
    data = bytes(numbers)
    # It is read bit by bit, and a run may be of five.
    return Raster(0, 0, *size, partial(label_studio_brush, data, *size), 5 * A_NUMBER * len(data))


_SHAPES = {
    "rectangle": _rectangle,
    "polygon": _polygon,
    "ellipse": _ellipse,
    "brush": _mask,
    "magicwand": _mask,
    "bitmask": _mask,
}
