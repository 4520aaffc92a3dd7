"""Films with candidates as files that a marking tool imports as they are: one function a tool.

Each takes what is to be marked and an empty folder. What a tool exports afterwards is read by the
films' names (`pcamx.data.marks`); the files as written here are refused or passed by there, since
nobody has looked at them yet. Points are x, y in pixels of the upright film, 0 0 its corner.
"""

import base64
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from pcamx.data.marks.formats.predictions import LABELME_VERSION, SUGGESTED, SUGGESTED_TAG
from pcamx.errors import PcamxError
from pcamx.output import counted, printable

LABEL = "lesion"
COLOUR = "#56b4e9"
FILMS = "films"
_UPLOAD = 200 * 10**6
"""Bytes; Label Studio refuses an import of 250 MiB, and its export holds the films again, of which
`pcamx.data.marks` reads 256 MiB."""
_GO_ON = "pcamx continue RUN --marks {} --out NEW_RUN"
_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What is no character in XML 1.0 (2.2), not even escaped."""


class ToMark(NamedTuple):
    """A film that is to be marked."""

    name: str
    """Of its PNG below films/: the film's path in the store."""
    width: int
    height: int
    png: bytes
    """8 bits, upright, as a reader sees it."""
    outlines: list[list[tuple[float, float]]]
    """Of the candidates, not closed."""
    about: dict[str, str]
    """What a person may want to know of it, by name."""


def label_studio(films: Sequence[ToMark], folder: Path) -> None:
    """Write tasks.json, which holds the films, and label_config.xml (labelstud.io).

    Where that would be too large to be imported and read back, tasks1.json and so on.
    """
    parts = _parts(films)
    names = [f"tasks{n if len(parts) > 1 else ''}.json" for n in range(1, len(parts) + 1)]
    for name, part in zip(names, parts, strict=True):
        _json(folder / name, [_task(film) for film in part])
    _xml(folder / "label_config.xml", _label_config(), declared=False)  # which is refused there
    new, import_, export = "New project", "tasks.json", "EXPORT.json"
    if len(parts) > 1:
        new, import_ = f"{len(parts)} new projects", f"one of {names[0]} to {names[-1]} into each"
        export = " ".join(f"EXPORT{n}.json" for n in range(1, len(parts) + 1))
    _readme(
        folder,
        films,
        f"{new} in Label Studio; Labeling Setup, Custom template, Code: label_config.xml.",
        f"Import {import_}. The candidates appear as predictions: correct, delete or draw; Submit.",
        f"Export as JSON, and {_GO_ON.format(export)} (or pcamx marks check).",
    )


def _parts(films: Sequence[ToMark]) -> list[list[ToMark]]:
    """The films in their order, at most _UPLOAD of them together."""
    parts: list[list[ToMark]] = [[]]
    size = 0
    for film in films:
        size += len(film.png) * 4 // 3  # as base64
        if parts[-1] and size > _UPLOAD:
            parts.append([])
            size = len(film.png) * 4 // 3
        parts[-1].append(film)
    return parts


def _task(film: ToMark) -> dict[str, Any]:
    png = base64.b64encode(film.png).decode()
    regions = [_region(number, one, film) for number, one in enumerate(film.outlines, 1)]
    return {
        "data": film.about | {"image": f"data:image/png;base64,{png}", "film": film.name},
        "predictions": [{"model_version": "pcamx", "result": regions}],
    }


def _label_config() -> ElementTree.Element:
    """The labelling interface: outlines, and a brush, on the image of a task."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Header", value="$film")
    tools = dict.fromkeys(("zoom", "zoomControl", "brightnessControl", "contrastControl"), "true")
    ElementTree.SubElement(view, "Image", {"name": "image", "value": "$image"} | tools)
    for kind, name in (("PolygonLabels", "outline"), ("BrushLabels", "brush")):
        labels = ElementTree.SubElement(view, kind, name=name, toName="image")
        ElementTree.SubElement(labels, "Label", value=LABEL, background=COLOUR)
    return view


def _region(number: int, outline: list[tuple[float, float]], film: ToMark) -> dict[str, Any]:
    points = [[100 * x / film.width, 100 * y / film.height] for x, y in outline]
    return {
        "id": f"candidate{number}",
        "from_name": "outline",
        "to_name": "image",
        "type": "polygonlabels",
        "original_width": film.width,
        "original_height": film.height,
        "image_rotation": 0,
        "value": {"points": points, "closed": True, "polygonlabels": [LABEL]},
    }


def cvat(films: Sequence[ToMark], folder: Path) -> None:
    """Write films.zip, labels.json and annotations.xml, CVAT for images 1.1 (cvat.ai).

    Raises PcamxError for a name that XML cannot hold.
    """
    for film in films:
        if _NO_XML.search(film.name):
            raise PcamxError(
                f"{printable(film.name)}: its name holds a control character, which CVAT's XML "
                "cannot; rename the film and prepare again"
            )
    with zipfile.ZipFile(folder / "films.zip", "w") as file:
        for film in films:
            file.writestr(film.name, film.png)
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    meta = ElementTree.SubElement(root, "meta")
    ElementTree.SubElement(meta, SUGGESTED_TAG).text = SUGGESTED
    for number, film in enumerate(films):
        facts = {"id": str(number), "name": film.name}
        facts |= {"width": str(film.width), "height": str(film.height)}
        image = ElementTree.SubElement(root, "image", facts)
        for outline in film.outlines:
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in outline)
            drawn = {"label": LABEL, "source": "auto", "occluded": "0", "points": points}
            ElementTree.SubElement(image, "polygon", drawn | {"z_order": "0"})
    _xml(folder / "annotations.xml", root)
    _json(folder / "labels.json", [{"name": LABEL, "color": COLOUR, "attributes": []}])
    _readme(
        folder,
        films,
        "New task in CVAT: paste labels.json into Raw labels, upload films.zip as its files.",
        "Actions, Upload annotations, CVAT 1.1: annotations.xml. Correct, delete or draw; save.",
        f"Export as CVAT for images 1.1, and {_GO_ON.format('EXPORT.zip')}, packed as it is.",
    )


def labelme(films: Sequence[ToMark], folder: Path) -> None:
    """Write each film with its json beside it (github.com/wkentaro/labelme)."""
    for film in films:
        path = _png(folder, film)
        tree: dict[str, Any] = {
            "version": LABELME_VERSION,
            "flags": {},
            "shapes": [
                {
                    "label": LABEL,
                    "points": [list(point) for point in outline],
                    "group_id": None,
                    "shape_type": "polygon",
                    "flags": {},
                }
                for outline in film.outlines
            ],
            "imagePath": path.name,
            "imageData": None,
            "imageHeight": film.height,
            "imageWidth": film.width,
        }
        _json(path.with_suffix(".json"), tree)
    _readme(
        folder,
        films,
        f"Open the folder {FILMS} in LabelMe (Open Dir lists its subfolders too).",
        "Correct, delete or draw, and save every film, one that needs no change as well.",
        f"{_GO_ON.format(FILMS)}: of films that were not saved nothing is taken.",
    )


def coco(films: Sequence[ToMark], folder: Path) -> None:
    """Write the films and annotations.json, which most tools import (cocodataset.org)."""
    for film in films:
        _png(folder, film)
    pairs = [(i, outline) for i, film in enumerate(films, 1) for outline in film.outlines]
    tree = {
        "info": {"description": SUGGESTED},
        "images": [
            {"id": i, "file_name": film.name, "width": film.width, "height": film.height}
            for i, film in enumerate(films, 1)
        ],
        "annotations": [
            {"id": n, "image_id": i, "category_id": 1, "iscrowd": 0} | _polygon(outline)
            for n, (i, outline) in enumerate(pairs, 1)
        ],
        "categories": [{"id": 1, "name": LABEL, "supercategory": ""}],
    }
    _json(folder / "annotations.json", tree)
    _readme(
        folder,
        films,
        f"Import {FILMS} and annotations.json into a tool that reads COCO.",
        "Correct, delete or draw.",
        f"Export from there, and {_GO_ON.format('EXPORT.json')}.",
    )


def _polygon(outline: list[tuple[float, float]]) -> dict[str, Any]:
    xs, ys = zip(*outline, strict=True)
    area = sum(
        x0 * y1 - x1 * y0
        for (x0, y0), (x1, y1) in zip(outline, [*outline[1:], outline[0]], strict=True)
    )
    return {
        "segmentation": [[value for point in outline for value in point]],
        "bbox": [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)],
        "area": abs(area) / 2,
    }


def _png(folder: Path, film: ToMark) -> Path:
    path = folder / FILMS / film.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(film.png)
    return path


def _json(path: Path, tree: Any) -> None:
    path.write_text(json.dumps(tree, ensure_ascii=False) + "\n", encoding="utf-8")


def _xml(path: Path, root: ElementTree.Element, *, declared: bool = True) -> None:
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=declared)


def _readme(folder: Path, films: Sequence[ToMark], *lines: str) -> None:
    drawn = sum(bool(film.outlines) for film in films)
    count = counted(len(films), "film")
    head = f"{count}; the model's candidates are drawn in on {drawn or 'none'} of them.\n"
    numbered = [f"{number}. {line}\n" for number, line in enumerate(lines, 1)]
    (folder / "README.txt").write_text("".join([head, *numbered]), encoding="utf-8")
