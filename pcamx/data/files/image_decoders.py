"""The decoders of image files: nvImageCodec, as DALI has it, and Pillow for what is grey."""

import os
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

from pcamx.data.files.file_content import UnfitError, one_line
from pcamx.data.files.image_header import DEEP, TIFF_BITS

_DEEP_COLOUR = "16 bits a channel in colour or with alpha; save it as plain 16-bit grey"


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


def decode(image: Image.Image, data: bytes) -> np.ndarray[Any, Any]:
    """Return grey levels [height, width], upright, uint8 or uint16; raises UnfitError.

    ``image`` is the header of ``data``.
    """
    try:
        decoder, params = _decoder()
    except ModuleNotFoundError:
        return _decode_by_pillow(image, data)
    try:
        decoded = decoder.decode(data, params=params)
        if decoded is None or image.format == "TIFF":
            # Pillow names the fault; of a TIFF it alone sees one, within its compressed strips.
            image.load()
        if decoded is None:
            raise UnfitError("damaged: the decoder refuses it")
    except (UnfitError, MemoryError, ImportError):
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them
        raise UnfitError(f"damaged: {one_line(error)}") from None
    grey = np.asarray(decoded.cpu())
    if grey.dtype not in (np.uint8, np.uint16) or grey.ndim != 3 or grey.shape[2] != 1:
        raise UnfitError(f"decodes to {grey.dtype} {grey.shape}; save it as grey PNG")
    if grey.dtype == np.uint16 and image.mode not in DEEP:
        raise UnfitError(_DEEP_COLOUR)
    return grey[..., 0]


def _decode_by_pillow(image: Image.Image, data: bytes) -> np.ndarray[Any, Any]:
    """The same to the bit without `pcamx[train]`, of what is grey: of colours DALI makes others."""
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode in DEEP:
            return np.asarray(upright).astype(np.uint16)
        rgb_HW3 = np.asarray(upright.convert("RGB"))
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them
        raise UnfitError(f"damaged: {one_line(error)}") from None
    deep = data[24:25] == b"\x10" if image.format == "PNG" else False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        deep = max(image.tag_v2.get(TIFF_BITS, (8,))) > 8
    if deep:
        raise UnfitError(_DEEP_COLOUR)
    if (rgb_HW3 != rgb_HW3[..., :1]).any():
        raise UnfitError("in colour, which pcamx[train] decodes; install it, or save it as grey")
    return rgb_HW3[..., 0]


def check_turned(image: Image.Image, grey_HW: np.ndarray[Any, Any]) -> None:
    """Raise UnfitError where the decoder left the pixels as they are stored, though Pillow turns
    them: metadata that breaks EXIF's rules, which viewers disagree on.
    """
    try:
        stored, upright = (_levels(one) for one in (image, ImageOps.exif_transpose(image)))
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them
        raise UnfitError(f"damaged: {one_line(error)}") from None
    if stored.shape != grey_HW.shape:
        return
    # Some 256 rows and columns tell, and take no memory of their own.
    some = slice(None, None, max(1, min(grey_HW.shape) // 256))
    apart = [
        np.abs(grey_HW[some, some] - one[some, some].astype(np.float64)).mean()
        for one in (stored, upright)
        if one.shape == grey_HW.shape
    ]
    if len(apart) < 2 or apart[0] < apart[1]:
        raise UnfitError("turned by metadata that breaks EXIF's rules, which viewers disagree on")


def _levels(image: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(image if image.mode in DEEP else image.convert("L"))
