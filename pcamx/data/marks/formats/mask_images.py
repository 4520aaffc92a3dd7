"""A folder of mask images, named like the films whatever the suffix; non-zero pixels are lesion."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pcamx.data.marks.parse import line
from pcamx.data.marks.rle import Bits
from pcamx.data.marks.shapes import Annotated, Mark, Raster
from pcamx.errors import PcamxError

SUFFIXES = {".png", ".bmp", ".tif", ".tiff"}
_LOSSY = {".jpg", ".jpeg", ".webp"}


def read(folder: Path, files: list[Path]) -> Iterator[tuple[Path, Annotated]]:
    """Each file and its mask, the pixels unread. Raises PcamxError, with the file."""
    for file in files:
        if file.suffix.lower() in _LOSSY:
            raise PcamxError(f"{file}: {file.suffix} blurs a mask's edge; save masks as PNG")
        if file.suffix.lower() not in SUFFIXES:
            continue
        name = file.relative_to(folder).as_posix()
        try:
            with Image.open(file) as image:
                size = image.size
        except Exception as error:  # Pillow's readers raise whatever a damaged file makes them
            raise PcamxError(f"{file}: {_unreadable(error)}") from None
        shape = Raster(0, 0, *size, partial(_pixels, file))
        yield file, Annotated(name, size, (Mark(name, "", shape),), suffix=False)


def _unreadable(error: Exception) -> str:
    return f"not a readable mask ({line(error)}); save it as PNG again"


def _pixels(file: Path) -> Bits:
    try:
        with Image.open(file) as image:
            # Colour, not palette index: an index of 0 need not be black. Alpha does not count.
            plain = image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16")
            pixels = np.asarray(image if plain else image.convert("RGB"))
    except Exception as error:  # as above
        raise PcamxError(_unreadable(error)) from None
    lesion: Bits = (pixels if pixels.ndim == 2 else pixels.max(axis=-1)) != 0
    return lesion
