"""What comes onto a film last: the collimator's edges and the side marker.

Shapes: H W the film.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pcamx.data.canvas.side_markers import Box
from pcamx.data.phantom.anatomy.bones import Array, Point, Points, Rng

Bits = NDArray[np.bool_]
ROOM = 0.05  # at least, between the lesion and a narrow field's edge


class Finished(NamedTuple):
    """A film as it is stored."""

    film_HW: NDArray[np.uint8]
    field_HW: Bits  # where it is exposed, but for a narrow field
    marker: Box | None  # of the letter


def finish(film_HW: Array, letter: str, site: Point, dark_HW: Bits | None, rng: Rng) -> Finished:
    """Add collimation and the side marker, and round to eight bits.

    Args:
        site: where the lesion lies, or would lie.
        dark_HW: where a narrow field leaves the film dark besides.
    """
    height, width = film_HW.shape
    side = max(height, width)
    site_px = (site[0] * side + width / 2, site[1] * side + height / 2)
    field = left, top, right, bottom = _field(width, height, site_px, rng)
    field_HW = np.zeros((height, width), np.bool_)
    field_HW[top:bottom, left:right] = True
    lit_HW = field_HW if dark_HW is None else field_HW & ~dark_HW
    out = np.where(lit_HW, film_HW, np.float32(rng.uniform(0, 9)))
    # In the same place on a narrow field: the letter may lie on its dark border.
    marker = _stamp(out, letter, field, site_px, rng) if letter else None
    return Finished(np.clip(np.rint(out), 0, 255).astype(np.uint8), field_HW, marker)


def narrow_field(lesion_P2: Points, height: int, width: int, rng: Rng) -> Bits:
    """Return what a field cut close on all sides leaves dark, bool [H, W]; the lesion stays in it.

    Args:
        lesion_P2: where the lesion lies, or would lie, in units of the film's long side.
    """
    side = max(height, width)
    turn = rng.normal(0, 0.04)
    c, s = math.cos(turn), math.sin(turn)
    x = (np.arange(width) + 0.5 - width / 2) / side
    y = ((np.arange(height) + 0.5 - height / 2) / side)[:, None]
    u_HW, v_HW = c * x + s * y, c * y - s * x
    u_P = c * lesion_P2[:, 0] + s * lesion_P2[:, 1]
    v_P = c * lesion_P2[:, 1] - s * lesion_P2[:, 0]
    dark_HW = np.zeros((height, width), np.bool_)
    for at_HW, at_P, extent in ((u_HW, u_P, width / side), (v_HW, v_P, height / side)):
        low, high = (0.5 - rng.uniform(0.13, 0.19, 2)) * extent
        dark_HW |= at_HW < -max(low, ROOM - float(at_P.min()))
        dark_HW |= at_HW > max(high, ROOM + float(at_P.max()))
    return dark_HW


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
