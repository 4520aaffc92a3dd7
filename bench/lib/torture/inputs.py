"""One small file of every kind that a user may hand in, and what reads it."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image
from pydicom import FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
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

_TEXTS = Path(__file__).with_name("samples")
_KINDS = sorted(path.name for path in (_TEXTS / "marks").iterdir())
_FILM, _WIDTH, _HEIGHT = "a.png", 48, 40
"""Of which the marks are."""


SYNTAXES = {
    "plain": ExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg2000": JPEG2000Lossless,
    "jpegls": JPEGLSLossless,
    "ljpeg": JPEGLosslessSV1,
    "htj2k": HTJ2KLossless,
}
_STREAMS: Mapping[str, Callable[[np.ndarray[Any, Any]], bytes]] = {
    "ljpeg": lambda grey_HW: bytes(imagecodecs.ljpeg_encode(grey_HW, bitspersample=12)),
    "htj2k": lambda grey_HW: bytes(imagecodecs.htj2k_encode(grey_HW, reversible=True)),
}
"""What pydicom has no encoder for."""


def draw_inputs(folder: Path) -> None:
    """Write them into the new ``folder``: the texts of samples/, and pictures."""
    shutil.copytree(_TEXTS, folder)
    (folder / "atlas/images/Fractured").mkdir(parents=True)
    (folder / "graz/images").mkdir()
    grey = np.random.default_rng(0).integers(0, 256, (_HEIGHT, _WIDTH), dtype=np.uint8)
    for name in (_FILM, "a.jpg", "a.tiff", "a.bmp"):
        Image.fromarray(grey).save(folder / name)
    deep = grey.astype(np.uint16) * 16
    Image.fromarray(deep).save(folder / "deep.png")
    for syntax in SYNTAXES:
        _draw_dicom(deep, folder / f"{syntax}.dcm", syntax)
    Image.fromarray((grey > 250).astype(np.uint8) * 255).save(folder / "marks/mask.png")


def _draw_dicom(grey_HW: np.ndarray[Any, Any], path: Path, syntax: str) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[syntax])
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
    meta.TransferSyntaxUID = SYNTAXES[syntax]
    if syntax in _STREAMS:
        film.PixelData = encapsulate([_STREAMS[syntax](grey_HW)])
        film["PixelData"].VR, film["PixelData"].is_undefined_length = "OB", True
    elif syntax != "plain":
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        film.compress(SYNTAXES[syntax])
    film.save_as(path, enforce_file_format=True)


Use = Callable[[Path], Any]
"""What is made of a file."""


def _marks(path: Path) -> list[int]:
    """The marked pixels of each film."""
    names = (_FILM, "mask.png")
    marks = read_marks(path, dict.fromkeys(names, (_WIDTH, _HEIGHT)))
    return [int(make().sum()) for make in marks.masks.values() if make is not None]


def markers(path: Path) -> Any:
    """Return the side markers of a markers.csv of the films of a store beside them."""
    store = read_store(path.parents[2] / "store")
    return read_markers(store, store.films, 32)


_RUN = RunFolder(Path("run"))
FUZZ: Mapping[str, Use] = {
    "inputs/*.png": read_film,
    "inputs/*.jpg": read_film,
    "inputs/*.tiff": read_film,
    "inputs/*.bmp": read_film,
    **{f"inputs/{syntax}.dcm": read_film for syntax in SYNTAXES},
    **{f"inputs/marks/{name}": _marks for name in (*_KINDS, "mask.png")},
    "inputs/films.csv": read_table,
    "inputs/graz/dataset.csv": lambda path: read_graz(path.parent),
    "inputs/atlas/dataset.csv": lambda path: read_fracatlas(path.parent),
    f"inputs/{_RUN.report_file.name}": lambda path: read_report(RunFolder(path.parent)),
    "films/MURA-v1.1/*_*.csv": lambda path: read_mura(path.parent),
    "films/MURA-v1.1/markers.csv": markers,
    str(_RUN.history_file): lambda path: read_history(RunFolder(path.parent)),
    str(_RUN.films_file): read_films,
    str(_RUN.origin_file): lambda path: RunFolder(path.parent).id(),
    str(_RUN.config_file): configs.load,
    "store/manifest.csv": lambda path: read_store(path.parent),
    "store/content.csv": lambda path: read_store(path.parent),
    "store/store.json": lambda path: read_store(path.parent),
    "export/config.json": lambda path: from_pretrained(path.parent, device="cpu"),
}
