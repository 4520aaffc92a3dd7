"""A film as a reading process hands it over: small, whatever the film's size.

Imports no torch, so that these processes start fast. Shapes: H W the film, or the film as drawn.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcamx.data.files.file_content import UnfitError
from pcamx.data.files.film import read_film
from pcamx.explain.inputs import FilmPath

LONG_SIDE = 1000
"""Limits the longer side of a drawn film, in pixels of the picture."""


class Reading(NamedTuple):
    """What is kept of a film that could be read."""

    path: Path
    name: str
    kind: str
    width: int
    """Upright pixels."""
    height: int
    white: int
    turn: int
    sha256: str
    uids: dict[str, str]
    shown_HW: NDArray[np.uint8]
    """The film to be drawn, at most LONG_SIDE long."""
    grey_HW: NDArray[Any] | None
    """The pixels of a DICOM, which DALI does not decode, and of any film where they are kept."""


def read(film: FilmPath, *, keep_pixels: bool = False) -> Reading | str:
    """Read one film; or the reason why it cannot be."""
    if film.refusal:
        return film.refusal
    try:
        file = read_film(film.path)
    except UnfitError as reason:
        return str(reason)
    height, width = file.grey_HW.shape
    return Reading(
        film.path,
        film.name,
        file.kind,
        width,
        height,
        file.white,
        file.turn,
        file.sha256,
        file.uids,
        _shown(file.grey_HW, file.white),
        file.grey_HW if keep_pixels or file.kind == "DICOM" else None,
    )


def _shown(grey_HW: NDArray[Any], white: int) -> NDArray[np.uint8]:
    """8 bits, reduced to LONG_SIDE; a small film is enlarged pixel by pixel, nothing made up."""
    if grey_HW.dtype != np.uint8:
        grey_HW = np.rint(grey_HW * np.float32(255 / white)).astype(np.uint8)
    height, width = grey_HW.shape
    if max(height, width) <= LONG_SIDE:
        times = LONG_SIDE // max(height, width)
        return grey_HW.repeat(times, axis=0).repeat(times, axis=1)
    shrink = LONG_SIDE / max(height, width)
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    return np.asarray(Image.fromarray(grey_HW).resize(size, Image.Resampling.LANCZOS))
