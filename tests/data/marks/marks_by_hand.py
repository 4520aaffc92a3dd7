"""The same lesion written by hand in every format, on the film a/x.jpg of 20 x 10 pixels.

polygon: x 4 to 8, y 2 to 6. box: the same edges. mask: five pixels, an L with its foot to the
right: (4, 2), (4, 3), (4, 4), (5, 4), (6, 4).
"""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

W, H = 20, 10
FILMS: dict[str, tuple[int, int] | None] = {
    "a/x.jpg": (W, H),
    "a/y.jpg": (10, 10),
    "b/y.png": (10, 10),
    "bad.png": None,
}
SQUARE = [4, 2, 8, 2, 8, 6, 4, 6]
L_ROWS = [[1, 0, 0], [1, 0, 0], [1, 1, 1]]


def mask(kind: str) -> NDArray[np.uint8]:
    """What each must become."""
    want = np.zeros((H, W), np.uint8)
    if kind in ("polygon", "box"):
        want[2:6, 4:8] = 255
    else:
        want[2:5, 4:7] = np.array(L_ROWS, np.uint8) * 255
    return want


def _json(file: Path, tree: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(tree), encoding="utf-8")
    return file


# Down the columns: 4 columns of 10 and 2 pixels, then 3 set; 7 + 2 down to the foot, ...
COCO_COUNTS = [42, 3, 9, 1, 9, 1, 200 - 65]


def coco(folder: Path, kind: str, name: str = "a/x.jpg", **image: Any) -> Path:
    drawn: dict[str, dict[str, Any]] = {
        "polygon": {"segmentation": [SQUARE], "bbox": [4, 2, 4, 4]},
        "box": {"bbox": [4, 2, 4, 4]},
        "mask": {"segmentation": {"size": [H, W], "counts": COCO_COUNTS}},
    }
    mark = {"id": 1, "image_id": 7, "category_id": 3} | drawn[kind]
    tree = {
        "images": [{"id": 7, "file_name": name, "width": W, "height": H} | image],
        "annotations": [mark],
        "categories": [{"id": 3, "name": "fracture"}],
    }
    return _json(folder / "coco.json", tree)


def voc(folder: Path, kind: str, name: str = "x.jpg", size: tuple[int, int] = (W, H)) -> Path:
    file = folder / "x.xml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        f"<annotation><folder>any</folder><filename>{name}</filename><size><width>{size[0]}</width>"
        f"<height>{size[1]}</height><depth>1</depth></size><object><name>fracture</name><bndbox>"
        "<xmin>4</xmin><ymin>2</ymin><xmax>8</xmax><ymax>6</ymax></bndbox></object></annotation>",
        encoding="utf-8",
    )
    return file


def yolo(folder: Path, kind: str) -> Path:
    lines = {"box": "0 0.3 0.4 0.2 0.4", "polygon": "0 0.2 0.2 0.4 0.2 0.4 0.6 0.2 0.6"}
    file = folder / "x.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(lines[kind] + "\n")
    return file


def labelme(folder: Path, kind: str, name: str = "x.jpg", size: tuple[int, int] = (W, H)) -> Path:
    png = io.BytesIO()
    Image.fromarray(np.array(L_ROWS, np.uint8) * 255).save(png, "PNG")
    drawn: dict[str, dict[str, Any]] = {
        "polygon": {"points": [[4, 2], [8, 2], [8, 6], [4, 6]], "shape_type": "polygon"},
        "box": {"points": [[8, 6], [4, 2]], "shape_type": "rectangle"},
        "mask": {
            "points": [[4, 2], [6, 4]],
            "shape_type": "mask",
            "mask": base64.b64encode(png.getvalue()).decode(),
        },
    }
    tree = {"version": "5.5.0", "flags": {}, "shapes": [{"label": "fracture"} | drawn[kind]]}
    tree |= {"imagePath": name, "imageData": None, "imageWidth": size[0], "imageHeight": size[1]}
    return _json(folder / "x.json", tree)


def brush(alpha: NDArray[np.uint8]) -> list[int]:
    """Label Studio's packing of a picture whose alpha is given, all of it in runs of one value."""
    height, width = alpha.shape
    flat = np.zeros((height, width, 4), np.uint8)
    flat[..., 3] = alpha
    bits = f"{flat.size:032b}" + f"{8 - 1:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    for value in flat.ravel().tolist():
        bits += "1" + "00" + f"{1 - 1:03b}" + f"{value:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def label_studio(
    folder: Path,
    kind: str,
    name: str = "/data/upload/1/1a2b3c4d-x.jpg",
    size: tuple[int, int] = (W, H),
) -> Path:
    drawn: dict[str, dict[str, Any]] = {
        "polygon": {"points": [[20, 20], [40, 20], [40, 60], [20, 60]], "closed": True},
        "box": {"x": 20, "y": 20, "width": 20, "height": 40, "rotation": 0},
        "mask": {"format": "rle", "rle": brush(mask("mask"))},
    }
    word = {"polygon": "polygon", "box": "rectangle", "mask": "brush"}[kind] + "labels"
    region = {
        "original_width": size[0],
        "original_height": size[1],
        "image_rotation": 0,
        "type": word,
        "value": drawn[kind] | {word: ["fracture"]},
    }
    choice = {"type": "choices", "value": {"choices": ["abnormal"]}}
    done = {"id": 1, "was_cancelled": False, "result": [choice, region]}
    dropped = {"id": 2, "was_cancelled": True, "result": [{"broken": 1}]}
    task = {"id": 5, "data": {"image": name}, "annotations": [done, dropped], "predictions": [3]}
    return _json(folder / "export.json", [task])


def cvat(folder: Path, kind: str, name: str = "a/x.jpg", size: tuple[int, int] = (W, H)) -> Path:
    drawn = {
        "polygon": '<polygon label="fracture" points="4.00,2.00;8.00,2.00;8.00,6.00;4.00,6.00"/>',
        "box": '<box label="fracture" xtl="4.0" ytl="2.0" xbr="8.0" ybr="6.0"/>',
        "mask": '<mask label="fracture" rle="0, 1, 2, 1, 2, 3" left="4" top="2" width="3" '
        'height="3"/>',
    }
    file = folder / "annotations.xml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta/>'
        f'<image id="0" name="{name}" width="{size[0]}" height="{size[1]}">{drawn[kind]}</image>'
        "</annotations>",
        encoding="utf-8",
    )
    return file


def images(folder: Path, kind: str) -> Path:
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask(kind)).save(folder / "masks" / "x.png")
    return folder / "masks"


WRITE: dict[tuple[str, str], Callable[..., Path]] = {
    (name, kind): write
    for name, write, kinds in (
        ("COCO", coco, ("polygon", "box", "mask")),
        ("Pascal VOC", voc, ("box",)),
        ("YOLO", yolo, ("box", "polygon")),
        ("LabelMe", labelme, ("polygon", "box", "mask")),
        ("Label Studio", label_studio, ("polygon", "box", "mask")),
        ("CVAT", cvat, ("polygon", "box", "mask")),
        ("mask images", images, ("mask",)),
    )
    for kind in kinds
}
