"""One drawn radiograph: a body seen through an X-ray tube, with or without its lesion.

Shapes: H W the film. A film with a lesion equals the film without it but for the lesion.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pcamx.data.canvas.side_markers import Box
from pcamx.data.phantom import clutter, lesions
from pcamx.data.phantom.bodies import Body, Rng, body
from pcamx.data.phantom.bones import (
    Array,
    Bone,
    Point,
    View,
    Window,
    attenuation,
    bone_window,
    coordinates,
    outline,
)

TILE = 512  # side of the periodic texture


@dataclass(frozen=True, slots=True)
class FilmPlan:
    """Everything that decides a film's pixels, but for its size."""

    seed: int
    split: int
    patient: int
    study: int
    image: int
    part: str
    positive: bool
    marker: str  # the letter, "L" or "R"; "" for none


class Drawn(NamedTuple):
    film: NDArray[np.uint8]  # [H, W]
    mask: NDArray[np.uint8]  # [H, W], 0 or 255
    marker: Box | None  # of the letter


def draw_film(plan: FilmPlan, size: int) -> Drawn:
    """Draws a film whose long side is ``size`` pixels; the same plan gives the same pixels."""
    key = (plan.seed, plan.split, plan.patient, plan.study)
    person = np.random.default_rng((*key, 0))
    rng = np.random.default_rng((*key, plan.image))
    drawn = body(plan.part, person)
    lesion = lesions.choose(drawn.bones, person)
    height, width, view = _pose(drawn, lesions.centre(lesion, drawn.bones[lesion.bone]), size, rng)
    bones = [bone.placed(view) for bone in drawn.bones]
    grain = _texture(height, width, rng)
    bone_HW = _skeleton(bones, grain)
    flesh_HW = _flesh([tube.placed(view) for tube in drawn.flesh], height, width, rng)
    clutter.carve_canals(bone_HW, bones, rng)
    clutter.fold_skin(flesh_HW, rng)
    trace = lesions.trace(lesion, bones[lesion.bone], grain)
    strength = np.float32(rng.uniform(0.9, 1.3))
    thick_HW = bone_HW * strength + flesh_HW
    usual = float(np.median(thick_HW[::3, ::3][bone_HW[::3, ::3] > 0]))
    if plan.positive:
        thick_HW[trace.window.at] += trace.change * strength
    site = lesions.centre(lesion, bones[lesion.bone])
    film, marker = _finish(_develop(thick_HW, usual, rng), plan.marker, site, rng)
    mask = np.zeros((height, width), np.uint8)
    if plan.positive:
        mask[trace.window.at] = trace.visible * np.uint8(255)
    return Drawn(film, mask, marker)


def _pose(drawn: Body, site: Point, size: int, rng: Rng) -> tuple[int, int, View]:
    """The film's height and width, and the body on it, with the site well inside."""
    aspect = float(rng.choice(drawn.aspects)) * rng.uniform(0.95, 1.05)
    turn = rng.normal(0, 0.08)
    if not drawn.upright and rng.random() < 0.08:  # the cassette lies across
        turn += math.pi / 2 * rng.choice((-1.0, 1.0))
        aspect = 1 / aspect
    elif not drawn.upright and rng.random() < 0.04:
        turn += math.pi
    height = size if aspect <= 1 else max(round(size / aspect), size // 3)
    width = size if aspect >= 1 else max(round(size * aspect), size // 3)
    view = View(rng.choice((-1.0, 1.0)), rng.uniform(1.0, 1.2), turn)
    x, y = view.point(site)
    dx, dy = rng.normal(0, 0.025, 2)
    free = width / size / 2 - 0.1, height / size / 2 - 0.1
    shift = (
        min(max(x + dx, -free[0]), free[0]) - x,
        min(max(y + dy, -free[1]), free[1]) - y,
    )
    return height, width, View(view.mirror, view.scale, view.turn, shift)


@lru_cache(maxsize=1)
def _tile() -> Array:
    """Periodic band-passed noise, mean 0 and deviation 1: trabeculae, and the film's mottle."""
    rng = np.random.default_rng(0)
    f = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None, :])
    band = np.exp(-((f / 0.16) ** 2)) * f**0.5
    tile = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((TILE, TILE))) * band)
    return np.asarray(tile / tile.std(), np.float32)


def _texture(height: int, width: int, rng: Rng) -> Array:
    """Trabecular texture of a film, float32 [H, W]."""
    tile = _tile() if rng.random() < 0.5 else _tile().T
    top, left = rng.integers(0, TILE, 2)
    rows = (np.arange(height) + top) % TILE
    columns = (np.arange(width) + left) % TILE
    strength = np.float32(rng.uniform(0.04, 0.09))
    return np.asarray(tile[rows[:, None], columns] * strength, np.float32)


def _skeleton(bones: list[Bone], grain: Array) -> Array:
    height, width = grain.shape
    out = np.zeros((height, width), np.float32)
    for bone in bones:
        place = bone_window(bone, height, width)
        if not place.empty:
            along, across = coordinates(bone, place, height, width)
            more = attenuation(bone, outline(bone), along, across, grain[place.at])
            # Not the plain sum: scatter dulls an overlap, which would outshine every sclerosis.
            out[place.at] = np.sqrt(out[place.at] ** 2 + more**2)
    return out


def _flesh(tubes: list[Bone], height: int, width: int, rng: Rng) -> Array:
    """Soft tissue is smooth: drawn at half the size."""
    h, w = height // 2, width // 2
    thick = np.zeros((h, w), np.float32)
    for tube in tubes:
        along, across = coordinates(tube, Window(0, 0, h, w), h, w)
        line = outline(tube)
        index = np.clip(along * np.float32((len(line.outer_N) - 2) / tube.length) + 1, 0, None)
        index = np.minimum(index, len(line.outer_N) - 1).astype(np.int32)
        half, off = line.outer_N[index], across - line.centre_N[index]
        np.maximum(thick, half * half - off * off, out=thick)
    dense = _soften(thick ** np.float32(0.36)) * np.float32(rng.uniform(0.5, 1.1))
    wide = Image.fromarray(dense).resize((width, height), Image.Resampling.BILINEAR)
    return np.array(wide)


def _develop(thick_HW: Array, usual: float, rng: Rng) -> Array:
    """From attenuation to grey levels, float32 [H, W]: exposure, gamma, blur, noise.

    Exposed for the ``usual`` attenuation of bone, so that what is denser still shows.
    """
    height, width = thick_HW.shape
    speed = rng.uniform(0.35, 0.7) / usual
    scale = 1 - math.exp(-speed * usual)
    film = (1 - np.exp(-np.float32(speed) * thick_HW)) * np.float32(1 / scale)
    film = np.maximum(film, 0) ** np.float32(rng.uniform(0.9, 1.2))
    base, top = rng.uniform(4, 30), rng.uniform(115, 155)
    tilt = rng.normal(0, 0.06, 2)
    slope = 1 + np.linspace(-tilt[0], tilt[0], height)[:, None]
    slope = slope + np.linspace(-tilt[1], tilt[1], width)
    film = film * np.float32(top - base) * slope.astype(np.float32) + np.float32(base)
    soft = rng.integers(0, 2) if max(height, width) < 200 else rng.integers(1, 4)
    for _ in range(soft):
        film = _soften(film)
    noise = rng.standard_normal((height, width), dtype=np.float32)
    if rng.random() < 0.5:
        noise = _soften(noise) * np.float32(2)
    return np.asarray(film + noise * np.float32(rng.uniform(1.0, 3.5)), np.float32)


def _soften(image: Array) -> Array:
    """The binomial filter 1 2 1 both ways."""
    out = image.copy()
    out[1:-1] += (image[:-2] + image[2:] - 2 * image[1:-1]) * np.float32(0.25)
    across = out.copy()
    across[:, 1:-1] += (out[:, :-2] + out[:, 2:] - 2 * out[:, 1:-1]) * np.float32(0.25)
    return across


def _finish(
    film: Array, letter: str, site: Point, rng: Rng
) -> tuple[NDArray[np.uint8], Box | None]:
    """Collimation, the side marker, eight bits."""
    height, width = film.shape
    side = max(height, width)
    site_px = (site[0] * side + width / 2, site[1] * side + height / 2)
    left, top, right, bottom = _field(width, height, site_px, rng)
    out = np.full_like(film, rng.uniform(0, 9))
    out[top:bottom, left:right] = film[top:bottom, left:right]
    marker = _stamp(out, letter, (left, top, right, bottom), site_px, rng) if letter else None
    return np.clip(np.rint(out), 0, 255).astype(np.uint8), marker


def _stamp(
    film: Array, letter: str, field: tuple[int, int, int, int], site_px: Point, rng: Rng
) -> Box:
    """Puts the lead letter, in place, into one of the two corners farthest from the lesion."""
    left, top, right, bottom = field
    side = max(film.shape)
    marker = _marker(letter, max(6, round(side * rng.uniform(0.055, 0.075))))
    h, w = marker.shape
    gap = max(2, round(side * rng.uniform(0.015, 0.05)))
    corners = [(y, x) for y in (top + gap, bottom - gap - h) for x in (left + gap, right - gap - w)]
    far = [
        math.dist((x + h / 2, y + h / 2), site_px)  # both letters go to the same corner
        for y, x in corners
    ]
    order = np.argsort(far)[::-1]
    y, x = corners[int(order[rng.integers(0, 2)])]
    patch = film[y : y + h, x : x + w]
    patch += (np.float32(rng.uniform(190, 255)) - patch) * marker
    return Box(x, y, x + w, y + h)


def _field(width: int, height: int, site_px: Point, rng: Rng) -> tuple[int, int, int, int]:
    """The exposed rectangle: left, top, right, bottom. Often the whole film."""
    side = max(width, height)
    inset = rng.uniform(0, 0.07, 4) * (rng.random(4) < 0.6) * (rng.random() < 0.45) * side
    room = 0.09 * side
    return (
        int(min(inset[0], max(site_px[0] - room, 0))),
        int(min(inset[1], max(site_px[1] - room, 0))),
        width - int(min(inset[2], max(width - site_px[0] - room, 0))),
        height - int(min(inset[3], max(height - site_px[1] - room, 0))),
    )


@lru_cache(maxsize=64)
def _marker(letter: str, height: int) -> Array:
    """The lead letter, opacity 0 .. 1, float32."""
    font = ImageFont.load_default(size=height * 1.3)
    left, top, right, bottom = font.getbbox(letter)
    image = Image.new("L", (math.ceil(right - left), math.ceil(bottom - top)))
    ImageDraw.Draw(image).text((-left, -top), letter, fill=255, font=font)
    return np.asarray(image, np.float32) / np.float32(255)
