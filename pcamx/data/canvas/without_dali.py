"""Canvases where DALI is not installed: Pillow reduces the films, close to DALI's, not the same.

On films that fit the canvas as they are, it gives the same canvas to the bit.

Shapes: B batch, H W the film.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pcamx.data.canvas.placement import fit, on_film


def has_dali() -> bool:
    """Tell whether DALI is installed."""
    try:
        return find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:  # of its parent
        return False


def lay_pixels(grey: Sequence[NDArray[Any]], whites: Sequence[int], canvas: int) -> Tensor:
    """Do as `pcamx.data.canvas.decode_pixels.decode_pixels` without DALI, on the CPU.

    Returns uint8 [B, 1, canvas, canvas] of upright films [H, W].
    """
    canvas_B1HW = np.zeros((len(grey), 1, canvas, canvas), np.uint8)
    for row, (film_HW, white) in enumerate(zip(grey, whites, strict=True)):
        place = fit(film_HW.shape[1], film_HW.shape[0], canvas)
        film = Image.fromarray(film_HW.astype(np.float32))  # not rounded between the two axes
        film = film.resize((place.width, place.height), Image.Resampling.BILINEAR)
        levels_hw = np.asarray(film) * np.float32(255 / white)
        on_film(canvas_B1HW[row, 0], place)[:] = np.rint(levels_hw).clip(0, 255)
    return torch.from_numpy(canvas_B1HW)
