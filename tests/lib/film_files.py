"""Pictures without symmetry, and stores made of such files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pcamx.data.store import Film, Store

CPU = torch.device("cpu")


def texture(width: int, height: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A smooth grey picture without symmetry, values 0 to 255."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    wave = np.sin(9 * x + 4 * y + seed) + np.cos(3 * x - 7 * y * y)
    grey: npt.NDArray[np.uint8] = np.clip(64 * (wave + 2), 0, 255).astype(np.uint8)
    return grey


def film(path: str, width: int, height: int, white: int = 255, mark: str = "") -> Film:
    return Film(path, 1, "p", "p/s", "", "train", width, height, white, mark)


def make_store(folder: Path, films: Sequence[Film]) -> Store:
    return Store(folder, folder, tuple(films), 60.0, 40.0)
