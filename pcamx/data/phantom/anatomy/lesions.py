"""Fracture, lysis and sclerosis: what a lesion does to one bone, and where that is.

Shapes: h w a window of the film. Lengths are in units of the film's long side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pcamx.data.phantom.anatomy.bones import (
    SAMPLES,
    Array,
    Bone,
    Outline,
    Point,
    Window,
    attenuation,
    coordinates,
    on_axis,
    outline,
    window,
)

KINDS = ("fracture", "lytic", "sclerotic")
KNOTS = 64  # of a jagged line or a ragged rim


@dataclass(frozen=True, slots=True, eq=False)
class Lesion:
    """What is wrong, and where."""

    kind: str
    bone: int
    place: float  # share of the bone's length
    side: float  # -1 .. 1, towards which edge of the bone
    area: float  # wished for, as a share of the film
    angle: float  # of a fracture against the transverse, radians
    depth: float  # contrast, as a share of the bone's attenuation
    shift: float  # of the fragments, in half-widths
    span: float  # share of the width that a fracture crosses
    rough: Array  # [KNOTS], about -1 .. 1


class Trace(NamedTuple):
    """A drawn lesion: what it adds to the attenuation of a window, and its visible region."""

    window: Window
    change: Array  # float32 [h, w]
    visible: NDArray[np.bool_]  # [h, w]


def choose(bones: Sequence[Bone], rng: np.random.Generator) -> Lesion:
    """Choose a lesion by chance, in one of the bones that may have one, near the film's middle."""
    sites = [index for index, bone in enumerate(bones) if bone.site]
    weight = np.array([bones[i].length * bones[i].waist ** 0.5 for i in sites])
    for _ in range(40):
        bone = int(rng.choice(sites, p=weight / weight.sum()))
        place = float(rng.uniform(0.1, 0.9))
        p, q = bones[bone].p, bones[bone].q
        x, y = p[0] + place * (q[0] - p[0]), p[1] + place * (q[1] - p[1])
        if abs(x) < 0.34 and abs(y) < 0.4:
            break
    kind = KINDS[rng.choice(3, p=(0.4, 0.3, 0.3))]
    low, high = {"fracture": (0.9, 1.0), "lytic": (0.85, 1.0), "sclerotic": (1.1, 1.7)}[kind]
    return Lesion(
        kind=kind,
        bone=bone,
        place=place,
        side=float(rng.uniform(-1, 1)),
        area=float(math.exp(rng.uniform(math.log(0.009), math.log(0.022)))),
        angle=float(rng.choice((-1.0, 1.0)) * rng.uniform(0, 0.85)),
        depth=float(rng.uniform(low, high)),
        shift=float(rng.uniform(0.05, 0.28)),
        span=float(rng.choice((1.0, 1.0, rng.uniform(0.55, 0.85)))),
        rough=_rough(rng),
    )


def _rough(rng: np.random.Generator) -> Array:
    corners = rng.uniform(-1, 1, int(rng.integers(6, 13)))
    corners[-1] = corners[0]
    at = np.linspace(0, len(corners) - 1, KNOTS)
    return np.interp(at, np.arange(len(corners)), corners).astype(np.float32)


def centre(lesion: Lesion, bone: Bone) -> Point:
    """Return the point of the bone's bowed axis at which the lesion lies."""
    return on_axis(bone, outline(bone), lesion.place)


def trace(lesion: Lesion, bone: Bone, grain: Array) -> Trace:
    """Draw the lesion into the bone.

    Args:
        bone: as placed on the film.
        grain: texture of the whole film, float32 [H, W].
    """
    height, width = grain.shape
    line = outline(bone)
    sample = int(lesion.place * SAMPLES) + 1
    half, axis = float(line.outer_N[sample]), float(line.centre_N[sample])
    place = window([centre(lesion, bone)], 2.2 * half + 0.07, height, width)
    along, across = coordinates(bone, place, height, width)
    here = grain[place.at]
    plain = attenuation(bone, line, along, across, here)
    away = along - np.float32(lesion.place * bone.length), across - np.float32(axis)
    side = max(height, width)
    area = lesion.area * height * width / side**2
    halo = 0.7 / side  # the film's blur carries a lesion that far
    if lesion.kind == "fracture":
        ill, near = _fracture(lesion, bone, line, (along, across), away, half, area, halo, here)
    else:
        ill, near = _patch(lesion, plain, away, half, area, halo)
    edge = np.float32(0.03) * plain.max()  # outside the bone nothing is ill
    return Trace(place, ill - plain, near & ((plain > edge) | (ill > edge)))


def _fracture(
    lesion: Lesion,
    bone: Bone,
    line: Outline,
    at: tuple[Array, Array],
    away: tuple[Array, Array],
    half: float,
    area: float,
    halo: float,
    grain: Array,
) -> tuple[Array, NDArray[np.bool_]]:
    """A jagged dark line with a step in the cortex; its region is a band around it."""
    length = 2 * half / math.cos(lesion.angle) * lesion.span
    band = min(max(area / (2 * length), 0.0165), 0.04)
    step = away[1] / np.float32(half)  # -1 .. 1 from edge to edge
    knot = np.clip((step + 1.3) * (KNOTS / 2.6), 0, KNOTS - 1).astype(np.int32)
    jag = lesion.rough[knot] * np.float32(min(0.22 * half, 0.016))
    off = (away[0] - np.float32(math.tan(lesion.angle)) * away[1] - jag) * math.cos(lesion.angle)
    off = off.astype(np.float32)
    sign = 1.0 if lesion.side > 0 else -1.0
    torn = np.clip((2 * lesion.span - 1 + 0.15 - sign * step) / 0.15, 0, 1)
    if lesion.span == 1.0:
        torn = np.ones_like(step)
    near = np.abs(off) / np.float32(band)
    slip = np.sign(off) * np.clip(1 - near, 0, 1) * torn * np.float32(lesion.shift * half)
    moved = attenuation(bone, line, at[0], at[1] + slip, grain)
    gap = np.exp(-((off / np.float32(max(0.42 * band, 0.01))) ** 2))
    ill = moved * (1 - np.float32(lesion.depth) * gap * torn)
    return ill.astype(np.float32), (near <= 1 + halo / band) & (torn > 0.15)


def _patch(
    lesion: Lesion, plain: Array, away: tuple[Array, Array], half: float, area: float, halo: float
) -> tuple[Array, NDArray[np.bool_]]:
    """A ragged ellipse along the bone: dark with a narrow rim, or bright and fading out."""
    wide = min(math.sqrt(area / math.pi), 0.9 * half)
    tall = min(area / (math.pi * wide), 2.8 * wide)
    v = away[1] - np.float32(lesion.side * max(half * 0.95 - wide, 0))
    s = away[0]
    turn = (np.arctan2(v, s) * np.float32((KNOTS - 1) / (2 * math.pi)) + KNOTS / 2).astype(np.int32)
    ragged = 1 + np.float32(0.13) * lesion.rough[np.clip(turn, 0, KNOTS - 1)]
    r = np.sqrt((s / np.float32(tall)) ** 2 + (v / np.float32(wide)) ** 2) * ragged
    depth = np.float32(lesion.depth)
    near = r <= 1 + halo / wide
    if lesion.kind == "lytic":
        return plain * (1 - depth * np.clip((1.05 - r) / 0.3, 0, 1)), near
    bright = np.clip(1.05 - r * r, 0, 1) * np.minimum(plain / plain.max() * 4, 1)
    return plain + depth * bright * plain.max(), near
