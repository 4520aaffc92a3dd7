"""What a person drew on an image, and how it becomes pixels.

Coordinates are continuous: pixel i covers [i, i + 1), x to the right, y down. A box holds the
pixels whose centre lies in it, at least one, and so does a polygon, by the even-odd rule: drawn
along a box it holds the box's pixels, as pycocotools fills it. LabelMe's own masks add the outline,
half a pixel all around. Of a polygon that holds no centre, a crack drawn as a line, the outline is
the lesion.

Shapes: H W the pixels of a raster.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pcamx.errors import PcamxError

Size = tuple[int, int]
"""Width and height of an upright film in pixels."""
Mask = NDArray[np.uint8]
Bits = NDArray[np.bool_]
Bounds = tuple[float, float, float, float]
"""Left, top, right and bottom edge."""
Points = tuple[tuple[float, float], ...]
A_NUMBER = 100
"""Steps of `pcamx.data.marks.work` that reading a number of a mask takes."""
_ELLIPSE = 72  # vertices of the polygon that stands for it


@dataclass(frozen=True, slots=True)
class Polygon:
    """One or more rings of at least three points; what lies in any of them is lesion."""

    kind: ClassVar[str] = "polygon"
    rings: tuple[Points, ...]

    def bounds(self) -> Bounds:
        xs, ys = zip(*(point for ring in self.rings for point in ring), strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def scaled(self, width: float, height: float) -> "Polygon":
        def scaled(ring: Points) -> Points:
            return tuple((_near(x * width), _near(y * height)) for x, y in ring)

        return Polygon(tuple(map(scaled, self.rings)))

    def draw(self, image: Image.Image) -> None:
        for ring in self.rings:
            bits, corner = _centres_in(ring, image.size)
            if bits.any():
                image.paste(255, corner, Image.fromarray(bits * np.uint8(255)))
            else:
                ImageDraw.Draw(image).polygon(ring, fill=255)


def _centres_in(ring: Points, size: Size) -> tuple[Bits, tuple[int, int]]:
    """The pixels around a ring whose centre it holds, and where the first of them lies."""
    x_n, y_n = np.array(ring, np.float64).T
    left, top = (max(0, math.floor(low)) for low in (x_n.min(), y_n.min()))
    width = max(0, min(size[0], math.ceil(x_n.max())) - left)
    height = max(0, min(size[1], math.ceil(y_n.max())) - top)
    # Where a row's centre crosses an edge, inside and outside change for all to the right.
    turns = np.zeros((height, width + 1), np.bool_)
    ends = zip(x_n, y_n, np.roll(x_n, -1), np.roll(y_n, -1), strict=True)
    for x0, y0, x1, y1 in ends:
        first, last = (math.ceil(y - top - 0.5) for y in sorted((y0, y1)))
        row_r = np.arange(max(0, first), min(height, last))
        if len(row_r):
            x_r = x0 + (row_r + top + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
            turns[row_r, np.clip(np.ceil(x_r - left - 0.5), 0, width).astype(np.int64)] ^= True
    return np.logical_xor.accumulate(turns, axis=1)[:, :width], (left, top)


@dataclass(frozen=True, slots=True)
class Box:
    """An upright rectangle, which stands for the lesion somewhere in it."""

    kind: ClassVar[str] = "box"
    left: float
    top: float
    right: float
    bottom: float

    def bounds(self) -> Bounds:
        return self.left, self.top, self.right, self.bottom

    def scaled(self, width: float, height: float) -> "Box":
        return Box(
            _near(self.left * width),
            _near(self.top * height),
            _near(self.right * width),
            _near(self.bottom * height),
        )

    def draw(self, image: Image.Image) -> None:
        left, right = _covered(self.left, self.right)
        top, bottom = _covered(self.top, self.bottom)
        ImageDraw.Draw(image).rectangle((left, top, right, bottom), fill=255)


def _near(pixels: float) -> float:
    """A vertex at 8 may come back as 7.9998: shares are written with few digits."""
    return round(pixels, 2)


def _covered(low: float, high: float) -> tuple[int, int]:
    """First and last pixel whose centre lies in [low, high); the middle one if there is none."""
    first, last = math.ceil(low - 0.5), math.ceil(high - 0.5) - 1
    return (first, last) if last >= first else (math.floor((low + high) / 2),) * 2


class Layers(NamedTuple):
    """Pixels by class."""

    of: dict[str, Bits]
    """Class, "" for none, > bool [height, width]."""
    remark: str = ""
    """What is to be known of them."""


@dataclass(frozen=True, slots=True)
class Raster:
    """Pixels that are still to be decoded."""

    kind: ClassVar[str] = "mask"
    left: int
    top: int
    width: int
    height: int
    pixels: Callable[[], Bits | Layers]
    """Makes them, bool [height, width], in one layer or several. Raises PcamxError."""
    effort: int = 0
    """What decoding takes beside looking at each pixel, in steps of `pcamx.data.marks.work`."""

    def bounds(self) -> Bounds:
        return self.left, self.top, self.left + self.width, self.top + self.height

    def decoded(self, size: Size) -> tuple[dict[str, "Bitmap"], str]:
        """Decode class, "" for none, > its pixels, of a film of ``size``; and what is to be known.

        Raises PcamxError for pixels that cannot be had. The size is looked at before anything is
        allocated: a file may claim any.
        """
        if self.width > size[0] or self.height > size[1]:
            raise PcamxError(
                f"a mask of {by((self.width, self.height))} pixels, the film has {by(size)}; "
                "draw it at the film's own size"
            )
        found = self.pixels()
        layers = found if isinstance(found, Layers) else Layers({"": found})
        bitmaps = {name: Bitmap.of(bits, self.left, self.top) for name, bits in layers.of.items()}
        return bitmaps, layers.remark


@dataclass(frozen=True, slots=True)
class Bitmap:
    """Pixels, cut to those that are set and packed, since a set may have thousands of masks."""

    kind: ClassVar[str] = "mask"
    left: int
    top: int
    width: int
    height: int
    packed: bytes

    @classmethod
    def of(cls, bits: Bits, left: int, top: int) -> "Bitmap":
        """Return ``bits``, bool [height, width], whose first pixel lies at ``left`` and ``top``."""
        rows, columns = (np.flatnonzero(bits.any(axis)) for axis in (1, 0))
        if not len(rows):
            return cls(left, top, 0, 0, b"")
        y, x = int(rows[0]), int(columns[0])
        inner = bits[y : rows[-1] + 1, x : columns[-1] + 1]
        height, width = inner.shape
        return cls(left + x, top + y, width, height, np.packbits(inner).tobytes())

    def bounds(self) -> Bounds:
        return self.left, self.top, self.left + self.width, self.top + self.height

    def is_ground(self, size: Size) -> bool:
        """Tell whether it is over half of a film of ``size``, or all of the film's border."""
        if not self.packed:
            return False
        bits_HW = self._bits()
        if 2 * np.count_nonzero(bits_HW) > size[0] * size[1]:
            return True
        whole = self.bounds() == (0, 0, *size)
        return whole and all(side.all() for one in (bits_HW, bits_HW.T) for side in one[[0, -1]])

    def _bits(self) -> NDArray[np.uint8]:
        flat = np.unpackbits(np.frombuffer(self.packed, np.uint8), count=self.width * self.height)
        return flat.reshape(self.height, self.width)

    def draw(self, image: Image.Image) -> None:
        if not self.packed:
            return
        stencil = Image.fromarray(self._bits() * np.uint8(255))
        image.paste(255, (self.left, self.top), stencil)


Shape: TypeAlias = Polygon | Box | Raster
"""What a format gives."""
Drawable: TypeAlias = Polygon | Box | Bitmap
"""What can be drawn on a film."""


def draw(shapes: Iterable[Drawable], size: Size) -> Mask:
    """Draw the union of the shapes: uint8 [H, W] of 0 and 255, of an upright film of ``size``."""
    image = Image.new("L", size)
    for shape in shapes:
        shape.draw(image)
    return np.asarray(image)


def ellipse(x: float, y: float, across: float, down: float, degrees: float = 0.0) -> Polygon:
    """Return an ellipse with its centre and half axes, turned clockwise, as a polygon."""
    angles = (2 * math.pi * k / _ELLIPSE for k in range(_ELLIPSE))
    ring = tuple((x + across * math.cos(a), y + down * math.sin(a)) for a in angles)
    return Polygon((turned(ring, (x, y), degrees),))


def turned(points: Iterable[tuple[float, float]], about: tuple[float, float], deg: float) -> Points:
    """Return the points turned clockwise, as one sees it where y points down."""
    cos, sin = math.cos(math.radians(deg)), math.sin(math.radians(deg))
    x0, y0 = about
    return tuple(
        (_near(x0 + (x - x0) * cos - (y - y0) * sin), _near(y0 + (x - x0) * sin + (y - y0) * cos))
        for x, y in points
    )


def rectangle(box: Box, degrees: float, about: tuple[float, float]) -> Box | Polygon:
    """Return the box turned clockwise about a point; a box stays one where it is not turned."""
    if degrees % 360 == 0:
        return box
    left, top, right, bottom = box.bounds()
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return Polygon((turned(corners, about, degrees),))


def about_middle(box: Box, degrees: float) -> Box | Polygon:
    """Return the box turned clockwise about its middle."""
    return rectangle(box, degrees, ((box.left + box.right) / 2, (box.top + box.bottom) / 2))


def by(size: Size) -> str:
    """Return ``20 x 10``, for messages."""
    return f"{size[0]} x {size[1]}"
