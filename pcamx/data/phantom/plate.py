"""A metal plate with its screws, on a bone away from the lesion.

Shapes: H W the film; P points of the lesion. Lengths are in units of the film's long side.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pcamx.data.phantom.anatomy.bones import (
    SAMPLES,
    Array,
    Bone,
    Point,
    Points,
    Rng,
    Window,
    coordinates,
    on_axis,
    outline,
)

LENGTHS = (0.3, 0.26, 0.22, 0.18)  # the longest for which there is room
WIDTH = 0.05
GAP = 0.05  # at least, between metal and lesion
EDGE = 0.02  # at least, between metal and the film's edge


@dataclass(frozen=True, slots=True)
class Plate:
    """A bar from p to q with screws across it."""

    p: Point
    q: Point
    width: float
    screws: int
    reach: tuple[float, float]  # of the screws to either side of the bar's middle

    @property
    def bar(self) -> Bone:
        """Its axis, as `bones.coordinates` wants it."""
        return Bone(self.p, self.q, self.width / 2)


def place_plate(bones: Sequence[Bone], lesion_P2: Points, film: Point, rng: Rng) -> Plate:
    """Place a plate along one of the bones, or, where none has room, a bar beside the limb.

    Args:
        lesion_P2: where the lesion lies, or would lie.
        film: width and height.
    """
    width = WIDTH * rng.uniform(0.9, 1.1)
    for length in LENGTHS:
        room = (plate for plate in _on_bones(bones, length, width) if _inside(plate, film))
        found = [(far, plate) for plate in room if (far := _distance(plate, lesion_P2)) >= GAP]
        if found:
            found.sort(key=lambda pair: -pair[0])
            return found[int(rng.integers(0, max(1, len(found) // 3)))][1]
    return _beside(lesion_P2, film, width)


def _on_bones(bones: Sequence[Bone], length: float, width: float) -> Iterator[Plate]:
    for bone in bones:
        span = length / bone.length
        if not bone.site or span > 0.85 or bone.waist < 0.015:
            continue
        line = outline(bone)
        for start in np.arange(0.05, 0.95 - span, 0.05):
            p = on_axis(bone, line, float(start))
            q = on_axis(bone, line, float(start) + span)
            half = float(line.outer_N[int((start + span / 2) * SAMPLES) + 1])
            ax, ay = bone.axis
            for side in (-1.0, 1.0):
                # On the bone's edge, so that the screws are seen from the side, across the bone.
                off = side * (half - 0.1 * width)
                over = 0.75 * width, 2 * half + 0.15 * width
                yield Plate(
                    (p[0] - off * ay, p[1] + off * ax),
                    (q[0] - off * ay, q[1] + off * ax),
                    width,
                    screws=max(4, round(length / 0.055)),
                    reach=over if side < 0 else over[::-1],
                )


def _beside(lesion_P2: Points, film: Point, width: float) -> Plate:
    """Along the edge of the film that is farthest from the lesion."""
    length, bars = LENGTHS[-1], []
    x, y = (extent / 2 - EDGE - width for extent in film)
    for at in (-1.0, 1.0):
        for middle in np.linspace(-y + length / 2, y - length / 2, 5):
            bars.append(((at * x, middle - length / 2), (at * x, middle + length / 2)))
        for middle in np.linspace(-x + length / 2, x - length / 2, 5):
            bars.append(((middle - length / 2, at * y), (middle + length / 2, at * y)))
    plates = [Plate(p, q, width, 4, (0.75 * width, 0.75 * width)) for p, q in bars]
    return max(plates, key=lambda plate: _distance(plate, lesion_P2))


def _distance(plate: Plate, lesion_P2: Points) -> float:
    """From the metal to the lesion; negative where they overlap."""
    along, across = _frame(plate, lesion_P2)
    length = math.dist(plate.p, plate.q)
    low, high = plate.reach
    past = np.maximum(np.maximum(-along, along - length), 0)
    off = np.maximum(np.maximum(-low - across, across - high), 0)
    return float(np.hypot(past, off).min())


def _frame(plate: Plate, points_P2: Points) -> tuple[Points, Points]:
    ax, ay = plate.bar.axis
    x, y = points_P2[:, 0] - plate.p[0], points_P2[:, 1] - plate.p[1]
    return x * ax + y * ay, y * ax - x * ay


def _inside(plate: Plate, film: Point) -> bool:
    room = film[0] / 2 - EDGE - plate.width / 2, film[1] / 2 - EDGE - plate.width / 2
    return all(abs(x) <= room[0] and abs(y) <= room[1] for x, y in (plate.p, plate.q))


def metal(plate: Plate, height: int, width: int) -> Array:
    """Return how much metal the beam passes, float32 [H, W]: 1 through the bar, 0 beside it."""
    side = np.float32(max(height, width))
    bar = plate.bar
    along, across = coordinates(bar, Window(0, 0, height, width), height, width)
    length = np.float32(bar.length)
    half = np.float32(plate.width / 2)

    def within(depth: Array) -> Array:
        """1 inside, 0 outside, between them on the pixel that the edge crosses."""
        return np.asarray(np.clip(depth * side + np.float32(0.5), 0, 1), np.float32)

    # Rounded ends.
    past = np.maximum(np.abs(along - length / 2) - (length / 2 - half), 0)
    out = within(half - np.hypot(past, across))
    for number in range(plate.screws):
        at = length * np.float32((number + 0.5) / plate.screws)
        low, high = (np.float32(reach) for reach in plate.reach)
        shaft = within(np.float32(0.0085) - np.abs(along - at))
        shaft *= within(across + low) * within(high - across)
        head = within(np.float32(0.4) * half - np.hypot(along - at, across))
        out += np.float32(0.6) * shaft + head
    return np.asarray(out, np.float32)
