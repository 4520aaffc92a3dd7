"""One small file of every kind that a user may hand in, and what reads it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom import FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    generate_uid,
)

from pcamx import config as configs
from pcamx import from_pretrained
from pcamx.data.canvas.side_markers import read_markers
from pcamx.data.files.film import read_film
from pcamx.data.marks.collect import read_marks
from pcamx.data.sets.fracatlas import read_fracatlas
from pcamx.data.sets.graz import read_graz
from pcamx.data.sets.mura import read_mura
from pcamx.data.sets.table import read_table
from pcamx.data.store import read_store
from pcamx.evaluation.film_table import read_films
from pcamx.run.folder import RunFolder
from pcamx.run.history import read_history
from pcamx.run.report import read_report

_FILM, _WIDTH, _HEIGHT = "a.png", 48, 40
_SQUARE = [8, 8, 20, 8, 20, 20, 8, 20]
_PAIRS = [[8, 8], [20, 8], [20, 20], [8, 20]]
_SHARES = [{"x": 100 * x / _WIDTH, "y": 100 * y / _HEIGHT} for x, y in _PAIRS]
_SIZED = {"original_width": _WIDTH, "original_height": _HEIGHT}
_MARKS: Mapping[str, str] = {
    "coco.json": json.dumps(
        {
            "images": [{"id": 1, "file_name": _FILM, "width": _WIDTH, "height": _HEIGHT}],
            "categories": [{"id": 1, "name": "lesion"}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [_SQUARE]},
                {"id": 2, "image_id": 1, "category_id": 1, "bbox": [4, 4, 9, 12]},
                {
                    "id": 3,
                    "image_id": 1,
                    "category_id": 1,
                    "segmentation": {"size": [_HEIGHT, _WIDTH], "counts": [400, 200, 1320]},
                },
            ],
        }
    ),
    "labelme.json": json.dumps(
        {
            "version": "5.5.0",
            "imagePath": _FILM,
            "imageWidth": _WIDTH,
            "imageHeight": _HEIGHT,
            "shapes": [
                {"label": "lesion", "shape_type": "polygon", "points": _PAIRS},
                {"label": "lesion", "shape_type": "circle", "points": _PAIRS[:2]},
            ],
        }
    ),
    "label_studio.json": json.dumps(
        [
            {
                "id": 7,
                "data": {"image": f"/data/upload/1/1a2b3c4d-{_FILM}"},
                "annotations": [
                    {
                        "result": [
                            {
                                "type": "polygonlabels",
                                "to_name": "image",
                                **_SIZED,
                                "value": {
                                    "points": [[p["x"], p["y"]] for p in _SHARES],
                                    "polygonlabels": ["lesion"],
                                },
                            },
                            {
                                "type": "rectanglelabels",
                                "to_name": "image",
                                **_SIZED,
                                "value": {
                                    "x": 10,
                                    "y": 10,
                                    "width": 30,
                                    "height": 20,
                                    "rotation": 30,
                                    "rectanglelabels": ["lesion"],
                                },
                            },
                        ]
                    }
                ],
            }
        ]
    ),
    "via.json": json.dumps(
        {
            f"{_FILM}123": {
                "filename": _FILM,
                "size": 123,
                "regions": [
                    {
                        "shape_attributes": {
                            "name": "polygon",
                            "all_points_x": _SQUARE[::2],
                            "all_points_y": _SQUARE[1::2],
                        },
                        "region_attributes": {"name": "lesion"},
                    }
                ],
            }
        }
    ),
    "voc.xml": (
        f"<annotation><filename>{_FILM}</filename><size><width>{_WIDTH}</width>"
        f"<height>{_HEIGHT}</height><depth>1</depth></size><object><name>lesion</name><bndbox>"
        "<xmin>8</xmin><ymin>8</ymin><xmax>20</xmax><ymax>20</ymax></bndbox></object></annotation>"
    ),
    "cvat.xml": (
        f'<annotations><image id="0" name="{_FILM}" width="{_WIDTH}" height="{_HEIGHT}">'
        '<polygon label="lesion" points="8,8;20,8;20,20;8,20"/>'
        '<mask label="lesion" left="5" top="4" width="12" height="9" rle="20, 60, 28"/>'
        "</image></annotations>"
    ),
    "a.txt": "0 0.3 0.35 0.25 0.3\n0 0.2 0.2 0.5 0.2 0.5 0.5\n",
}
_GRAZ = (
    "filestem,patient_id,study_number,fracture_visible\n0001_0001_01_WRI-L1_M014,1,1,1\n"
    "0002_0001_01_WRI-R1_F010,2,1,\n"
)
_ATLAS = (
    "image_id,hand,leg,hip,shoulder,mixed,hardware,multiscan,fractured,fracture_count,frontal,"
    "lateral,oblique\nIMG0000000.jpg,1,0,0,0,0,0,0,1,1,1,0,0\nIMG0000001.jpg,0,1,0,0,0,1,0,0,0,1,0,0\n"
)


def draw_inputs(folder: Path) -> None:
    """Write them into the new ``folder``."""
    for name in ("marks", "atlas/images", "graz/images"):
        (folder / name).mkdir(parents=True)
    grey = np.random.default_rng(0).integers(0, 256, (_HEIGHT, _WIDTH), dtype=np.uint8)
    for name in (_FILM, "a.jpg", "a.tiff", "a.bmp"):
        Image.fromarray(grey).save(folder / name)
    deep = grey.astype(np.uint16) * 16
    Image.fromarray(deep).save(folder / "deep.png")
    for syntax in ("plain", "rle", "jpeg2000"):
        _draw_dicom(deep, folder / f"{syntax}.dcm", syntax)
    Image.fromarray((grey > 250).astype(np.uint8) * 255).save(folder / "marks/mask.png")
    for name, text in _MARKS.items():
        (folder / "marks" / name).write_text(text)
    (folder / "films.csv").write_text(
        f"path;label;patient;split;part\n{_FILM};1;p1;train;wrist\ndeep.png;0;p2;valid;\n"
    )
    (folder / "graz/dataset.csv").write_text(_GRAZ)
    (folder / "atlas/dataset.csv").write_text(_ATLAS)
    figure = {"value": 0.5, "low": 0.0, "high": 1.0, "n": 4}
    stage = {"localization": {"positive_cam": {"pointing": figure, "threshold": 0.5}}}
    report = {"format": 1, "stages": {"1": stage}, "baselines": {}, "data": {}, "config": {}}
    (folder / "report.json").write_text(json.dumps(report))


def _draw_dicom(grey_HW: np.ndarray[Any, Any], path: Path, syntax: str) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[syntax])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
    film.SOPClassUID = meta.MediaStorageSOPClassUID
    film.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    film.Modality, film.PatientID = "DX", "p"
    film.Rows, film.Columns = grey_HW.shape
    film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME2"
    film.BitsAllocated, film.BitsStored, film.HighBit = 16, 12, 11
    film.PixelRepresentation, film.PixelData = 0, grey_HW.tobytes()
    film.WindowCenter, film.WindowWidth = 2000, 3000
    film.RescaleSlope, film.RescaleIntercept = 2, -100
    if syntax != "plain":
        film.compress({"rle": RLELossless, "jpeg2000": JPEG2000Lossless}[syntax])
    film.save_as(path, enforce_file_format=True)


Use = Callable[[Path], Any]
"""What is made of a file."""


def _marks(path: Path) -> list[int]:
    """The marked pixels of each film."""
    names = (_FILM, "mask.png")
    marks = read_marks(path, dict.fromkeys(names, (_WIDTH, _HEIGHT)))
    return [int(make().sum()) for make in marks.masks.values() if make is not None]


def _markers(path: Path) -> Any:
    store = read_store(path.parents[2] / "store")
    return read_markers(store, store.films, 32)


FUZZ: Mapping[str, Use] = {
    "inputs/*.png": read_film,
    "inputs/*.jpg": read_film,
    "inputs/*.tiff": read_film,
    "inputs/*.bmp": read_film,
    "inputs/plain.dcm": read_film,
    "inputs/rle.dcm": read_film,
    "inputs/jpeg2000.dcm": read_film,
    **{f"inputs/marks/{name}": _marks for name in _MARKS},
    "inputs/marks/mask.png": _marks,
    "inputs/films.csv": read_table,
    "inputs/graz/dataset.csv": lambda path: read_graz(path.parent),
    "inputs/atlas/dataset.csv": lambda path: read_fracatlas(path.parent),
    "inputs/report.json": lambda path: read_report(RunFolder(path.parent)),
    "films/MURA-v1.1/*_*.csv": lambda path: read_mura(path.parent),
    "films/MURA-v1.1/markers.csv": _markers,
    "run/metrics.jsonl": lambda path: read_history(RunFolder(path.parent)),
    "run/films.csv": read_films,
    "run/origin.json": lambda path: RunFolder(path.parent).id(),
    "run/config.yaml": configs.load,
    "store/manifest.csv": lambda path: read_store(path.parent),
    "store/content.csv": lambda path: read_store(path.parent),
    "store/store.json": lambda path: read_store(path.parent),
    "export/config.json": lambda path: from_pretrained(path.parent, device="cpu"),
}
