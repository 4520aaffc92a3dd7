"""Small files that ask for much are refused before they are expanded; limits are lowered here."""

import tracemalloc
from io import BytesIO
from typing import Any

import dicoms
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian

from pcamx.data.files import dicom_attributes
from pcamx.data.files.dicom import read_dicom
from pcamx.data.files.file_content import UnfitError
from pcamx.data.files.image import read_image


def content(film: Dataset) -> bytes:
    file = BytesIO()
    dcmwrite(file, film, enforce_file_format=True)
    return file.getvalue()


def refusal(data: bytes) -> str:
    with pytest.raises(UnfitError) as caught:
        read_dicom(data)
    return str(caught.value)


@pytest.mark.parametrize("name", ["WindowCenter", "VerticesOfThePolygonalShutter"])
def test_an_attribute_of_very_many_values(name: str) -> None:
    shutter = {"ShutterShape": "POLYGONAL"} if name.startswith("Vertices") else {}
    film = dicoms.dataset(dicoms.ramp(), WindowWidth=10, **shutter)
    setattr(film, name, ["1"] * 40_000)
    film.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    assert refusal(content(film)) == f"its {name} takes 80,000 bytes, more than any film's"


def test_a_sequence_of_very_many_items(monkeypatch: pytest.MonkeyPatch) -> None:
    film = dicoms.dataset(dicoms.ramp())
    film.VOILUTSequence = Sequence([Dataset() for _ in range(30)])
    data = content(film)
    assert read_dicom(data).grey_HW.shape == dicoms.ramp().shape
    monkeypatch.setattr(dicom_attributes, "_MOST_ITEMS", 29)
    assert refusal(data) == "more than 29 sequence items or fragments; save it anew"
    monkeypatch.setattr(dicom_attributes, "_MOST_ITEMS", 30)
    monkeypatch.setattr(dicom_attributes, "_MOST_OF_A_SEQUENCE", 239)
    assert refusal(data) == "its VOILUTSequence takes 240 bytes, more than any film's"


def test_very_many_fragments(monkeypatch: pytest.MonkeyPatch) -> None:
    film = dicoms.dataset(dicoms.ramp())
    film.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.80"
    film.PixelData = encapsulate([bytes(300)], fragments_per_frame=50)
    film["PixelData"].VR, film["PixelData"].is_undefined_length = "OB", True
    monkeypatch.setattr(dicom_attributes, "_MOST_ITEMS", 50)
    assert refusal(content(film)) == "more than 50 sequence items or fragments; save it anew"


@pytest.mark.parametrize("nested", [False, True])
def test_very_many_attributes(nested: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    many = Dataset()
    for number in range(500):
        many.add_new(0x00990000 + number, "US", 1)
    film = dicoms.dataset(dicoms.ramp())
    if nested:
        film.ReferencedImageSequence = Sequence([many])
        film["ReferencedImageSequence"].is_undefined_length = True
    else:
        film.update(many)
    read_dicom(content(film))
    monkeypatch.setattr(dicom_attributes, "_MOST_READS", 500)
    assert refusal(content(film)) == "its header is in more than 500 parts; save it anew"


@pytest.mark.parametrize("suffix", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_looked_at_in_strips(suffix: str, mode: str) -> None:
    """What Pillow allocates is not seen here, what numpy does is: no array of the whole film."""
    side, file = 1500, BytesIO()
    Image.new(mode, (side, side), (7, 7, 7, 255)[-len(mode) :]).save(file, suffix)
    read_image(file.getvalue())  # imports
    tracemalloc.start()
    try:
        read_image(file.getvalue())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * side * side


@pytest.mark.parametrize("row", [0, 700, 1499])
def test_what_alpha_hides_is_found_in_any_strip(row: int) -> None:
    film_HW4: Any = np.full((1500, 900, 4), 255, np.uint8)
    film_HW4[row, 5] = (9, 9, 9, 0)
    file = BytesIO()
    Image.fromarray(film_HW4).save(file, "PNG")
    with pytest.raises(UnfitError, match="in part transparent, and not black underneath"):
        read_image(file.getvalue())


def test_a_film_that_is_clear_all_over_hides_nothing() -> None:
    film_HW4 = np.full((1500, 900, 4), 90, np.uint8)
    film_HW4[..., 3] = 0
    file = BytesIO()
    Image.fromarray(film_HW4).save(file, "PNG")
    assert (read_image(file.getvalue()).grey_HW == 90).all()
