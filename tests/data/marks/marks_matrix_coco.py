"""COCO and Label Studio in the matrix of marks."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from marks_by_hand import brush
from marks_truth import (
    AP,
    BOX,
    DENTED,
    LAT,
    PAINTED,
    RING,
    Case,
    H,
    W,
    Write,
    as_json,
    as_text,
    b64,
    box,
    flat,
    oval,
    png,
    within,
)
from pycocotools import mask as pycocotools


def coco(*drawn: dict[str, Any], name: str = "ap.png", categories: Any = ("lesion",)) -> Write:
    marks = [{"id": k, "image_id": 1, "category_id": 1} | one for k, one in enumerate(drawn, 1)]
    images = [{"id": 1, "file_name": name, "width": W, "height": H}]
    named = [{"id": k, "name": label} for k, label in enumerate(categories, 1)]
    return as_json({"images": images, "annotations": marks, "categories": named})


def with_points(write: Write) -> Write:
    """The same with every id a float, as pandas writes a column with gaps."""

    def written(folder: Path) -> Path:
        file = write(folder)
        return as_text(file, re.sub(r'(id": \d+)', r"\1.0", file.read_text()))

    return written


BBOX = {"bbox": [5, 4, 12, 9]}
_packed = pycocotools.encode(np.asfortranarray(PAINTED.astype(np.uint8)))
RLE = {"segmentation": {"size": [H, W], "counts": _packed["counts"].decode()}}
_steps = np.flatnonzero(np.diff(np.r_[0, PAINTED.T.ravel().astype(int), 0]))
_runs = [int(n) for n in np.diff(np.r_[0, _steps, PAINTED.size])]
RUNS = {"segmentation": {"size": [H, W], "counts": _runs}}

COCO = [
    Case("polygon", coco({"segmentation": [flat(DENTED)]}), {}, {AP: within(DENTED)}),
    Case("flat polygon", coco({"segmentation": flat(RING)}), {}, {AP: within(RING)}),
    Case(
        "ring of two points",
        coco({"segmentation": [[1, 1, 5, 5], flat(RING)]}, {"segmentation": [[1, 1, 2, 2]]}),
        {},
        {AP: within(RING)},
        ("damaged: marks.json: annotation 1 of ap.png, polygon 1", "damaged: marks.json: annotati"),
    ),
    Case(
        "two polygons of one mark",
        coco({"segmentation": [flat(DENTED), flat(RING)]}),
        {},
        {AP: within(DENTED) | within(RING)},
    ),
    Case("empty ring", coco({"segmentation": [[]]} | BBOX), {AP: BOX}),
    Case("run lengths as text", coco(RLE), {AP: PAINTED}),
    Case("run lengths as a list", coco(RUNS), {AP: PAINTED}),
    Case(
        "damaged run lengths",
        coco(BBOX, {"segmentation": {"size": [H, W], "counts": [3, 4]}}),
        {AP: BOX},
        says=("damaged: annotation 2 of ap.png: the run lengths do not fill 40 x 30",),
    ),
    Case("ids with a point", with_points(coco(BBOX)), {AP: BOX}, labels=("lesion",)),
    Case(
        "class with a point",
        coco(BBOX, {"bbox": [30, 20, 5, 5], "category_id": 2}, categories=("1.0", "2.0")),
        {AP: BOX},
        labels=("1",),
    ),
    Case(
        "no such image",
        coco(BBOX, {"image_id": 9} | BBOX),
        {AP: BOX},
        says=("damaged: marks.json: annotation 2: image_id 9 is not",),
    ),
    Case(
        "keypoints",
        coco(BBOX, {"keypoints": [1, 1, 2], "num_keypoints": 1}),
        {AP: BOX},
        says=("open: marks.json: annotation 2 of ap.png: keypoints",),
    ),
    Case(
        "upload prefix",
        coco(BBOX, name="images/1a2b3c4d-ap.png"),
        {AP: BOX},
        says=("prefix: images/1a2b3c4d-ap.png for p/ap.png",),
    ),
]


def region(kind: str, value: dict[str, Any], **more: Any) -> dict[str, Any]:
    size = {"original_width": W, "original_height": H, "image_rotation": 0}
    labels = {f"{kind}labels": ["lesion"]}
    return (
        size
        | {"id": kind, "to_name": "image", "type": f"{kind}labels"}
        | ({"value": value | labels} | more)
    )


def per_cent(left: float, top: float, w: float, h: float, size: Any = (W, H)) -> dict[str, Any]:
    wide, high = size[0] / 100, size[1] / 100
    return {"x": left / wide, "y": top / high, "width": w / wide, "height": h / high, "rotation": 0}


RECT = region("rectangle", per_cent(5, 4, 12, 9))


def studio(*results: list[Any], **data: Any) -> Write:
    annotations = [{"id": k, "was_cancelled": False, "result": r} for k, r in enumerate(results)]
    shown = data or {"image": "/data/local-files/?d=p%2Fap.png"}
    return as_json([{"id": 8, "data": shown, "annotations": annotations}])


def on_lat(**more: Any) -> dict[str, Any]:
    size = {"original_width": H, "original_height": W}
    return region("rectangle", per_cent(3, 20, 8, 9, (H, W)), **size, **more)


def bitmask(colour: tuple[int, ...], key: str = "imageDataURL") -> dict[str, Any]:
    pixels = np.zeros((H, W, 4), np.uint8)
    pixels[PAINTED] = colour
    return region("bitmask", {key: f"data:image/png;base64,{b64(png(pixels))}"})


BOTH = {"image": "/data/local-files/?d=ap.png", "image2": "/data/local-files/?d=lat.png"}
ON_LAT = box(3, 20, 11, 29, (H, W))
_shares = [[x * 100 / W, y * 100 / H] for x, y in DENTED]
_bare = {k: v for k, v in RECT["value"].items() if k != "rectanglelabels"}
STUDIO = [
    Case("two images", studio([RECT, on_lat(to_name="image2")], **BOTH), {AP: BOX, LAT: ON_LAT}),
    Case(
        "a list of images",
        studio([RECT | {"item_index": 0}, on_lat(item_index=1)], images=list(BOTH.values())),
        {AP: BOX, LAT: ON_LAT},
    ),
    Case(
        "which image is not said",
        studio([RECT, on_lat(to_name="right")], **BOTH),
        {AP: BOX},
        says=("damaged: marks.json: task 8, region 2: lies on 'right', which may be any",),
    ),
    Case("bitmask, black", studio([bitmask((0, 0, 0, 255))]), {AP: PAINTED}),
    Case("bitmask, white", studio([bitmask((255, 255, 255, 255))]), {AP: PAINTED}),
    Case("bitmask, key image", studio([bitmask((0, 0, 0, 255), "image")]), {AP: PAINTED}),
    Case(
        "bitmask, damaged",
        studio([RECT, region("bitmask", {"imageDataURL": "data:image/png;base64,AAAA"})]),
        {AP: BOX},
        says=("damaged: task 8, region 2: the mask is no readable PNG",),
    ),
    Case(
        "brush",
        studio([region("brush", {"format": "rle", "rle": brush(PAINTED.astype(np.uint8) * 255)})]),
        {AP: PAINTED},
    ),
    Case("polygon", studio([region("polygon", {"points": _shares})]), {}, {AP: within(DENTED)}),
    Case(
        "polygon of two points",
        studio([RECT, region("polygon", {"points": _shares[:2]})]),
        {AP: BOX},
        says=("damaged: marks.json: task 8, region 2: a polygon is at least three points",),
    ),
    Case(
        "ellipse, turned",
        studio(
            [
                region(
                    "ellipse",
                    {"x": 50, "y": 50, "radiusX": 30, "radiusY": 20, "rotation": 30},
                )
            ]
        ),
        {},
        {AP: oval(20, 15, 12, 6, 30)},
    ),
    Case(
        "keypoint",
        studio([RECT, region("keypoint", {"x": 1, "y": 1, "width": 1})]),
        {AP: BOX},
        says=("open: marks.json: task 8, region 2: a keypoint",),
    ),
    Case(
        "unknown tool",
        studio([RECT, region("vector", {"vertices": [{"x": 1, "y": 1}], "closed": True})]),
        {AP: BOX},
        says=("damaged: marks.json: task 8, region 2: a vector",),
    ),
    Case(
        "labels and choices in items of their own",
        studio(
            [
                RECT | {"type": "rectangle", "value": _bare},
                RECT | {"type": "labels", "value": _bare | {"labels": ["fracture"]}},
                RECT | {"type": "choices", "value": _bare | {"choices": ["sure"]}},
                region("rectangle", per_cent(30, 20, 5, 5), id="plate")
                | {"value": per_cent(30, 20, 5, 5) | {"rectanglelabels": ["metal"]}},
            ]
        ),
        {AP: BOX},
        labels=("Fracture",),
    ),
    Case(
        "two people",
        studio([RECT], [region("rectangle", per_cent(30, 20, 5, 5))]),
        {AP: BOX | box(30, 20, 35, 25)},
        says=("people: marks.json: task 8: 2 annotations",),
    ),
    Case(
        "turned in the tool",
        studio([RECT, RECT | {"image_rotation": 90}]),
        {AP: BOX},
        says=("damaged: marks.json: task 8, region 2: drawn on an image turned",),
    ),
    Case("a film without a suffix", studio([RECT], image="s3://bucket/p/ap"), {AP: BOX}),
]
