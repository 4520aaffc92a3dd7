"""The header of an image file: what DALI and Pillow read alike passes, the rest has its reason.

`pcamx.data.files.image` lists both.
"""

import warnings
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from pcamx.data.files.file_content import MAX_PIXELS, UnfitError, check_size, one_line

UPRIGHT = (1, 2, 3, 4)
"""EXIF orientations that keep width and height; the others swap them."""
DEEP = ("I", "I;16", "I;16B")
"""Pillow's modes of more than 8 bits."""
_MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"),
    "JPEG": ("L", "RGB"),
    "BMP": ("1", "L", "P", "RGB"),
    "TIFF": ("L", "LA", "RGB", "RGBA", "I;16", "I;16B"),
}
_PNG_METADATA = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
_TIFF_PHOTOMETRIC, _BLACK_IS_ZERO, _TIFF_RGB = 262, 1, 2
TIFF_BITS = 258
"""TIFF's tag of the bits of each sample."""
_TIFF_TILE, _TILE_PIXELS = (322, 323), 1 << 24
_TIFF_FORMAT, _UNSIGNED = 339, 1
_TIFF_SUBFILES, _TIFF_KIND, _OF_ANOTHER = 330, 254, 1 | 4
_TIFF_OLD_KIND, _REDUCED = 255, 2
_SEVERAL = "several images in one file; save them one by one"
_STRIP = 1 << 18  # pixels
_START_OF_SCAN, _MOST_SCANS = b"\xff\xda", 100


def open_image(data: bytes) -> Image.Image:
    """Read the file's header by Pillow; its size is checked before anything is decoded.

    Raises UnfitError.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of bombs; ours is the lower limit
            image = Image.open(BytesIO(data))
    except UnidentifiedImageError:
        raise UnfitError("not an image, or one with a damaged header") from None
    except Image.DecompressionBombError:
        raise UnfitError(f"larger than {MAX_PIXELS // 10**6} megapixels") from None
    except Exception as error:  # Pillow's readers raise whatever a damaged header makes them
        raise UnfitError(f"damaged header: {one_line(error)}") from None
    check_size(*image.size)
    return image


def check_scans(jpeg: bytes) -> None:
    """Raise UnfitError for a JPEG of very many scans: each goes over all pixels, however short."""
    if jpeg.count(_START_OF_SCAN) > _MOST_SCANS:
        raise UnfitError(f"a JPEG of more than {_MOST_SCANS} scans; save it anew")


def check_kind(image: Image.Image, data: bytes) -> None:
    """Raise UnfitError unless the format is one that DALI and Pillow read alike."""
    kind = image.format or "unknown"
    if kind == "MPO":  # a JPEG with others behind it
        raise UnfitError(_SEVERAL)
    if kind not in _MODES:
        raise UnfitError(f"format {kind} is not read; save it as PNG, JPEG, TIFF or BMP")
    if image.mode not in _MODES[kind]:
        raise UnfitError(f"{kind} of mode {image.mode} is not read; save it as grey PNG")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _check_tiff(image)
    elif getattr(image, "n_frames", 1) > 1:
        raise UnfitError(_SEVERAL)
    if kind == "JPEG":
        check_scans(data)


def _check_tiff(image: TiffImagePlugin.TiffImageFile) -> None:
    """Raise unless the file is one page, in tiles of a bearable size."""
    tags = image.tag_v2
    if tags.get(_TIFF_PHOTOMETRIC) not in (_BLACK_IS_ZERO, _TIFF_RGB):
        kind = tags.get(_TIFF_PHOTOMETRIC)
        raise UnfitError(f"TIFF of photometric kind {kind} is not read; save it as grey PNG")
    if odd := {*tags.get(TIFF_BITS, (8,))} - {8, 16}:
        raise UnfitError(f"a TIFF of {min(odd)} bits a sample is not read; save it with 8 or 16")
    if {*tags.get(_TIFF_FORMAT, (_UNSIGNED,))} != {_UNSIGNED}:
        raise UnfitError("a TIFF of signed or fractional samples; save it as grey PNG")
    # The link alone: Pillow counts pages by going to each, and there may be millions.
    if tags.next or _TIFF_SUBFILES in tags:
        raise UnfitError(_SEVERAL)
    if tags.get(_TIFF_KIND, 0) & _OF_ANOTHER or tags.get(_TIFF_OLD_KIND) == _REDUCED:
        raise UnfitError("a TIFF of a thumbnail or a mask, by its own word; save the film itself")
    across, down = (int(tags.get(tag, 0)) for tag in _TIFF_TILE)
    if across * down > image.width * image.height + _TILE_PIXELS:
        raise UnfitError(f"a TIFF in tiles of {across} x {down} pixels, larger than the image")


def check_clear(image: Image.Image) -> None:
    """Raise UnfitError where a part is transparent, and what is underneath would be seen."""
    try:
        if image.mode in DEEP:
            level = image.info.get("transparency") or 0
            hides = bool(level and (np.asarray(image) == level).any())
        elif "A" in image.mode or "transparency" in image.info:
            hides = _hides(image)
        else:
            return
    except MemoryError:
        raise
    except Exception as error:  # as in open_image
        raise UnfitError(f"damaged: {one_line(error)}") from None
    if hides:
        raise UnfitError("in part transparent, and not black underneath; save it without alpha")


def _hides(image: Image.Image) -> bool:
    """Whether a part is wholly transparent and not black; in strips, since RGBA takes much."""
    seen = hidden = False
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        rgba_HW4 = np.asarray(strip.convert("RGBA"))
        clear_HW = rgba_HW4[..., 3] == 0
        seen = seen or not clear_HW.all()
        hidden = hidden or bool(rgba_HW4[clear_HW, :3].any())
    return seen and hidden


def orientation_of(image: Image.Image, data: bytes) -> int:
    """Return the EXIF orientation, 1 to 8, by which the decoder turns what is stored.

    Raises UnfitError for a turn that decoder and viewers do not agree on.
    """
    # Pillow decodes a whole PNG in search of EXIF at its end; most have none.
    if image.format == "PNG" and not any(name in data for name in _PNG_METADATA):
        return 1
    tag = ExifTags.Base.Orientation
    pillow = image.getexif().get(tag, 1)  # first, since it may fill info["exif"]
    exif = Image.Exif()
    exif.load(image.info.get("exif", b""))
    turn = exif.get(tag, 1)
    if image.format == "TIFF":
        if pillow != 1:
            raise UnfitError("a turned TIFF (orientation tag); save it upright")
        return 1
    if turn != pillow:
        raise UnfitError("turned by metadata other than EXIF, which viewers disagree on")
    return turn if turn in range(1, 9) else 1
