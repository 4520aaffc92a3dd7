"""What the page of all films draws of one: the film, a small one, and its maps in one strip.

Imports no torch, so that the processes that draw start fast. Shapes: H W the film, h w a map as
kept.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LONG_SIDE, SMALL = 1024, 176
"""Of the film and of the small one, at most, in pixels."""
FILM, THUMB, MAPS = ".jpg", ".small.jpg", ".png"
"""What a film's stem ends in."""
SCALE = 10_000
"""Outlines are in whole numbers: 0 0 is the film's upper left corner, this its lower right."""

Ring = list[int]
"""x, y, x, y, ... of a closed outline."""


def write_film(stem: Path, grey_HW: NDArray[np.uint8]) -> None:
    """Write the upright film, reduced where it is larger than LONG_SIDE, and the small one.

    Raises OSError where the disk refuses.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    for ending, side in ((FILM, LONG_SIDE), (THUMB, SMALL)):
        image = Image.fromarray(grey_HW)
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        image.save(stem.with_name(stem.name + ending), format="JPEG", quality=92)


def reduced(width: int, height: int, long_side: int = LONG_SIDE) -> str:
    """Say that a film of ``width`` x ``height`` is shown with less, "" where it is not."""
    if max(width, height) <= long_side:
        return ""
    return f"{width} x {height} pixels, shown with {long_side} along the longer side"


def write_maps(stem: Path, maps_hw: Sequence[NDArray[np.uint8]]) -> None:
    """Write the maps, all of one size, below each other. Raises OSError where the disk refuses."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(maps_hw)).save(stem.with_name(stem.name + MAPS), format="PNG")


def join_maps(stem: Path, strips: Sequence[tuple[Path, int]]) -> None:
    """Write the maps of several strips, each a file of so many, below each other.

    All in the size of the first one's. Raises OSError where the disk refuses.
    """
    size: tuple[int, int] | None = None
    maps_hw = []
    for path, count in strips:
        with Image.open(path) as strip:
            height = strip.height // count
            size = size or (strip.width, height)
            for top in range(0, count * height, height):
                one = strip.crop((0, top, strip.width, top + height))
                maps_hw.append(np.asarray(one.resize(size, Image.Resampling.BILINEAR)))
    write_maps(stem, maps_hw)


def eight_bits(grey_HW: NDArray[Any], white: int) -> NDArray[np.uint8]:
    """Return grey levels up to ``white`` as 0 to 255."""
    if grey_HW.dtype == np.uint8:
        return grey_HW
    return np.rint(grey_HW * np.float32(255 / white)).clip(0, 255).astype(np.uint8)


def ring(points_P2: NDArray[np.float64], width: float, height: float) -> Ring:
    """Return an outline on a film of ``width`` x ``height``, 0 0 its corner, as the page has it."""
    scaled_P2 = points_P2 * (SCALE / np.array([width, height]))
    return [int(value) for value in scaled_P2.round().clip(0, SCALE).ravel()]
