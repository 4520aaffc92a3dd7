"""Lesion candidates: where a map, scaled to [0, 1] by itself, reaches the threshold.

Points are x, y in pixels of the upright film, 0 0 its top left corner, so the first pixel's centre
is 0.5 0.5. Shapes: H W the canvas, h w the film's rectangle on it, P points.
"""

from collections.abc import Sequence
from typing import NamedTuple

import contourpy
import numpy as np
from numpy.typing import NDArray

from pcamx.data.canvas.placement import Fit, on_film

Points = NDArray[np.float64]


class Candidate(NamedTuple):
    """A connected part of the map that reaches the threshold."""

    value: float
    """The scaled map's highest value in it."""
    peak: tuple[float, float]
    """Centre of the canvas pixel that holds it."""
    box: tuple[float, float, float, float]
    """Left, top, width, height."""
    area: float
    """In pixels of the film, without the holes."""
    outline: Points
    """[P, 2], closed: the last point is the first."""
    holes: tuple[Points, ...]


def find_candidates(
    scaled_HW: NDArray[np.float64], threshold: float, place: Fit, width: int, height: int
) -> list[Candidate]:
    """Find the candidates on a film of ``width`` x ``height`` pixels that lies at ``place``.

    The outline is the map's own level line, linear between the centres of canvas pixels. What
    lies on the padding around the film is none. Highest first; of equals the uppermost, leftmost.
    """
    film_hw = on_film(scaled_HW, place)
    # The film ends half a pixel beyond the last centre: the outline closes on its edge.
    levels = np.pad(film_hw, 1, mode="edge")
    x, y = (_centres_and_ends(side) for side in (place.width, place.height))
    generator = contourpy.contour_generator(
        x=x, y=y, z=levels, fill_type=contourpy.FillType.OuterOffset
    )
    points, offsets = generator.filled(threshold, np.inf)
    scale = np.array([width / place.width, height / place.height])
    found = []
    for polygon, offset in zip(points, offsets, strict=True):
        rings = [polygon[a:b] for a, b in zip(offset[:-1], offset[1:], strict=True)]
        covered_hw = cover(rings, place.width, place.height)
        if covered_hw.any():  # a point that only touches the level has no area
            found.append(_candidate(np.where(covered_hw, film_hw, -np.inf), rings, scale))
    return sorted(found, key=lambda one: (-one.value, one.peak[1], one.peak[0]))


def _centres_and_ends(side: int) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.arange(side) + 0.5, [float(side)]])


def cover(rings: Sequence[Points], width: int, height: int) -> NDArray[np.bool_]:
    """Return the pixels [height, width] whose centre an odd number of the closed rings encloses."""
    covered = np.zeros((height, width), bool)
    (x0, y0), (x1, y1) = (
        np.concatenate(parts).T
        for parts in ([ring[:-1] for ring in rings], [ring[1:] for ring in rings])
    )
    for row in range(max(0, int(y0.min())), min(height, int(y0.max()) + 1)):
        y = row + 0.5
        cut = (y0 > y) != (y1 > y)
        x = np.sort(x0[cut] + (y - y0[cut]) * (x1[cut] - x0[cut]) / (y1[cut] - y0[cut]))
        for first, end in np.ceil(x - 0.5).astype(int).reshape(-1, 2):
            covered[row, max(0, first) : max(0, end)] = True
    return covered


def _candidate(values_hw: Points, rings: list[Points], scale: Points) -> Candidate:
    row, column = np.unravel_index(int(values_hw.argmax()), values_hw.shape)
    outline, *holes = (ring * scale for ring in rings)
    left_top, right_bottom = outline.min(0), outline.max(0)
    box = (*left_top.tolist(), *(right_bottom - left_top).tolist())
    x, y = (np.array([column + 0.5, row + 0.5]) * scale).tolist()
    area = _area(outline) - sum(map(_area, holes))
    return Candidate(float(values_hw.max()), (x, y), box, area, outline, tuple(holes))


def _area(ring: Points) -> float:
    """Of a closed polygon (the shoelace formula)."""
    (x0, y0), (x1, y1) = ring[:-1].T, ring[1:].T
    return float(abs((x0 * y1 - x1 * y0).sum()) / 2)


def as_stored(points_P2: Points, turn: int, width: int, height: int) -> Points:
    """Return points of an upright film of ``width`` x ``height`` in the frame of the file's pixels.

    ``turn`` is the EXIF orientation by which the file's pixels were turned upright.
    """
    x, y = points_P2.T
    mirrored_x, mirrored_y = width - x, height - y
    return np.stack(
        {
            1: (x, y),
            2: (mirrored_x, y),
            3: (mirrored_x, mirrored_y),
            4: (x, mirrored_y),
            5: (y, x),
            6: (y, mirrored_x),
            7: (mirrored_y, mirrored_x),
            8: (mirrored_y, x),
        }[turn],
        1,
    )
