"""Whether one film may go into the manifest, and what is to be known about it."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pcamx.data.image_file import UnfitError, read_grey


class Facts(NamedTuple):
    """What the manifest records of a sound film; grey levels are scaled by 255 / white."""

    width: int
    height: int
    white: int
    mean: float
    mean_square: float


def verify(path: Path) -> Facts | str:
    """Decode one file as training will; its facts, or the reason to keep it out."""
    try:
        return _facts(read_grey(path))
    except UnfitError as reason:
        return str(reason)


def _facts(grey_HW: np.ndarray[Any, Any]) -> Facts:
    """Sums go over a histogram, in whole numbers: the same result on every machine."""
    count = _histogram(grey_HW)
    level = np.arange(len(count))
    white = white_level(grey_HW)
    scale, pixels = 255 / white, grey_HW.size
    mean = int(count @ level) / pixels * scale
    mean_square = int(count @ level**2) / pixels * scale**2
    return Facts(grey_HW.shape[1], grey_HW.shape[0], white, mean, mean_square)


def _histogram(grey_HW: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    # Pillow's is three times as fast, and for 8 bits only.
    if grey_HW.dtype == np.uint8:
        return np.array(Image.fromarray(grey_HW).histogram())
    return np.bincount(grey_HW.ravel())


def white_level(grey_HW: np.ndarray[Any, Any]) -> int:
    """The grey level shown as white, by `pcamx.data.store.Film.white`'s rule."""
    if grey_HW.dtype == np.uint8:
        # 255 is how the reader of the manifest tells 8 bits from 16, so a dark deep film has 256.
        return 255
    return max(256, (1 << int(grey_HW.max()).bit_length()) - 1)
