"""The pixels of one image file, as training decodes it, or the reason why it is not read.

DALI stops the whole run on a file that it cannot decode, so each file is decoded here first: by
nvImageCodec, whose codecs are DALI's own. Of 3,000 randomly damaged files (DALI 2.4, CPU) none got
past this check that DALI refused; Pillow let pass PNGs without an end, JPEGs with broken markers.
Pillow reads only the header here, and words the reason when the decoder refuses; without
`pcamx[train]`, for `predict`, it decodes what is grey.

What DALI and Pillow agree on, to a grey level, and what is therefore allowed:

- PNG of 1 to 8 bits, grey, RGB, palette, with alpha (dropped) or not, interlaced; 16-bit grey.
  Not where what is wholly transparent hides anything but black, which viewers do not show.
- JPEG, grey and colour, progressive; Pillow clips out-of-gamut colour, DALI takes luma alone.
- The EXIF orientation of JPEG and PNG. Not one kept in XMP or a text chunk, which DALI ignores.
- BMP; TIFF, grey or RGB, 8 and 16 bits, one page, in its own orientation.
- Any of these under a wrong suffix: both go by the content.

What they read differently, or DALI not at all: CMYK JPEG (2 levels apart), 16-bit colour (Pillow
cuts it to 8), 1-bit TIFF (DALI dies), palette and float TIFF (scaled differently), turned TIFF
(their pixels differ), min-is-white 16-bit TIFF (both show the negative).
"""

from typing import Any, NamedTuple

import numpy as np

from pcamx.data.files.file_content import UnfitError, one_line
from pcamx.data.files.image_decoders import check_turned, decode
from pcamx.data.files.image_header import (
    UPRIGHT,
    check_clear,
    check_kind,
    open_image,
    orientation_of,
)


class ImageFile(NamedTuple):
    """A decoded film that is no DICOM."""

    kind: str
    """PNG, JPEG, TIFF or BMP, by its content."""
    grey_HW: np.ndarray[Any, Any]
    """Upright, uint8 or uint16."""
    turn: int
    """EXIF orientation, 1 to 8, by which the stored pixels were turned upright."""


def read_image(data: bytes) -> ImageFile:
    """Decode the content of an image file as training will.

    Raises UnfitError with the reason to keep the film out.
    """
    with open_image(data) as image:
        try:
            check_kind(image, data)
            turn = orientation_of(image, data)
        except (UnfitError, MemoryError):
            raise
        except Exception as error:  # Pillow's readers raise whatever a damaged file makes them
            raise UnfitError(f"damaged header or EXIF: {one_line(error)}") from None
        width, height = image.size if turn in UPRIGHT else image.size[::-1]
        grey_HW = decode(image, data)
        if turn != 1:
            check_turned(image, grey_HW)
        check_clear(image)
        kind = str(image.format)
    if grey_HW.shape != (height, width):
        shape = f"{grey_HW.shape[1]} x {grey_HW.shape[0]}"
        raise UnfitError(f"decodes to {shape}, not {width} x {height} pixels")
    return ImageFile(kind, grey_HW, turn)


def white_level(grey_HW: np.ndarray[Any, Any]) -> int:
    """Return the grey level shown as white, by `pcamx.data.store.Film.white`'s rule."""
    if grey_HW.dtype == np.uint8:
        # 255 is how the reader of the manifest tells 8 bits from 16, so a dark deep film has 256.
        return 255
    return max(256, (1 << int(grey_HW.max()).bit_length()) - 1)
