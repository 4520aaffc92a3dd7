"""A plaster cast around a stretch of the limb away from the lesion.

Shapes: H W the film; P points of the lesion. Lengths are in units of the film's long side.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pcamx.data.phantom.anatomy.bones import (
    Array,
    Bone,
    Outline,
    Point,
    Points,
    Rng,
    Window,
    coordinates,
    outline,
)

GAP = 0.05  # at least, between cast and lesion
STEP = 0.01
LONGEST = 0.42
WALL = 0.03  # thickness of the plaster
RIM = 0.012  # over which an end thins out


@dataclass(frozen=True, slots=True)
class Cast:
    """The plaster on a tube of flesh, from ``start`` to ``end`` along its axis."""

    flesh: Bone
    start: float
    end: float
    wave: tuple[float, float]  # phases of the hand-torn ends and of the bandage


def place_cast(flesh: Sequence[Bone], lesion_P2: Points, film: Point, rng: Rng) -> Cast:
    """Place a cast on the largest stretch of limb on the film that is free of the lesion.

    Args:
        lesion_P2: where the lesion lies, or would lie.
        film: width and height.
    """
    runs = [
        (start, end, tube)
        for tube in flesh
        if tube.site
        for start, end in _free(tube, lesion_P2, film)
    ]
    # The largest: a forearm rather than one finger.
    start, end, tube = max(runs, key=lambda run: (run[1] - run[0]) * (run[2].waist + WALL))
    room = end - start
    length = min(room, LONGEST * rng.uniform(0.85, 1.0))
    start += (room - length) * rng.uniform(0, 1)
    wave = float(rng.uniform(0, 6)), float(rng.uniform(0, 6))
    return Cast(tube, start, start + length, wave)


def _free(tube: Bone, lesion_P2: Points, film: Point) -> Iterator[tuple[float, float]]:
    """The stretches of the tube's axis on the film where no lesion is near."""
    (px, py), (ax, ay) = tube.p, tube.axis
    x, y = lesion_P2[:, 0] - px, lesion_P2[:, 1] - py
    along, across = x * ax + y * ay, y * ax - x * ay
    line = outline(tube)
    open_since: float | None = None
    for at in np.arange(0, tube.length, STEP).tolist():
        half, off = _section(tube, line, at)
        on_film = abs(px + at * ax) < film[0] / 2 and abs(py + at * ay) < film[1] / 2
        near = (np.abs(along - at) < GAP + STEP) & (np.abs(across - off) < half + WALL + GAP)
        if on_film and not near.any():
            open_since = at if open_since is None else open_since
        elif open_since is not None:
            yield open_since, at - STEP
            open_since = None
    if open_since is not None:
        yield open_since, tube.length


def _section(tube: Bone, line: Outline, at: float) -> tuple[float, float]:
    """Half-width of the tube there, and how far its middle is off the axis."""
    index = min(int(at / tube.length * (len(line.outer_N) - 2)) + 1, len(line.outer_N) - 1)
    return float(line.outer_N[index]), float(line.centre_N[index])


def plaster(cast: Cast, grain: Array) -> Array:
    """Return how much plaster the beam passes, float32 [H, W]: about 1 in the middle, more at the
    walls.

    Args:
        grain: texture of the whole film, float32 [H, W], mean 0.
    """
    height, width = grain.shape
    tube = cast.flesh
    along, across = coordinates(tube, Window(0, 0, height, width), height, width)
    line = outline(tube)
    index = np.clip(along * np.float32((len(line.outer_N) - 2) / tube.length) + 1, 0, None)
    index = np.minimum(index, len(line.outer_N) - 1).astype(np.int32)
    inner, off = line.outer_N[index], across - line.centre_N[index]
    outer = inner + np.float32(WALL)
    chord = np.sqrt(np.maximum(outer * outer - off * off, 0))
    chord -= np.sqrt(np.maximum(inner * inner - off * off, 0))
    # Turns of bandage overlap, and the ends are torn by hand.
    turn = np.float32(2 * math.pi / 0.055)
    weave = np.sin(turn * (along + np.float32(0.25) * across) + np.float32(cast.wave[0]))
    torn = np.float32(0.006) * np.sin(across * np.float32(60) + np.float32(cast.wave[1]))
    depth = np.minimum(along - np.float32(cast.start), np.float32(cast.end) - along) - torn
    ends = np.clip(depth / np.float32(RIM), 0, 1)
    texture = 1 + np.float32(0.08) * weave + np.float32(1.5) * grain
    return np.asarray(chord / np.float32(WALL) * ends * np.maximum(texture, 0.2), np.float32)
