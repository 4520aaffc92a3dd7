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

import os
import stat
import warnings
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

MAX_PIXELS = 64_000_000
MAX_BYTES = 1 << 29
MIN_SIDE = 8
MISSING = "missing"
"""The reason where there is no file."""
UPRIGHT = (1, 2, 3, 4)
"""EXIF orientations that keep width and height; the others swap them."""
_MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"),
    "JPEG": ("L", "RGB"),
    "BMP": ("1", "L", "P", "RGB"),
    "TIFF": ("L", "LA", "RGB", "RGBA", "I;16", "I;16B"),
}
_DEEP = ("I", "I;16", "I;16B")
_PNG_METADATA = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
_TIFF_PHOTOMETRIC, _BLACK_IS_ZERO, _TIFF_RGB = 262, 1, 2
_TIFF_TILE, _TILE_PIXELS = (322, 323), 1 << 24
_TIFF_BITS = 258
_DEEP_COLOUR = "16 bits a channel in colour or with alpha; save it as plain 16-bit grey"
_SEVERAL = "several images in one file; save them one by one"
_START_OF_SCAN, _MOST_SCANS = b"\xff\xda", 100


class UnfitError(Exception):
    """The file goes to the quarantine, for this reason."""


class ImageFile(NamedTuple):
    """A decoded film that is no DICOM."""

    kind: str
    """PNG, JPEG, TIFF or BMP, by its content."""
    grey_HW: np.ndarray[Any, Any]
    """Upright, uint8 or uint16."""
    turn: int
    """EXIF orientation, 1 to 8, by which the stored pixels were turned upright."""


@cache
def _decoder() -> tuple[Any, Any]:
    """The CPU decoder of this process and its parameters."""
    # Both are read when the library starts; the quarantine says it better than their logs.
    os.environ.setdefault("PYNVIMGCODEC_VERBOSITY", "0")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    from nvidia import nvimgcodec  # type: ignore[import-untyped, attr-defined, unused-ignore]

    cpu_only = -99999  # NVIMGCODEC_DEVICE_CPU_ONLY; other ids ask for a driver
    backends = [nvimgcodec.Backend(nvimgcodec.BackendKind.CPU_ONLY)]
    decoder = nvimgcodec.Decoder(device_id=cpu_only, max_num_cpu_threads=1, backends=backends)
    params = nvimgcodec.DecodeParams(
        color_spec=nvimgcodec.ColorSpec.GRAY, allow_any_depth=True, apply_exif_orientation=True
    )
    return decoder, params


_FIRST_VRS = (b"UL", b"CS", b"UI", b"OB", b"SH", b"DA", b"TM", b"LO")
DICOM_HEAD = 132
"""Bytes that tell a DICOM file from others."""


def is_dicom(data: bytes) -> bool:
    """Tell whether the content begins as DICOM does (PS3.10, 7.1), or as files without a preamble.

    Old ones begin with their file meta (group 2) or data set (group 8), the latter also in big
    endian.
    """
    if data[128:132] == b"DICM":
        return True
    if data[:3] == b"\0\x08\0" and data[4:6] in _FIRST_VRS:
        return True
    if data[:2] not in (b"\x02\0", b"\x08\0") or data[3:4] != b"\0":
        return False
    return data[4:6] in _FIRST_VRS or int.from_bytes(data[4:8], "little") in range(0, 256, 2)


def read_bytes(path: Path) -> bytes:
    """Read a regular file's content, if of a bearable size. Raises UnfitError."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise UnfitError("not a file")
        if info.st_size > MAX_BYTES:
            raise UnfitError(f"larger than {MAX_BYTES >> 20} MiB")
        data = path.read_bytes()
    except FileNotFoundError:
        raise UnfitError(MISSING) from None
    except (OSError, ValueError) as error:
        raise UnfitError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not data:
        raise UnfitError("empty")
    return data


def _open(data: bytes) -> Image.Image:
    """The file's header, read by Pillow, its size checked before anything is decoded."""
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


def check_size(width: int, height: int) -> None:
    """Raise UnfitError before anything of an unbearable size is decoded."""
    if width * height > MAX_PIXELS:
        raise UnfitError(f"larger than {MAX_PIXELS // 10**6} megapixels")
    if min(width, height) < MIN_SIDE:
        raise UnfitError(f"smaller than {MIN_SIDE} pixels a side")


def check_scans(jpeg: bytes) -> None:
    """Raise UnfitError for a JPEG of very many scans: each goes over all pixels, however short."""
    if jpeg.count(_START_OF_SCAN) > _MOST_SCANS:
        raise UnfitError(f"a JPEG of more than {_MOST_SCANS} scans; save it anew")


def _check_kind(image: Image.Image, data: bytes) -> None:
    """Raise unless the format is one that DALI and Pillow read alike."""
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
    # The link alone: Pillow counts pages by going to each, and there may be millions.
    if tags.next:
        raise UnfitError(_SEVERAL)
    across, down = (int(tags.get(tag, 0)) for tag in _TIFF_TILE)
    if across * down > image.width * image.height + _TILE_PIXELS:
        raise UnfitError(f"a TIFF in tiles of {across} x {down} pixels, larger than the image")


def _check_clear(image: Image.Image) -> None:
    """Raise UnfitError where a part is transparent, and what is underneath would be seen."""
    try:
        if image.mode in _DEEP:
            level = image.info.get("transparency") or 0
            hides = bool(level and (np.asarray(image) == level).any())
        elif "A" in image.mode or "transparency" in image.info:
            rgba_HW4 = np.asarray(image.convert("RGBA"))
            clear_HW = rgba_HW4[..., 3] == 0
            hides = not clear_HW.all() and bool(rgba_HW4[clear_HW, :3].any())
        else:
            return
    except MemoryError:
        raise
    except Exception as error:  # as in _open
        raise UnfitError(f"damaged: {one_line(error)}") from None
    if hides:
        raise UnfitError("in part transparent, and not black underneath; save it without alpha")


def _turn(image: Image.Image, data: bytes) -> int:
    """The EXIF orientation, 1 to 8: how the decoder turns what is stored."""
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


def one_line(error: object) -> str:
    """Cut what a library says of a file to fit a message."""
    words = "".join(c if c.isprintable() else " " for c in str(error)[:1000])
    return (" ".join(words.split()) or type(error).__name__)[:100]


def _decode(image: Image.Image, data: bytes) -> np.ndarray[Any, Any]:
    """Grey levels [height, width], upright, uint8 or uint16."""
    try:
        decoder, params = _decoder()
    except ModuleNotFoundError:
        return _decode_by_pillow(image, data)
    try:
        decoded = decoder.decode(data, params=params)
        if decoded is None:
            image.load()  # only to have Pillow name the fault
            raise UnfitError("damaged: the decoder refuses it")
    except (UnfitError, MemoryError, ImportError):
        raise
    except Exception as error:  # as in _open
        raise UnfitError(f"damaged: {one_line(error)}") from None
    grey = np.asarray(decoded.cpu())
    if grey.dtype not in (np.uint8, np.uint16) or grey.ndim != 3 or grey.shape[2] != 1:
        raise UnfitError(f"decodes to {grey.dtype} {grey.shape}; save it as grey PNG")
    if grey.dtype == np.uint16 and image.mode not in _DEEP:
        raise UnfitError(_DEEP_COLOUR)
    return grey[..., 0]


def _decode_by_pillow(image: Image.Image, data: bytes) -> np.ndarray[Any, Any]:
    """The same to the bit without `pcamx[train]`, of what is grey: of colours DALI makes others."""
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode in _DEEP:
            return np.asarray(upright).astype(np.uint16)
        rgb_HW3 = np.asarray(upright.convert("RGB"))
    except MemoryError:
        raise
    except Exception as error:  # as in _open
        raise UnfitError(f"damaged: {one_line(error)}") from None
    deep = data[24:25] == b"\x10" if image.format == "PNG" else False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        deep = max(image.tag_v2.get(_TIFF_BITS, (8,))) > 8
    if deep:
        raise UnfitError(_DEEP_COLOUR)
    if (rgb_HW3 != rgb_HW3[..., :1]).any():
        raise UnfitError("in colour, which pcamx[train] decodes; install it, or save it as grey")
    return rgb_HW3[..., 0]


def read_image(data: bytes) -> ImageFile:
    """Decode the content of an image file as training will.

    Raises UnfitError with the reason to keep the film out.
    """
    with _open(data) as image:
        try:
            _check_kind(image, data)
            turn = _turn(image, data)
        except (UnfitError, MemoryError):
            raise
        except Exception as error:  # as in _open
            raise UnfitError(f"damaged header or EXIF: {one_line(error)}") from None
        width, height = image.size if turn in UPRIGHT else image.size[::-1]
        grey_HW = _decode(image, data)
        _check_clear(image)
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
