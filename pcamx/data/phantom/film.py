"""One drawn radiograph: a body seen through an X-ray tube, with or without its lesion.

Shapes: H W the film. A film with a lesion equals the film without it but for the lesion.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcamx.data.canvas.side_markers import Box
from pcamx.data.phantom.anatomy import clutter, lesions
from pcamx.data.phantom.anatomy.bodies import Body, body
from pcamx.data.phantom.anatomy.bones import (
    Array,
    Bone,
    Point,
    Points,
    Rng,
    View,
    Window,
    attenuation,
    bone_window,
    coordinates,
    outline,
)
from pcamx.data.phantom.border import finish, narrow_field
from pcamx.data.phantom.cast import place_cast, plaster
from pcamx.data.phantom.plan import FilmPlan
from pcamx.data.phantom.plate import metal, place_plate
from pcamx.data.phantom.temptations import CAST, COLLIMATION, EXPOSURE, KINDS, PLATE
from pcamx.data.phantom.tube import develop, mottle, overexposed, soften

TILE = 512  # side of the periodic texture
GRID = 64  # fine enough to keep a distance from the lesion
# Attenuation in that of usual bone: of the bar of a plate, of a cast between its walls.
METAL, PLASTER = np.float32(3.0), np.float32(0.3)


Bits = NDArray[np.bool_]


class Drawn(NamedTuple):
    film: NDArray[np.uint8]  # [H, W]
    mask: NDArray[np.uint8]  # of the lesion, [H, W], 0 or 255
    marker: Box | None  # of the letter
    temptations: dict[str, NDArray[np.uint8]]  # of the others that have a place, like ``mask``


class Exposed(NamedTuple):
    """A film as the detector takes it: all but the dark border, the letter and eight bits."""

    clean_HW: Array  # grey levels without noise
    noise_HW: Array
    dark_HW: Bits | None  # of a narrow field
    site: Point  # where the lesion lies, or would lie
    lesion_HW: Bits  # nowhere on a normal film
    tempting_HW: dict[str, Bits]


def draw_film(plan: FilmPlan, size: int) -> Drawn:
    """Draw a film whose long side is ``size`` pixels; the same plan gives the same pixels."""
    rng = np.random.default_rng((plan.seed, plan.split, plan.patient, plan.study, plan.image))
    seen = expose(plan, size, rng)
    film_HW = seen.clean_HW + seen.noise_HW
    done = finish(film_HW, plan.marker, seen.site, seen.dark_HW, rng)
    tempting = {
        kind: (mask_HW & done.field_HW) * np.uint8(255)
        for kind, mask_HW in seen.tempting_HW.items()
    }
    return Drawn(done.film_HW, seen.lesion_HW * np.uint8(255), done.marker, tempting)


def expose(plan: FilmPlan, size: int, rng: Rng) -> Exposed:
    """Pose, see through and develop the plan's body; ``rng`` is the film's own.

    What the plan leaves out takes as many numbers of ``rng`` as what it draws, and a temptation
    none at all: films of two plans that differ in a lesion or a temptation differ in nothing else.
    """
    person = np.random.default_rng((plan.seed, plan.split, plan.patient, plan.study, 0))
    drawn = body(plan.part, person)
    lesion = lesions.choose(drawn.bones, person)
    height, width, view = _pose(drawn, lesions.centre(lesion, drawn.bones[lesion.bone]), size, rng)
    bones = [bone.placed(view) for bone in drawn.bones]
    flesh = [tube.placed(view) for tube in drawn.flesh]
    grain = _texture(height, width, rng)
    bone_HW = _skeleton(bones, grain)
    flesh_HW = _flesh(flesh, height, width, rng)
    clutter.carve_canals(bone_HW, bones, rng)
    clutter.fold_skin(flesh_HW, rng)
    trace = lesions.trace(lesion, bones[lesion.bone], grain)
    strength = np.float32(rng.uniform(0.9, 1.3))
    thick_HW = bone_HW * strength + flesh_HW
    usual = float(np.median(thick_HW[::3, ::3][bone_HW[::3, ::3] > 0]))
    lesion_HW = np.zeros((height, width), np.bool_)
    lesion_HW[trace.window.at] = trace.visible
    lesion_P2 = _points(lesion_HW)
    if plan.positive:
        thick_HW[trace.window.at] += trace.change * strength
    else:
        lesion_HW = np.zeros_like(lesion_HW)
    dense = _dense(plan, bones, flesh, lesion_P2, grain)
    for more_HW in dense.values():
        thick_HW += more_HW * np.float32(usual)
    clean_HW = develop(thick_HW, usual, rng)
    if EXPOSURE in plan.temptations:
        clean_HW = overexposed(clean_HW, _own(plan, EXPOSURE))
    tempting_HW = {kind: more_HW > 0 for kind, more_HW in dense.items()}
    dark_HW = None
    if COLLIMATION in plan.temptations:
        dark_HW = narrow_field(lesion_P2, height, width, _own(plan, COLLIMATION))
        tempting_HW = {kind: mask_HW & ~dark_HW for kind, mask_HW in tempting_HW.items()}
        tempting_HW[COLLIMATION] = dark_HW
    noise_HW = mottle(height, width, rng)
    site = lesions.centre(lesion, bones[lesion.bone])
    return Exposed(clean_HW, noise_HW, dark_HW, site, lesion_HW, tempting_HW)


def _dense(
    plan: FilmPlan, bones: list[Bone], flesh: list[Bone], lesion_P2: Points, grain: Array
) -> dict[str, Array]:
    """What plate and cast take from the beam, float32 [H, W], in the attenuation of usual bone."""
    height, width = grain.shape
    film = width / max(height, width), height / max(height, width)
    found = {}
    if PLATE in plan.temptations:
        plate = place_plate(bones, lesion_P2, film, _own(plan, PLATE))
        found[PLATE] = METAL * metal(plate, height, width)
    if CAST in plan.temptations:
        cast = place_cast(flesh, lesion_P2, film, _own(plan, CAST))
        found[CAST] = PLASTER * plaster(cast, grain)
    return found


def _own(plan: FilmPlan, kind: str) -> Rng:
    """A temptation's own numbers, so that it takes none of the film's."""
    film = plan.seed, plan.split, plan.patient, plan.study, plan.image
    return np.random.default_rng((*film, KINDS.index(kind)))


def _points(mask_HW: Bits) -> Points:
    """Where the mask is, on a grid of GRID a film's long side: float64 [P, 2], x and y in units
    of that side."""
    height, width = mask_HW.shape
    rows, columns = np.nonzero(mask_HW)
    xy = np.stack((columns + 0.5 - width / 2, rows + 0.5 - height / 2), axis=1)
    cells = np.unique(np.floor(xy * (GRID / max(height, width))), axis=0)
    return np.asarray((cells + 0.5) / GRID, np.float64)


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
    dense = soften(thick ** np.float32(0.36)) * np.float32(rng.uniform(0.5, 1.1))
    wide = Image.fromarray(dense).resize((width, height), Image.Resampling.BILINEAR)
    return np.array(wide)
