"""CVAT, Pascal VOC, YOLO, LabelMe and VIA in the matrix of marks."""

import math
from typing import Any

import numpy as np
from marks_truth import (
    AP,
    BOX,
    DENTED,
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
    oval,
    png,
    turned_box,
    within,
)


def cvat(items: str, name: str = "p/ap.png") -> Write:
    head = f'<annotations><image id="0" name="{name}" width="{W}" height="{H}">'
    return lambda folder: as_text(
        folder / "annotations.xml", f"{head}{items}</image></annotations>"
    )


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
    return lambda folder: as_text(folder / "ap.xml", text)


_BND = "<bndbox><xmin>5</xmin><ymin>4</ymin><xmax>17</xmax><ymax>13</ymax></bndbox>"
_ROB = "<robndbox><cx>20</cx><cy>14</cy><w>20</w><h>8</h><angle>0.5235988</angle></robndbox>"
_PT, _PT_OF_RING = (
    "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ring) for ring in (DENTED, RING)
)
_XY = "".join(f"<x{k}>{x}</x{k}><y{k}>{y}</y{k}>" for k, (x, y) in enumerate(DENTED, 1))
VOC = [
    Case("box", voc(_BND), {AP: BOX}),
    Case("turned box", voc(_ROB), {}, {AP: turned_box(20, 14, 20, 8, 30)}),
    Case("polygon, pt", voc(f"<polygon>{_PT}</polygon>"), {}, {AP: within(DENTED)}),
    Case("polygon, x1", voc(f"{_BND}<polygon>{_XY}</polygon>"), {}, {AP: within(DENTED)}),
    Case(
        "two boxes of one object",
        voc(_BND + "<bndbox><xmin>30</xmin><ymin>20</ymin><xmax>35</xmax><ymax>25</ymax></bndbox>"),
        {AP: BOX | box(30, 20, 35, 25)},
    ),
    Case(
        "two polygons of one object",
        voc(f"<polygon>{_PT}</polygon><polygon>{_PT_OF_RING}</polygon>"),
        {},
        {AP: within(DENTED) | within(RING)},
    ),
    Case(
        "one without edges",
        voc("<difficult>0</difficult>", _BND),
        {AP: BOX},
        says=("damaged: ap.xml: object 1 of ap.png: no bndbox",),
    ),
]


def yolo(*lines: str, name: str = "ap.txt") -> Write:
    return lambda folder: as_text(folder / name, "\n".join(lines)).parent


_SHARES = f"{11 / W} {8.5 / H} {12 / W} {9 / H}"
_CORNERS = [(4, 6), (28, 6)]
_OBB = [(12, 6), (28, 14), (24, 22), (8, 14)]
YOLO = [
    Case("box", yolo(f"0 {_SHARES}"), {AP: BOX}),
    Case(
        "class with a point",
        yolo(f"1.0 {_SHARES}", "2.0 0.8 0.8 0.1 0.1"),
        {AP: BOX},
        labels=("1",),
    ),
    Case("class as numpy saves it", yolo(f"1.000e+00 {_SHARES}"), {AP: BOX}, labels=("1",)),
    Case(
        "three corners, the last on the lower edge",
        yolo("0 " + " ".join(f"{x / W} {y / H}" for x, y in _CORNERS) + " 0.5 1"),
        {},
        {AP: within([*_CORNERS, (W / 2, H)])},
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
    return as_json(tree | {"shapes": [{"label": "lesion"} | one for one in shapes]}, "ap.json")


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
    Case(
        "of four points in any order",
        labelme({"shape_type": "rectangle", "points": [_OBB[k] for k in (0, 2, 1, 3)]}),
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
    return as_json({f"{name}9": {"filename": name, "size": 9, "regions": regions}})


def project(*shapes: dict[str, Any]) -> Write:
    attributes = {"kind": {"fracture": True, "cast": False}, "note": ""}
    drawn = [{"shape_attributes": s, "region_attributes": attributes} for s in shapes]
    images = {"ap.png-1": {"filename": "ap.png", "size": -1, "regions": drawn}}
    return as_json({"_via_settings": {}, "_via_img_metadata": images, "_via_attributes": {}})


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
