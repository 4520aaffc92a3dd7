"""One bone as a hollow tube: from its outline to what it takes from the X-ray beam.

Lengths are in units of the film's long side, the origin is the film's centre, y points down.
A point near a bone has two coordinates: ``along`` the axis from p to q, and ``across`` it.
Shapes: N samples of the outline along the axis, h w a window of the film.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Samples = NDArray[np.float64]
Point = tuple[float, float]
Points = NDArray[np.float64]  # [P, 2], x and y
Rng = np.random.Generator

SAMPLES = 384  # of an outline; finer than the pixels of the largest film
SPONGY = (0.2, 0.42)  # density within, as a share of the cortex's: in the shaft, in the ends


@dataclass(frozen=True, slots=True)
class View:
    """How a body lies on the film: mirrored, scaled, turned (radians), then shifted."""

    mirror: float = 1.0
    scale: float = 1.0
    turn: float = 0.0
    shift: Point = (0.0, 0.0)

    def point(self, at: Point) -> Point:
        x, y = at[0] * self.mirror * self.scale, at[1] * self.scale
        c, s = math.cos(self.turn), math.sin(self.turn)
        return c * x - s * y + self.shift[0], s * x + c * y + self.shift[1]


@dataclass(frozen=True, slots=True)
class Bone:
    """A tube from p to q; ``ends`` of a pair belong to p and q, in that order."""

    p: Point
    q: Point
    waist: float  # half-width of the shaft
    heads: Point = (1.4, 1.4)  # half-width of the ends, in waists
    reach: Point = (0.22, 0.22)  # share of the length over which the flare dies out
    lean: Point = (0.0, 0.0)  # sideways shift of the ends, in waists
    blunt: Point = (0.6, 0.6)  # length of the rounded ends, in half-widths
    bow: float = 0.0  # sideways bulge of the axis, as a share of the length
    cortex: float = 0.34  # thickness in the middle of the shaft, in waists
    dense: float = 1.0
    plates: tuple[float, ...] = ()  # growth plates, as shares of the length
    bumps: tuple[float, float, float] = (0.0, 0.0, 0.0)  # irregular outline: size, phases
    site: bool = True  # a lesion may lie here; of flesh, a cast
    flat: float = 0.0  # 0 a tube; 1 a plate, equally thick everywhere

    def placed(self, view: View) -> "Bone":
        """Return the bone on the film."""
        lean = (self.lean[0] * view.mirror, self.lean[1] * view.mirror)
        return replace(
            self,
            p=view.point(self.p),
            q=view.point(self.q),
            waist=self.waist * view.scale,
            lean=lean,
            bow=self.bow * view.mirror,
        )

    @property
    def length(self) -> float:
        return math.dist(self.p, self.q)

    @property
    def axis(self) -> Point:
        return (self.q[0] - self.p[0]) / self.length, (self.q[1] - self.p[1]) / self.length


class Outline(NamedTuple):
    """Sampled along the axis; an empty sample before the first and after the last."""

    centre_N: Array
    outer_N: Array  # half-width
    inner_N: Array  # half-width of the marrow
    dense_N: Array  # of the cortex
    spongy_N: Array  # of what it encloses


def outline(bone: Bone) -> Outline:
    """Return the bone's two edges: shaft, flared ends, rounded caps, cortex, growth plates."""
    u = (np.arange(SAMPLES) + 0.5) / SAMPLES
    near = np.exp(-((u / bone.reach[0]) ** 2))
    far = np.exp(-(((1 - u) / bone.reach[1]) ** 2))
    size, phase, other = bone.bumps
    wobble = 1 + size * (np.sin(9 * u + phase) + 0.6 * np.sin(23 * u + other))
    half = (1 + (bone.heads[0] - 1) * near + (bone.heads[1] - 1) * far) * wobble
    half *= bone.waist
    along = u * bone.length
    caps = (bone.blunt[0] * bone.heads[0], bone.blunt[1] * bone.heads[1])
    shell = bone.cortex * bone.waist * (0.3 + 0.7 * (1 - near) * (1 - far))
    outer = (
        half * _cap(along, caps[0] * bone.waist) * _cap(bone.length - along, caps[1] * bone.waist)
    )
    inset = 0.65 * bone.waist * bone.cortex
    inner = np.maximum(half - shell, 0) * _cap(along - inset, caps[0] * bone.waist)
    inner *= _cap(bone.length - along - inset, caps[1] * bone.waist)
    inner = np.minimum(inner, np.maximum(outer - 0.3 * shell, 0))
    centre = 4 * bone.bow * bone.length * u * (1 - u)
    centre += bone.waist * (bone.lean[0] * near + bone.lean[1] * far)
    # Flared ends are flat in depth, and thin bones harder than their thickness says.
    dense = bone.dense / (bone.waist**0.25 * half**0.5 * 0.05**0.25)
    for place in bone.plates:
        off = (along - place * bone.length) / (0.11 * bone.waist)
        dense *= 1 - 0.32 * np.exp(-(off**2)) + 0.12 * np.exp(-((np.abs(off) - 2.2) ** 2))
    shaft = (1 - near) * (1 - far)
    spongy = dense * (SPONGY[1] + (SPONGY[0] - SPONGY[1]) * shaft**2)
    return Outline(*(_framed(table) for table in (centre, outer, inner, dense, spongy)))


def _cap(depth_N: Samples, length: float) -> Samples:
    x = np.clip(1 - depth_N / length, 0, 1)
    return np.sqrt(1 - x * x)


def _framed(table_N: Samples) -> Array:
    out = np.zeros(len(table_N) + 2, np.float32)
    out[1:-1] = table_N
    return out


def on_axis(bone: Bone, line: Outline, place: float) -> Point:
    """Return the point of the bone's bowed axis at ``place``, a share of its length."""
    (px, py), (qx, qy), (ax, ay) = bone.p, bone.q, bone.axis
    off = float(line.centre_N[int(place * SAMPLES) + 1])
    return px + place * (qx - px) - off * ay, py + place * (qy - py) + off * ax


class Window(NamedTuple):
    """A rectangle of the film's pixels."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def at(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def empty(self) -> bool:
        return self.bottom <= self.top or self.right <= self.left


def window(points: list[Point], margin: float, height: int, width: int) -> Window:
    """Return the pixels of a film of height x width within margin of the points' bounding box."""
    side = max(height, width)
    xs, ys = zip(*points, strict=True)
    return Window(
        max(0, math.floor((min(ys) - margin) * side + height / 2)),
        max(0, math.floor((min(xs) - margin) * side + width / 2)),
        min(height, math.ceil((max(ys) + margin) * side + height / 2) + 1),
        min(width, math.ceil((max(xs) + margin) * side + width / 2) + 1),
    )


def bone_window(bone: Bone, height: int, width: int) -> Window:
    """Return the pixels that a bone can touch."""
    lean = max(abs(bone.lean[0]), abs(bone.lean[1]))
    margin = bone.waist * (max(*bone.heads, 1) * 1.15 + lean) + abs(bone.bow) * bone.length
    return window([bone.p, bone.q], margin, height, width)


def coordinates(bone: Bone, place: Window, height: int, width: int) -> tuple[Array, Array]:
    """Return along and across the bone's straight axis, float32 [h, w] each, for the window's
    pixels.
    """
    side = max(height, width)
    columns = np.arange(place.left, place.right) + 0.5 - width / 2
    rows = np.arange(place.top, place.bottom)[:, None] + 0.5 - height / 2
    x = (columns / side - bone.p[0]).astype(np.float32)
    y = (rows / side - bone.p[1]).astype(np.float32)
    ax, ay = (np.float32(part) for part in bone.axis)
    return x * ax + y * ay, y * ax - x * ay


def attenuation(bone: Bone, line: Outline, along: Array, across: Array, grain: Array) -> Array:
    """Return the optical thickness of the bone, float32 [h, w]: chords of the cortex and of the
    marrow.

    Args:
        grain: texture of the spongy bone, mean 0, float32 [h, w].
    """
    index = (along * np.float32(SAMPLES / bone.length) + 1).astype(np.int32)
    np.clip(index, 0, SAMPLES + 1, out=index)
    t = across - line.centre_N[index]
    t *= t
    outer, inner = line.outer_N[index], line.inner_N[index]
    solid = np.sqrt(np.maximum(outer * outer - t, 0))
    marrow = np.sqrt(np.maximum(inner * inner - t, 0))
    dense, spongy = line.dense_N[index], line.spongy_N[index] * (1 + grain)
    if bone.flat:
        marrow += np.float32(bone.flat) * (np.float32(bone.waist) * (t < inner * inner) - marrow)
        solid -= np.float32(bone.flat) * np.sqrt(np.maximum(inner * inner - t, 0))
        shell = solid * np.float32(1 - 0.4 * bone.flat)
    else:
        shell = solid - marrow
    return np.asarray(dense * shell + spongy * marrow, np.float32)
