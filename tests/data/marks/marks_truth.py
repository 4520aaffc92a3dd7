"""What marks must become, for `test_marks_matrix.py`, and the parts that its files are made of.

The films are ap.png, 40 x 30, and lat.png, 30 x 40. What must become of a mark is worked out here
from the centres of pixels, without the project's shapes.
"""

import base64
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

W, H = 40, 30
FILMS: dict[str, tuple[int, int] | None] = {"p/ap.png": (W, H), "p/lat.png": (H, W)}
AP, LAT = FILMS
Bits = NDArray[np.bool_]
Write = Callable[[Path], Path]


class Case(NamedTuple):
    """One file and what it must become."""

    name: str
    write: Write
    exact: dict[str, Bits]
    """Film > its pixels."""
    near: dict[str, Bits] = {}
    """Film > its pixels, but for two: curves are drawn with corners, shares with few digits."""
    says: tuple[str, ...] = ()
    """Problems: `kind: text`, each the beginning of one."""
    labels: tuple[str, ...] = ()


# What is right, pixel by pixel


def centres(size: tuple[int, int] = (W, H)) -> tuple[NDArray[Any], NDArray[Any]]:
    y, x = np.mgrid[: size[1], : size[0]]
    return x + 0.5, y + 0.5


def box(left: float, top: float, right: float, bottom: float, size: Any = (W, H)) -> Bits:
    x, y = centres(size)
    return (left <= x) & (x < right) & (top <= y) & (y < bottom)


def within(ring: Sequence[Sequence[float]]) -> Bits:
    """Even-odd, by the edges that a ray to the right cuts."""
    x, y = centres()
    found = np.zeros((H, W), bool)
    for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
        if y0 != y1:
            crossed = (y0 > y) != (y1 > y)
            found ^= crossed & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return found


def oval(cx: float, cy: float, a: float, b: float, degrees: float = 0) -> Bits:
    x, y = centres()
    t = math.radians(degrees)
    along = (x - cx) * math.cos(t) + (y - cy) * math.sin(t)
    across = (y - cy) * math.cos(t) - (x - cx) * math.sin(t)
    return (along / a) ** 2 + (across / b) ** 2 < 1


def turned_box(cx: float, cy: float, w: float, h: float, degrees: float) -> Bits:
    x, y = centres()
    t = math.radians(degrees)
    along = (x - cx) * math.cos(t) + (y - cy) * math.sin(t)
    across = (y - cy) * math.cos(t) - (x - cx) * math.sin(t)
    return (abs(along) < w / 2) & (abs(across) < h / 2)


BOX = box(5, 4, 17, 13)
PAINTED = BOX & ~box(9, 7, 13, 9)  # with a hole, so that no polygon or box passes for it
RING = [(20, 15), (36, 17), (33, 27), (22, 25)]
DENTED = [(4, 3), (18.5, 3.2), (18, 12), (11, 6.5), (4.4, 13)]

# Files


def as_json(tree: Any, name: str = "marks.json") -> Write:
    return lambda folder: as_text(folder / name, json.dumps(tree))


def as_text(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def png(pixels: Any, **save: Any) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, "PNG", **save)
    return file.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def flat(ring: Sequence[Sequence[float]]) -> list[float]:
    return [number for point in ring for number in point]
