"""Which pixels of a mask image are lesion.

Pixels that are not black are, whatever their colour. Where a part of the picture is transparent,
it was painted on a layer: what is not transparent is lesion, in black too, unless it is black in
some places and not in others.
"""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from pcamx.data.marks.parse import MAX_BYTES, line
from pcamx.data.marks.shapes import Bits, Layers, Size, by
from pcamx.errors import PcamxError
from pcamx.output import without_address

MAX_PIXELS = 64_000_000
"""As many as a film may have."""
CLASSES = 8
"""Pictures of more greys or colours are not made of classes."""
_STRIP = 1 << 18  # pixels
_SHOWN = 4
_INDEX = 32
"""Grey levels below number the classes; others shade them."""
_FORMATS = ("PNG", "BMP", "TIFF")
_PHOTOMETRIC = 262
_SWAPPED = (5, 6, 7, 8)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright_size(file: Path) -> Size:
    """Return width and height of a mask after its EXIF orientation. Raises PcamxError."""
    try:
        data = _bytes(file)
        with Image.open(io.BytesIO(data)) as image:
            size = image.size
            _check(image)
            if image.format == "PNG" and "exif" not in image.info and b"eXIf" in data:
                image.load()  # it stands behind the pixels
            return size[::-1] if _turn(image) in _SWAPPED else size
    except PcamxError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them
        raise PcamxError(_unreadable(error)) from None


def classes_of(file: Path) -> Layers:
    """Return the classes of a mask, upright; "" for one without.

    Grey levels from 1 to 31 number the classes, up to eight colours are classes. Raises PcamxError
    for what cannot be read, or has no background.
    """
    colours_HW, lesion_HW, grey = _read(_bytes(file))
    parts = [np.unique(colours_HW[rows][lesion_HW[rows]]) for rows in _strips(*lesion_HW.shape)]
    values = np.unique(np.concatenate(parts))
    if lesion_HW.all():
        raise PcamxError("no pixel is black or transparent; paint the background black")
    names = [f"{value:g}" if grey else f"#{int(value):06x}" for value in values.tolist()]
    numbers = bool(len(values)) and values.dtype != bool and 0 < values[0] <= values[-1] < _INDEX
    if len(values) <= CLASSES and (numbers if grey else len(values)):
        layers = {n: lesion_HW & (colours_HW == v) for n, v in zip(names, values, strict=True)}
        return Layers(layers)
    several = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return Layers({"": lesion_HW}, several if len(names) > 1 else "")


def embedded(text: str, size: Size) -> Bits:
    """Read the lesion in a PNG of ``size`` that stands in a text as base64, a data URL or not.

    Raises PcamxError.
    """
    head, comma, body = text.partition(",")
    try:
        data = base64.b64decode(body if comma else head, validate=False)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            found = image.size
    except Exception as error:  # as above
        raise PcamxError(
            f"the mask is no readable PNG ({line(without_address(error))}); draw it again"
        ) from None
    if found != size:
        raise PcamxError(f"a mask of {by(found)} pixels for {by(size)}; draw it again")
    return _read(data)[1]


def _bytes(file: Path) -> bytes:
    """The file, at once: Pillow 13.0 maps a turned TIFF's pixels from the disk at a wrong size."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise PcamxError(f"larger than {MAX_BYTES >> 20} MiB; save it smaller")
        return file.read_bytes()
    except OSError as error:
        raise PcamxError(f"cannot be read ({error.strerror}); check the path") from None


def _read(data: bytes) -> tuple[NDArray[Any], Bits, bool]:
    """A number for each pixel's colour, whether it is lesion, and whether the numbers are greys."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            _check(image)
            image.load()
            turn = _turn(image)
            upright = image.transpose(_TURNS[turn]) if turn in _TURNS else image
            upright.info.update(image.info)
            grey = upright.mode in ("1", "L", "I", "F") or upright.mode.startswith("I;16")
            if not grey or (upright.mode in ("1", "L") and "transparency" in image.info):
                found = _coloured(upright)
                blank = upright.mode == "P" and not found[1].any()
                if blank and len(upright.getcolors() or ()) > 1:
                    raise PcamxError("its palette makes all of it black; save it as 8-bit grey")
                return found
            return *_grey(np.asarray(upright), image.info.get("transparency")), True
    except PcamxError:
        raise
    except Exception as error:  # as above
        raise PcamxError(_unreadable(error)) from None


def _grey(values_HW: NDArray[Any], clear: Any) -> tuple[NDArray[Any], Bits]:
    if values_HW.dtype.kind == "f":
        values_HW = np.nan_to_num(values_HW)  # what is not measured is no lesion
    seen_HW = values_HW != clear if isinstance(clear, int) else np.ones(values_HW.shape, np.bool_)
    return values_HW, _lesion(values_HW != 0, seen_HW)


def _coloured(image: Image.Image) -> tuple[NDArray[Any], Bits, bool]:
    """By strips, since four bytes a pixel, and as many again to tell them apart, take much."""
    width, height = image.size
    colours_HW = np.empty((height, width), np.int32)
    seen_HW = np.empty((height, width), np.bool_)
    grey = True
    for rows in _strips(height, width):
        strip = image.crop((0, rows.start, width, rows.stop)).convert("RGBA")
        red_HW, green_HW, blue_HW, alpha_HW = np.moveaxis(np.asarray(strip), -1, 0)
        grey = grey and bool((red_HW == green_HW).all() and (green_HW == blue_HW).all())
        colours_HW[rows] = red_HW.astype(np.int32) << 16 | green_HW.astype(np.int32) << 8 | blue_HW
        seen_HW[rows] = alpha_HW != 0
    lesion_HW = _lesion(colours_HW != 0, seen_HW)
    return colours_HW.astype(np.uint8) if grey else colours_HW, lesion_HW, grey


def _strips(height: int, width: int) -> Iterator[slice]:
    rows = max(1, _STRIP // max(width, 1))
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def _lesion(bright_HW: Bits, seen_HW: Bits) -> Bits:
    lesion_HW: Bits = seen_HW & bright_HW
    if lesion_HW.any() or seen_HW.all():
        return lesion_HW
    if bright_HW.any():
        raise PcamxError("bright where it is transparent, black elsewhere; save it without alpha")
    return seen_HW  # painted in black on a layer


def _check(image: Image.Image) -> None:
    """Raise PcamxError for what is too large, or of which Pillow would give a part."""
    if image.width * image.height > MAX_PIXELS:
        raise PcamxError(f"larger than {MAX_PIXELS // 10**6} megapixels; save it smaller")
    if image.format not in _FORMATS:
        raise PcamxError(f"a {image.format} under another name, which blurs edges; save it as PNG")
    if len(image.getbands()) > 1 and ";16" in str(getattr(image, "tile", "")):
        raise PcamxError("16 bits a colour, of which half would be lost; save it as 8-bit grey")
    negative = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0
    if negative and image.mode.startswith("I"):
        raise PcamxError("a 16-bit negative, which may be either way round; save it as PNG")
    if _has_more(image):
        raise PcamxError("several pages; save each as a mask, in folders of their own")


def _has_more(image: Image.Image) -> bool:
    """Whether a second page follows; to count all of a million would take long."""
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def _turn(image: Image.Image) -> int:
    """The EXIF orientation that is still to be applied; Pillow applies a TIFF's itself."""
    if image.format == "TIFF":
        return 1
    exif = Image.Exif()
    exif.load(image.info.get("exif", b""))
    return int(exif.get(ExifTags.Base.Orientation, 1))


def _unreadable(error: Exception) -> str:
    return f"not a readable mask ({line(without_address(error))}); save it as PNG again"
