"""VGG Image Annotator 1 and 2: one json, a project or its annotations alone.

Each image has `filename`, its size in bytes and `regions`, a list (a mapping in version 1) of
`shape_attributes` in pixels and `region_attributes` of the user's own naming. makesense.ai writes
it too, and FracAtlas ships its marks in it. The file does not say the image's size in pixels.
Source: robots.ox.ac.uk/~vgg/software/via, via-2 `_via_img_metadata`.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from pcamx.data.marks.annotated import Annotated, Draft, label_of
from pcamx.data.marks.parse import box, number, points, short, word
from pcamx.data.marks.shapes import Polygon, Shape, ellipse
from pcamx.errors import PcamxError

_PROJECT = "_via_img_metadata"
_NO_AREA = ("point", "polyline", "line")
_NAMES = ("label", "class", "category", "name", "type", "lesion")
"""Attributes that tell what a region is, the first that it has; where it has none, all do."""


def fits(tree: Any) -> bool:
    """Tell whether this is VIA's."""
    if not isinstance(tree, dict) or not tree:
        return False
    return _PROJECT in tree or all(
        isinstance(image, dict) and {"filename", "regions"} <= set(image) for image in tree.values()
    )


def read(tree: dict[str, Any], file: str) -> Iterator[Annotated]:
    """Return the images of the file. Raises PcamxError without the file."""
    del file
    images = tree.get(_PROJECT, tree)
    if not isinstance(images, dict) or not all(isinstance(i, dict) for i in images.values()):
        raise PcamxError(f"{_PROJECT} is no mapping of images; export the marks again")
    for key, image in images.items():
        name = word(image.get("filename"), f"filename of {short(key)}")
        draft = Draft()
        for count, region in enumerate(_regions(image, name), 1):
            _take(region, f"region {count} of {name}", draft)
        yield draft.image(name, None)


def _regions(image: dict[str, Any], name: str) -> list[Any]:
    regions = image.get("regions") or []
    listed = list(regions.values()) if isinstance(regions, dict) else regions
    if not isinstance(listed, list):
        raise PcamxError(f"regions of {name} is no list; export the marks again")
    return listed


def _take(region: Any, where: str, draft: Draft) -> None:
    drawn = region.get("shape_attributes") if isinstance(region, dict) else None
    kind = drawn.get("name") if isinstance(drawn, dict) else None
    if not isinstance(drawn, dict) or not isinstance(kind, str):
        draft.leave(where, "lacks shape_attributes with a name; draw it again")
    elif kind in _NO_AREA:
        draft.leave(where, f"a {kind}", "open")
    elif kind not in _SHAPES:
        draft.leave(where, f"a {short(kind)}, which is not known; draw a polygon")
    else:
        draft.take(where, _labels(region.get("region_attributes")), partial(_SHAPES[kind], drawn))


def _labels(attributes: Any) -> tuple[str, ...]:
    """The words of a text, a choice, or the boxes that are ticked."""
    if not isinstance(attributes, dict):
        return ()
    by_name = {str(key).strip().casefold(): value for key, value in attributes.items()}
    key = next((name for name in _NAMES if by_name.get(name)), None)
    found: list[str] = []
    for value in [by_name[key]] if key else by_name.values():
        ticked = [k for k, on in value.items() if on] if isinstance(value, dict) else [value]
        found += [label for one in ticked for label in label_of(one)]
    return tuple(dict.fromkeys(found))


def _numbers(drawn: dict[str, Any], *names: str) -> list[float]:
    return [number(drawn.get(name), name) for name in names]


def _rect(drawn: dict[str, Any]) -> Shape:
    x, y, width, height = _numbers(drawn, "x", "y", "width", "height")
    return box(x, y, x + width, y + height)


def _circle(drawn: dict[str, Any]) -> Shape:
    x, y, radius = _numbers(drawn, "cx", "cy", "r")
    return ellipse(x, y, radius, radius)


def _ellipse(drawn: dict[str, Any]) -> Shape:
    """Version 2 turns it by ``theta``, in radians, clockwise."""
    x, y, across, down = _numbers(drawn, "cx", "cy", "rx", "ry")
    return ellipse(x, y, across, down, math.degrees(number(drawn.get("theta", 0), "theta")))


def _polygon(drawn: dict[str, Any]) -> Shape:
    xs, ys = drawn.get("all_points_x"), drawn.get("all_points_y")
    if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
        raise PcamxError("all_points_x and all_points_y are no lists of one length; draw it again")
    return Polygon((points(list(zip(xs, ys, strict=True)), "a polygon"),))


_SHAPES: dict[str, Callable[[dict[str, Any]], Shape]] = {
    "rect": _rect,
    "circle": _circle,
    "ellipse": _ellipse,
    "polygon": _polygon,
}
