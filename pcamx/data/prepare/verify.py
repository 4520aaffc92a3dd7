"""Whether one film may go into the manifest, and what is to be known about it."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pcamx.data.contents import Content
from pcamx.data.files.file_content import MISSING, UnfitError
from pcamx.data.files.film import FilmFile, read_film
from pcamx.data.files.lookup import count_levels
from pcamx.data.prepare.near_copies import look


class Facts(NamedTuple):
    """What the manifest records of a sound film; grey levels are scaled by 255 / white."""

    width: int
    height: int
    white: int
    mean: float
    mean_square: float
    dicom: bool
    """Which DALI does not decode."""
    turn: int
    """EXIF orientation that turned it upright."""
    content: Content
    """Of the file."""
    look: bytes
    """By which copies are found."""


def verify(path: Path) -> Facts | str:
    """Decode one film as training will; its facts, or the reason to keep it out."""
    try:
        before = path.stat()
        film = read_film(path)
        content = Content(before.st_size, before.st_mtime_ns, film.sha256)
        return _facts(film, content)
    except FileNotFoundError:
        return MISSING
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    except UnfitError as reason:
        return str(reason)


def _facts(film: FilmFile, content: Content) -> Facts:
    """Sums go over a histogram, in whole numbers: the same result on every machine."""
    grey_HW, white = film.grey_HW, film.white
    count = _histogram(grey_HW)
    level = np.arange(len(count))
    scale, pixels = 255 / white, grey_HW.size - film.padded  # a border is black: in no sum
    mean = int(count @ level) / pixels * scale
    mean_square = int(count @ level**2) / pixels * scale**2
    height, width = grey_HW.shape
    dicom = film.kind == "DICOM"
    return Facts(width, height, white, mean, mean_square, dicom, film.turn, content, look(grey_HW))


def _histogram(grey_HW: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    # Pillow's is three times as fast, and for 8 bits only.
    if grey_HW.dtype == np.uint8:
        return np.array(Image.fromarray(grey_HW).histogram())
    return count_levels(grey_HW)
