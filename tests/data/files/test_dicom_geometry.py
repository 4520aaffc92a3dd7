"""DICOM films under a display shutter, and of pixels that are not square."""

import dicoms
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pcamx.data.files.dicom import DicomFile, read_dicom
from pcamx.data.files.file_content import UnfitError

HEIGHT, WIDTH = 24, 40
FILM = dicoms.ramp(HEIGHT, WIDTH, 3000) + 1000


def read(tmp_path_factory: pytest.TempPathFactory, film: Dataset) -> DicomFile:
    path = tmp_path_factory.mktemp("film") / "a.dcm"
    return read_dicom(dicoms.save(film, path).read_bytes())


def rectangle(left: int, right: int, top: int, bottom: int) -> dict[str, object]:
    return {
        "ShutterShape": "RECTANGULAR",
        "ShutterLeftVerticalEdge": left,
        "ShutterRightVerticalEdge": right,
        "ShutterUpperHorizontalEdge": top,
        "ShutterLowerHorizontalEdge": bottom,
    }


CIRCLE = {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [13, 21]}
CIRCLE |= {"RadiusOfCircularShutter": 5}
# A square whose corners are pixels, rows first.
POLYGON = {
    "ShutterShape": "POLYGONAL",
    "VerticesOfThePolygonalShutter": [5, 10, 5, 20, 15, 20, 15, 10],
}


def within(left: int, right: int, top: int, bottom: int) -> NDArray[np.bool_]:
    """Rows and columns from 1, ends included."""
    found = np.zeros((HEIGHT, WIDTH), bool)
    found[top - 1 : bottom, left - 1 : right] = True
    return found


def disc() -> NDArray[np.bool_]:
    found = np.zeros((HEIGHT, WIDTH), bool)
    for row in range(1, HEIGHT + 1):
        for column in range(1, WIDTH + 1):
            found[row - 1, column - 1] = (row - 13) ** 2 + (column - 21) ** 2 <= 25
    return found


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("shutter", "shown"),
    [
        (rectangle(11, 30, 5, 20), within(11, 30, 5, 20)),
        (rectangle(-3, 99, 5, 20), within(1, 40, 5, 20)),
        (CIRCLE, disc()),
        (POLYGON, within(10, 20, 5, 15)),
        (
            rectangle(18, 30, 5, 20) | CIRCLE | {"ShutterShape": ["RECTANGULAR", "CIRCULAR"]},
            disc() & within(18, 30, 5, 20),
        ),
    ],
)
def test_what_a_shutter_covers_is_black(
    tmp_path_factory: pytest.TempPathFactory,
    shutter: dict[str, object],
    shown: NDArray[np.bool_],
    kind: str,
) -> None:
    plain = dicoms.dataset(FILM, PhotometricInterpretation=kind)
    bright = FILM.copy()
    bright[~shown] = 4095  # of no account
    film = dicoms.dataset(bright, PhotometricInterpretation=kind, **shutter)
    found, whole = (read(tmp_path_factory, one) for one in (film, plain))
    assert not found.grey_HW[~shown].any() and found.padded == np.count_nonzero(~shown)
    assert np.array_equal(found.grey_HW[shown], whole.grey_HW[shown])


def test_a_shutter_takes_part_in_no_range(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Signed levels are stretched from the darkest to the brightest that are shown."""
    levels = FILM.astype(np.int16) - 2500
    levels[:, :10] = -2048
    film = dicoms.dataset(levels, **rectangle(11, 40, 1, 24))
    grey = read(tmp_path_factory, film).grey_HW
    assert grey[:, 10:].min() == 0 and grey[:, 10:].max() == 65535 and not grey[:, :10].any()


@pytest.mark.parametrize(
    ("shutter", "message"),
    [
        (rectangle(30, 11, 5, 20), "its shutter covers all of it; see ShutterShape"),
        (rectangle(11, 30, 5, 20) | {"ShutterShape": "OVAL"}, "ShutterShape OVAL is not one of"),
        ({"ShutterShape": "RECTANGULAR"}, "ShutterLeftVerticalEdge has 0 numbers"),
        (POLYGON | {"VerticesOfThePolygonalShutter": [1, 2, 3, 4]}, "has 4 numbers"),
        (POLYGON | {"VerticesOfThePolygonalShutter": [1, 2, 3, 4, 5, 6, 7]}, "make no points"),
    ],
)
def test_a_shutter_that_cannot_be_followed(
    tmp_path_factory: pytest.TempPathFactory, shutter: dict[str, object], message: str
) -> None:
    with pytest.raises(UnfitError, match=message):
        read(tmp_path_factory, dicoms.dataset(FILM, **shutter))


def test_no_shutter_without_a_shape(tmp_path_factory: pytest.TempPathFactory) -> None:
    film = dicoms.dataset(FILM, **(rectangle(11, 30, 5, 20) | {"ShutterShape": ""}))
    assert np.array_equal(read(tmp_path_factory, film).grey_HW, FILM)


@pytest.mark.parametrize(
    "name", ["PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"]
)
def test_pixels_that_are_not_square(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    words = {name: [2, 1] if name == "PixelAspectRatio" else ["0.2", "0.1"]}
    with pytest.raises(UnfitError, match=rf"not square \(its {name} is .* down, .* across\)"):
        read(tmp_path_factory, dicoms.dataset(FILM, **words))
    for square in ([1, 1] if name == "PixelAspectRatio" else ["0.1435", "0.144"], "", None):
        film = dicoms.dataset(FILM)
        if square is not None:
            setattr(film, name, square)
        assert read(tmp_path_factory, film).padded == 0
