"""One film file of any format that is read, as a person hands it over.

Shapes: H W the upright film.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from pcamx.data.files.dicom import read_dicom
from pcamx.data.files.file_content import UnfitError, is_dicom, read_bytes
from pcamx.data.files.image import read_image, white_level


class FilmFile(NamedTuple):
    """A decoded film and what its file says of it."""

    kind: str
    """PNG, JPEG, TIFF, BMP or DICOM, by its content."""
    grey_HW: NDArray[Any]
    """Upright, uint8 or uint16, 0 is black."""
    white: int
    """Grey level shown as white, as in `pcamx.data.store.Film`."""
    turn: int
    """EXIF orientation, 1 to 8, by which the stored pixels were turned upright; 1 for DICOM."""
    sha256: str
    """Of the file."""
    uids: dict[str, str]
    """Of a DICOM: SOPInstanceUID, SeriesInstanceUID and StudyInstanceUID, where given."""
    padded: int
    """Pixels of a border that is filled in or not shown, 0 here; a DICOM says so. In no
    statistic."""


def read_film(path: Path) -> FilmFile:
    """Read a PNG, JPEG, TIFF or BMP as training does, or a DICOM as a viewer shows it.

    Raises UnfitError with the reason, without the file's name; also where it takes more memory
    than this process may have.
    """
    try:
        return _read(path)
    except MemoryError:
        raise UnfitError("decoding it takes too much memory; save it anew, or smaller") from None


def _read(path: Path) -> FilmFile:
    data = read_bytes(path)
    digest = hashlib.sha256(data).hexdigest()
    if is_dicom(data):
        grey_HW, uids, padded = read_dicom(data)
        return FilmFile("DICOM", grey_HW, white_level(grey_HW), 1, digest, uids, padded)
    kind, grey_HW, turn = read_image(data)
    return FilmFile(kind, grey_HW, white_level(grey_HW), turn, digest, {}, 0)
