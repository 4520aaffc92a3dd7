"""Formats x oddities: the files of `test_marks_matrix.py`, each with what it must become.

The films are ap.png, 40 x 30, and lat.png, 30 x 40. What must become of a mark is worked out here
from the centres of pixels, without the project's shapes.
"""

import base64
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from marks_by_hand import brush
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as pycocotools

W, H = 40, 30
FILMS: dict[str, tuple[int, int] | None] = {"p/ap.png": (W, H), "p/lat.png": (H, W)}
AP, LAT = FILMS
Bits = NDArray[np.bool_]
Write = Callable[[Path], Path]


class Case(NamedTuple):
    """One file and what it must become."""

    name: str
    write: Write
    exact: dict[str, Bits]
    """Film > its pixels."""
    near: dict[str, Bits] = {}
    """Film > its pixels, but for those along the edge: vertices lie in the middle of pixels."""
    says: tuple[str, ...] = ()
    """Problems: `kind: text`, each the beginning of one."""
    labels: tuple[str, ...] = ()


# What is right, pixel by pixel


def centres(size: tuple[int, int] = (W, H)) -> tuple[NDArray[Any], NDArray[Any]]:
    y, x = np.mgrid[: size[1], : size[0]]
    return x + 0.5, y + 0.5


def box(left: float, top: float, right: float, bottom: float, size: Any = (W, H)) -> Bits:
    x, y = centres(size)
    return (left <= x) & (x < right) & (top <= y) & (y < bottom)


def within(ring: Sequence[Sequence[float]]) -> Bits:
    """Even-odd, by the edges that a ray to the right cuts."""
    x, y = centres()
    found = np.zeros((H, W), bool)
    for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
        if y0 != y1:
            crossed = (y0 > y) != (y1 > y)
            found ^= crossed & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return found


def oval(cx: float, cy: float, a: float, b: float, degrees: float = 0) -> Bits:
    x, y = centres()
    t = math.radians(degrees)
    along = (x - cx) * math.cos(t) + (y - cy) * math.sin(t)
    across = (y - cy) * math.cos(t) - (x - cx) * math.sin(t)
    return (along / a) ** 2 + (across / b) ** 2 < 1


def turned_box(cx: float, cy: float, w: float, h: float, degrees: float) -> Bits:
    x, y = centres()
    t = math.radians(degrees)
    along = (x - cx) * math.cos(t) + (y - cy) * math.sin(t)
    across = (y - cy) * math.cos(t) - (x - cx) * math.sin(t)
    return (abs(along) < w / 2) & (abs(across) < h / 2)


def grown(bits: Bits) -> Bits:
    """With the eight neighbours of each pixel."""
    padded = np.pad(bits, 1)
    shifts = [(r, c) for r in range(3) for c in range(3)]
    height, width = bits.shape
    return np.logical_or.reduce([padded[r : r + height, c : c + width] for r, c in shifts])


BOX = box(5, 4, 17, 13)
PAINTED = BOX & ~box(9, 7, 13, 9)  # with a hole, so that no polygon or box passes for it
RING = [(20, 15), (36, 17), (33, 27), (22, 25)]
DENTED = [(4, 3), (18.5, 3.2), (18, 12), (11, 6.5), (4.4, 13)]

# Files


def _json(tree: Any, name: str = "marks.json") -> Write:
    return lambda folder: _text(folder / name, json.dumps(tree))


def _text(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def png(pixels: Any, **save: Any) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, "PNG", **save)
    return file.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def flat(ring: Sequence[Sequence[float]]) -> list[float]:
    return [number for point in ring for number in point]


def coco(*drawn: dict[str, Any], name: str = "ap.png", categories: Any = ("lesion",)) -> Write:
    marks = [{"id": k, "image_id": 1, "category_id": 1} | one for k, one in enumerate(drawn, 1)]
    images = [{"id": 1, "file_name": name, "width": W, "height": H}]
    named = [{"id": k, "name": label} for k, label in enumerate(categories, 1)]
    return _json({"images": images, "annotations": marks, "categories": named})


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
    Case("empty ring", coco({"segmentation": [[]]} | BBOX), {AP: BOX}),
    Case("run lengths as text", coco(RLE), {AP: PAINTED}),
    Case("run lengths as a list", coco(RUNS), {AP: PAINTED}),
    Case(
        "damaged run lengths",
        coco(BBOX, {"segmentation": {"size": [H, W], "counts": [3, 4]}}),
        {AP: BOX},
        says=("damaged: annotation 2 of ap.png: the run lengths do not fill 40 x 30",),
    ),
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
    return _json([{"id": 8, "data": shown, "annotations": annotations}])


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


def cvat(items: str, name: str = "p/ap.png") -> Write:
    head = f'<annotations><image id="0" name="{name}" width="{W}" height="{H}">'
    return lambda folder: _text(folder / "annotations.xml", f"{head}{items}</image></annotations>")


_BOX = '<box label="lesion" xtl="5" ytl="4" xbr="17" ybr="13"/>'
_inner = PAINTED[4:13, 5:17].ravel().astype(int)
_lengths = np.diff(np.r_[0, np.flatnonzero(np.diff(np.r_[0, _inner])), _inner.size])
CVAT = [
    Case("box", cvat(_BOX), {AP: BOX}),
    Case(
        "turned box",
        cvat('<box label="" xtl="10" ytl="10" xbr="30" ybr="18" rotation="30"/>'),
        {},
        {AP: turned_box(20, 14, 20, 8, 30)},
    ),
    Case(
        "turned ellipse",
        cvat('<ellipse label="" cx="20" cy="15" rx="12" ry="6" rotation="30"/>'),
        {},
        {AP: oval(20, 15, 12, 6, 30)},
    ),
    Case(
        "mask",
        cvat(
            f'<mask label="" left="5" top="4" width="12" height="9" '
            f'rle="{", ".join(map(str, _lengths))}"/>'
        ),
        {AP: PAINTED},
    ),
    Case(
        "polygon of two points, a line, an unknown shape, a tag",
        cvat(
            _BOX + '<polygon label="" points="1,1;2,2"/><polyline label="" points="1,1;2,2"/>'
            '<star label=""/><tag label="seen"/>'
        ),
        {AP: BOX},
        says=(
            "damaged: annotations.xml: polygon 2 of p/ap.png",
            "open: annotations.xml: polyline 3 of p/ap.png",
            "damaged: annotations.xml: star 4 of p/ap.png: not known",
        ),
    ),
]


def voc(*objects: str) -> Write:
    items = "".join(f"<object><name>lesion</name>{one}</object>" for one in objects)
    size = f"<size><width>{W}</width><height>{H}</height></size>"
    text = f"<annotation><filename>ap.png</filename>{size}{items}</annotation>"
    return lambda folder: _text(folder / "ap.xml", text)


_BND = "<bndbox><xmin>5</xmin><ymin>4</ymin><xmax>17</xmax><ymax>13</ymax></bndbox>"
_ROB = "<robndbox><cx>20</cx><cy>14</cy><w>20</w><h>8</h><angle>0.5235988</angle></robndbox>"
_PT = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in DENTED)
_XY = "".join(f"<x{k}>{x}</x{k}><y{k}>{y}</y{k}>" for k, (x, y) in enumerate(DENTED, 1))
VOC = [
    Case("box", voc(_BND), {AP: BOX}),
    Case("turned box", voc(_ROB), {}, {AP: turned_box(20, 14, 20, 8, 30)}),
    Case("polygon, pt", voc(f"<polygon>{_PT}</polygon>"), {}, {AP: within(DENTED)}),
    Case("polygon, x1", voc(f"{_BND}<polygon>{_XY}</polygon>"), {}, {AP: within(DENTED)}),
    Case(
        "one without edges",
        voc("<difficult>0</difficult>", _BND),
        {AP: BOX},
        says=("damaged: ap.xml: object 1 of ap.png: no bndbox",),
    ),
]


def yolo(*lines: str, name: str = "ap.txt") -> Write:
    return lambda folder: _text(folder / name, "\n".join(lines)).parent


_SHARES = f"{11 / W} {8.5 / H} {12 / W} {9 / H}"
_OBB = [(20, 4), (28, 12), (20, 20), (12, 12)]
YOLO = [
    Case("box", yolo(f"0 {_SHARES}"), {AP: BOX}),
    Case(
        "class with a point",
        yolo(f"1.0 {_SHARES}", "2.0 0.8 0.8 0.1 0.1"),
        {AP: BOX},
        labels=("1",),
    ),
    Case(
        "four corners",
        yolo("0 " + " ".join(f"{x / W} {y / H}" for x, y in _OBB)),
        {},
        {AP: within(_OBB)},
    ),
    Case(
        "a bad line first",
        yolo("lesion 0.5 0.5 0.1 0.1", f"0 {_SHARES}", "0 0.5 0.5 0.1"),
        {AP: BOX},
        says=(
            "damaged: line 1 of ap.txt: 'lesion' is no class",
            "damaged: line 3 of ap.txt: 3",
        ),
    ),
    Case(
        "upload prefix",
        yolo(f"0 {_SHARES}", name="labels/0f9e8d7c-ap.txt"),
        {AP: BOX},
        says=("prefix: 0f9e8d7c-ap.txt for p/ap.png",),
    ),
]


def labelme(*shapes: dict[str, Any]) -> Write:
    tree = {"imagePath": "ap.png", "imageWidth": W, "imageHeight": H, "version": "5.5.0"}
    return _json(tree | {"shapes": [{"label": "lesion"} | one for one in shapes]}, "ap.json")


_four = [[5, 4], [17, 4], [17, 13], [5, 13]]
_RECT = {"shape_type": "rectangle", "points": [[17, 13], [5, 4]]}
_cut = PAINTED[4:13, 5:17]
LABELME = [
    Case("rectangle", labelme(_RECT), {AP: BOX}),
    Case("of four points", labelme({"shape_type": "rectangle", "points": _four}), {AP: BOX}),
    Case(
        "of four points, turned",
        labelme({"shape_type": "rectangle", "points": _OBB}),
        {},
        {AP: within(_OBB)},
    ),
    Case("rotation", labelme({"shape_type": "rotation", "points": _OBB}), {}, {AP: within(_OBB)}),
    Case(
        "mask of 0 and 1",
        labelme(
            {
                "shape_type": "mask",
                "points": [[5, 4], [16, 12]],
                "mask": b64(png(_cut.astype(np.uint8))),
            }
        ),
        {AP: PAINTED},
    ),
    Case(
        "circle",
        labelme({"shape_type": "circle", "points": [[20, 15], [27, 15]]}),
        {},
        {AP: oval(20, 15, 7, 7)},
    ),
    Case(
        "two points, a line, an unknown shape",
        labelme(
            _RECT,
            {"points": [[1, 1], [2, 2]], "shape_type": "polygon"},
            {"points": [[1, 1], [2, 2]], "shape_type": "linestrip"},
            {"points": [[1, 1], [2, 2]], "shape_type": "spline"},
        ),
        {AP: BOX},
        says=(
            "damaged: ap.json: shape 2 of ap.png: a polygon is at least",
            "open: ap.json: shape 3 of ap.png: a linestrip",
            "damaged: ap.json: shape 4 of ap.png: shape_type 'spline' is not known",
        ),
    ),
]


def via(*shapes: dict[str, Any], version: int = 2, name: str = "ap.png") -> Write:
    drawn = [{"shape_attributes": s, "region_attributes": {"label": "lesion"}} for s in shapes]
    regions = drawn if version == 2 else {str(k): one for k, one in enumerate(drawn)}
    return _json({f"{name}9": {"filename": name, "size": 9, "regions": regions}})


def project(*shapes: dict[str, Any]) -> Write:
    attributes = {"kind": {"fracture": True, "cast": False}, "note": ""}
    drawn = [{"shape_attributes": s, "region_attributes": attributes} for s in shapes]
    images = {"ap.png-1": {"filename": "ap.png", "size": -1, "regions": drawn}}
    return _json({"_via_settings": {}, "_via_img_metadata": images, "_via_attributes": {}})


_VIA = {"name": "rect", "x": 5, "y": 4, "width": 12, "height": 9}
_closed = {"name": "polygon", "all_points_x": [x for x, _ in [*RING, RING[0]]]}
_circle = {"name": "circle", "cx": 20, "cy": 15, "r": 7}
_closed |= {"all_points_y": [y for _, y in [*RING, RING[0]]]}
VIA = [
    Case("rect", via(_VIA), {AP: BOX}),
    Case(
        "polygon of version 1, as FracAtlas has it", via(_closed, version=1), {}, {AP: within(RING)}
    ),
    Case("project", project(_VIA), {AP: BOX}, labels=("fracture",)),
    Case(
        "circle", via({"name": "circle", "cx": 20, "cy": 15, "r": 7}), {}, {AP: oval(20, 15, 7, 7)}
    ),
    Case(
        "ellipse, turned",
        via({"name": "ellipse", "cx": 20, "cy": 15, "rx": 12, "ry": 6, "theta": math.pi / 6}),
        {},
        {AP: oval(20, 15, 12, 6, 30)},
    ),
    Case(
        "a point, two points, an unknown shape",
        via(
            _VIA,
            {"name": "point", "cx": 1, "cy": 1},
            {"name": "polygon", "all_points_x": [1, 2], "all_points_y": [1, 2]},
            {"name": "star"},
        ),
        {AP: BOX},
        says=(
            "open: marks.json: region 2 of ap.png: a point",
            "damaged: marks.json: region 3 of ap.png: a polygon is at least",
            "damaged: marks.json: region 4 of ap.png: a 'star'",
        ),
    ),
]


def image(pixels: Any, suffix: str = ".png", **save: Any) -> Write:
    def write(folder: Path) -> Path:
        (folder / "masks").mkdir()
        drawn = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        drawn.save(folder / "masks" / f"ap{suffix}", **save)
        return folder / "masks"

    return write


def layer(colour: int) -> NDArray[np.uint8]:
    """One colour everywhere, opaque on the lesion alone."""
    pixels = np.full((H, W, 4), colour, np.uint8)
    pixels[..., 3] = PAINTED * 255
    return pixels


def palette(colours: list[int], index: Any = None) -> Image.Image:
    drawn = Image.fromarray((PAINTED if index is None else index).astype(np.uint8))
    drawn.putpalette(colours)
    return drawn


def turned(orientation: int) -> Write:
    """The upright mask as a camera would store it: the orientation undone."""
    upright = Image.fromarray(PAINTED.astype(np.uint8) * 255)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[274] = orientation
    return image(upright.transpose(undo[orientation]), exif=exif)


_one = PAINTED.astype(np.uint8)
_two = _one + 2 * box(30, 20, 35, 25).astype(np.uint8)
_rgb = np.zeros((H, W, 3), np.uint8)
_rgb[PAINTED] = (200, 0, 0)
_key = np.where(PAINTED, 7, 255).astype(np.uint8)
_half = layer(255)
_half[..., 3] = np.where(box(3, 3, 25, 20), 255, 0)  # an opaque patch with the lesion on black
_half[..., :3] *= PAINTED[..., None]
_float = np.where(PAINTED, 1.5, np.nan).astype(np.float32)
_white_red = [255, 255, 255, 255, 0, 0]
_exif6 = Image.Exif()
_exif6[274] = 6
MASKS = [
    Case("0 and 1", image(_one), {AP: PAINTED}),
    Case("16 bits, 0 and 1", image(PAINTED.astype(np.uint16)), {AP: PAINTED}),
    Case("16 bits, TIFF", image(PAINTED.astype(np.uint16), ".tif"), {AP: PAINTED}),
    Case("1 bit", image(Image.fromarray(_one * 255).convert("1")), {AP: PAINTED}),
    Case("float with NaN", image(_float, ".tif"), {AP: PAINTED}),
    Case("colour", image(_rgb), {AP: PAINTED}),
    Case("white layer", image(layer(255)), {AP: PAINTED}),
    Case("black layer", image(layer(0)), {AP: PAINTED}),
    Case("grey layer", image(layer(90)[..., 2:]), {AP: PAINTED}),
    Case("opaque patch on a layer", image(_half), {AP: PAINTED}),
    Case(
        "transparent palette",
        image(palette([255] * 3 + [255, 0, 0]), transparency=0),
        {AP: PAINTED},
    ),
    Case("transparent grey", image(_key, transparency=255), {AP: PAINTED}),
    Case("palette", image(palette([0, 0, 0, 1, 1, 1])), {AP: PAINTED}),
    Case("numbered classes", image(_two), {AP: PAINTED}, labels=("1",)),
    Case(
        "coloured classes",
        image(palette([0, 0, 0, 255, 0, 0, 0, 255, 0], _two)),
        {AP: PAINTED},
        labels=("#FF0000",),
    ),
    Case(
        "shades",
        image(np.where(box(6, 5, 8, 6), 128, _one * 255).astype(np.uint8)),
        {AP: PAINTED},
        says=("greys: ap.png (128, 255)",),
    ),
    *(Case(f"EXIF {k}", turned(k), {AP: PAINTED}) for k in range(2, 9)),
    Case(
        "TIFF, turned",
        image(Image.fromarray(_one).transpose(Image.Transpose.ROTATE_90), ".tif", exif=_exif6),
        {AP: PAINTED},
    ),
]
MATRIX = {
    f"{name}: {case.name}": case
    for name, cases in {
        "COCO": COCO,
        "Label Studio": STUDIO,
        "CVAT": CVAT,
        "VOC": VOC,
        "YOLO": YOLO,
        "LabelMe": LABELME,
        "VIA": VIA,
        "masks": MASKS,
    }.items()
    for case in cases
}
