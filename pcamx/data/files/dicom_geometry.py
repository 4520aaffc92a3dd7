"""Which part of a DICOM film is shown, and whether its pixels are square.

A display shutter (PS3.3, C.7.6.11) covers what lies outside the collimated field. Viewers put a
flat value there, black as a rule; a film may be bright or noisy underneath.

Shapes: H W the film.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pcamx.data.files.dicom_attributes import attribute, numbers
from pcamx.data.files.file_content import UnfitError

if TYPE_CHECKING:
    from pydicom import Dataset

_EDGES = (
    "ShutterLeftVerticalEdge",
    "ShutterRightVerticalEdge",
    "ShutterUpperHorizontalEdge",
    "ShutterLowerHorizontalEdge",
)
_CENTER, _RADIUS = "CenterOfCircularShutter", "RadiusOfCircularShutter"
_VERTICES = "VerticesOfThePolygonalShutter"
_SIDES = ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
"""Down and across, the aspect ratio in numbers without a unit."""
GEOMETRY_TAGS = ("ShutterShape", *_EDGES, _CENTER, _RADIUS, _VERTICES, *_SIDES)
_SQUARE = 1.02  # long side to short side; scanners' steps differ by a little


def check_square(dataset: "Dataset") -> None:
    """Raise UnfitError where the header says that pixels are longer one way than the other."""
    for name in _SIDES:
        try:
            sides = numbers(dataset, name)
        except UnfitError:  # what it is not used for need not be sound
            continue
        down, across = (sides[0] or 0, sides[1] or 0) if len(sides) == 2 else (0, 0)
        if min(down, across) > 0 and max(down, across) > _SQUARE * min(down, across):
            raise UnfitError(
                f"its pixels are not square (its {name} is {down:g} down, {across:g} across); "
                "resample it to square ones"
            )


def shuttered(dataset: "Dataset", height: int, width: int) -> NDArray[np.bool_] | None:
    """Return which pixels [H, W] the display shutter covers; None without one.

    Rows and columns count from 1. Of several shapes what lies in all of them is shown. Raises
    UnfitError where one lacks its numbers.
    """
    shapes = attribute(dataset, "ShutterShape") or []
    shapes = [shapes] if isinstance(shapes, str) else shapes
    shown_HW = np.ones((height, width), np.bool_)
    for shape in map(str, shapes):
        if shape not in _DRAWN:
            raise UnfitError(f"its ShutterShape {shape[:16]} is not one of {', '.join(_DRAWN)}")
        shown_HW &= _DRAWN[shape](dataset, height, width)
    return ~shown_HW if shapes else None


def _given(dataset: "Dataset", name: str, least: int, most: int) -> list[float]:
    found = [one for one in numbers(dataset, name) if one is not None]
    if not least <= len(found) <= most:
        raise UnfitError(f"its {name} has {len(found)} numbers, too few or too many for a shutter")
    return found


def _rectangle(dataset: "Dataset", height: int, width: int) -> NDArray[np.bool_]:
    left, right, top, bottom = (_given(dataset, name, 1, 1)[0] for name in _EDGES)
    row_H1, column_W = np.arange(1, height + 1)[:, None], np.arange(1, width + 1)
    found: NDArray[np.bool_] = (top <= row_H1) & (row_H1 <= bottom)
    return found & (left <= column_W) & (column_W <= right)


def _circle(dataset: "Dataset", height: int, width: int) -> NDArray[np.bool_]:
    row, column = _given(dataset, _CENTER, 2, 2)
    (radius,) = _given(dataset, _RADIUS, 1, 1)
    found = np.zeros((height, width), np.bool_)
    for k in range(height):  # not all at once, which takes eight times the memory of a film
        half = radius**2 - (k + 1 - row) ** 2
        if half >= 0:
            found[k] = np.abs(np.arange(1, width + 1) - column) <= math.sqrt(half)
    return found


def _polygon(dataset: "Dataset", height: int, width: int) -> NDArray[np.bool_]:
    flat = _given(dataset, _VERTICES, 6, 2000)
    if len(flat) % 2:
        raise UnfitError(f"its {_VERTICES} has {len(flat)} numbers, which make no points")
    far = 4.0 * (height + width)  # Pillow counts in 32 bits
    corners = np.clip(np.array(flat).reshape(-1, 2)[:, ::-1] - 1, -far, far)
    image = Image.new("L", (width, height))
    ImageDraw.Draw(image).polygon([tuple(corner) for corner in corners.tolist()], fill=1)
    return np.asarray(image) > 0


_DRAWN = {"RECTANGULAR": _rectangle, "CIRCULAR": _circle, "POLYGONAL": _polygon}
