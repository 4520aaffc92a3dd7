"""DICOM radiographs: from stored values to the grey levels that a viewer shows.

The steps of PS3.4 N.2: modality LUT or rescale, then VOI LUT, else window, of the file's first
view; MONOCHROME1 is turned, so that white is always dense. pydicom takes them, and decodes with
whichever plugin is installed. What it leaves to its caller is settled here:

- A file without a window or VOI LUT keeps its levels as they are, as a PNG of them would; levels
  below zero or fractions (a rescale may make them) are stretched from darkest to brightest.
- Pixel padding (the border around the collimated field) is black in either interpretation.
- A table of 8-bit entries is read as one of 16: pydicom 3.0 counts its rows in the entries' type.

Shapes: H W the film.
"""

import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pcamx.data.files.image import UnfitError, check_size, one_line

if TYPE_CHECKING:
    from pydicom import Dataset

INSTALL = "pip install 'pcamx[dicom]'"
_DECODERS = {  # package and pydicom's plugin, by how a transfer syntax's name begins
    "JPEG Baseline": ("pillow", "pillow"),
    "JPEG 2000": ("pylibjpeg-openjpeg", "pylibjpeg"),
    "High-Throughput JPEG 2000": ("pylibjpeg-openjpeg", "pylibjpeg"),
    "JPEG-LS": ("pyjpegls", "pyjpegls"),
    "JPEG": ("pylibjpeg-libjpeg", "pylibjpeg"),
}
"""One plugin each: pydicom goes on to the next where one fails, and libjpeg makes up what a JPEG-LS
film that was cut short lacks."""
_END_OF_JPEG = b"\xff\xd9"
_DEFLATED, _META_BYTES = b"1.2.840.10008.1.2.1.99", 2048
_WHITE = 65535  # of a film with a view
_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")


class DicomFile(NamedTuple):
    """A decoded DICOM film."""

    grey_HW: NDArray[Any]
    """As shown, 0 is black; uint8 where the file has at most 8 bits and no view, else uint16."""
    uids: dict[str, str]
    """SOPInstanceUID, SeriesInstanceUID and StudyInstanceUID, where given."""


def read_dicom(data: bytes) -> DicomFile:
    """Decode the content of a DICOM file of one grey film.

    Raises UnfitError with the reason where it cannot be shown: no pixels, several frames, colour,
    a compression without its decoder (named), of an unbearable size, or damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that break their type's rules
            dataset = _dataset(data)
            _check(dataset)
            grey_HW = _shown(dataset, _stored(dataset))
            uids = {name: str(dataset[name].value) for name in _UIDS if name in dataset}
    except (UnfitError, MemoryError):
        raise
    except Exception as error:  # pydicom and its decoders raise many kinds for a damaged file
        raise UnfitError(f"damaged DICOM: {one_line(error)}") from None
    return DicomFile(grey_HW, uids)


def _dataset(data: bytes) -> "Dataset":
    try:
        import pydicom
    except ImportError:
        raise UnfitError(f"DICOM needs pydicom: {INSTALL}") from None
    if _DEFLATED in data[:_META_BYTES]:  # pydicom would inflate it whole, whatever its size
        raise UnfitError("a deflated DICOM is not read; save it without that compression")
    return pydicom.dcmread(BytesIO(data))


def _check(dataset: "Dataset") -> None:
    """Raise UnfitError unless the pixels are one grey film that can be decoded."""
    if "PixelData" not in dataset:
        modality = dataset.get("Modality") or "unknown"
        raise UnfitError(f"a DICOM without pixels, or cut short (modality {modality})")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise UnfitError(f"a DICOM of {frames} frames; a film has one")
    kind = str(dataset.get("PhotometricInterpretation"))
    if kind not in ("MONOCHROME1", "MONOCHROME2") or dataset.get("SamplesPerPixel", 1) != 1:
        raise UnfitError(f"a DICOM of kind {kind}, not grey: MONOCHROME1 or MONOCHROME2")
    if dataset.BitsAllocated not in (8, 16):
        raise UnfitError(f"{dataset.BitsAllocated} bits a pixel; a film has 8 or 16")
    check_size(int(dataset.Columns), int(dataset.Rows))


def _stored(dataset: "Dataset") -> NDArray[Any]:
    """The stored values [H, W], decoded by the one plugin that is trusted with their syntax."""
    from pydicom.encaps import generate_frames
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    known = [pair for start, pair in _DECODERS.items() if syntax.name.startswith(start)]
    try:
        installed = get_decoder(syntax).available_plugins
    except NotImplementedError:
        raise UnfitError(f"compressed as {syntax.name}, which pydicom does not know") from None
    if known:
        package, plugin = known[0]
        if plugin not in installed:
            raise UnfitError(
                f"compressed as {syntax.name}, its decoder is not installed: "
                f"pip install {package}; {INSTALL} holds all"
            )
        if package == "pylibjpeg-libjpeg":
            (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
            if not frame.rstrip(b"\0\xff").endswith(_END_OF_JPEG):
                raise UnfitError("damaged DICOM: its JPEG is cut short")
        dataset.pixel_array_options(decoding_plugin=plugin)
    return dataset.pixel_array


def _shown(dataset: "Dataset", stored_HW: NDArray[Any]) -> NDArray[Any]:
    """Grey levels [H, W] as a viewer shows them, 0 is black."""
    from pydicom.pixels.processing import apply_modality_lut

    bits, voi_bits = _widen_tables(dataset)
    levels_HW = apply_modality_lut(stored_HW, dataset)
    share_HW = _viewed(dataset, levels_HW, voi_bits)
    if share_HW is None and not _whole(levels_HW):
        dark, bright = levels_HW.min(), levels_HW.max()
        share_HW = (levels_HW - dark) / max(bright - dark, np.finfo(float).tiny)
    if share_HW is None:
        grey_HW = levels_HW.astype(np.int32)
        top = (1 << max(bits, int(grey_HW.max()).bit_length())) - 1
    else:
        if not np.isfinite(share_HW).all():
            raise UnfitError("its rescale or window gives levels that are no numbers")
        grey_HW, top = np.rint(share_HW * _WHITE).astype(np.int32), _WHITE
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        grey_HW = top - grey_HW
    grey_HW[_padding(dataset, stored_HW)] = 0
    return grey_HW.astype(np.uint8 if top <= 255 else np.uint16)


def _widen_tables(dataset: "Dataset") -> tuple[int, int]:
    """Have pydicom read tables as 16 bits; bits of the levels and of the VOI LUT before that."""
    bits = {"ModalityLUTSequence": int(dataset.BitsStored), "VOILUTSequence": 0}
    for name in bits:
        for item in list(dataset.get(name) or [])[:1]:
            rows, first, bits[name] = (int(n) for n in item.LUTDescriptor)
            item.LUTDescriptor = [rows, first, 16]
    return bits["ModalityLUTSequence"], bits["VOILUTSequence"]


def _viewed(
    dataset: "Dataset", levels_HW: NDArray[Any], voi_bits: int
) -> NDArray[np.float64] | None:
    """Share of white [H, W] by the first VOI LUT, else by the first window; None without both."""
    from pydicom.pixels.processing import apply_voi, apply_windowing

    if voi_bits:
        table_HW = apply_voi(np.rint(levels_HW).astype(np.int32), dataset)
        return np.asarray(table_HW / (2**voi_bits - 1))
    if dataset.get("WindowCenter") in (None, "") or dataset.get("WindowWidth") in (None, ""):
        return None
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        dark, bright = apply_windowing(np.array([-1e30, 1e30]), dataset)
        return np.asarray((apply_windowing(levels_HW, dataset) - dark) / (bright - dark))


def _whole(levels_HW: NDArray[Any]) -> bool:
    """Whether the levels are whole numbers that uint16 holds."""
    fits = levels_HW.min() >= 0 and levels_HW.max() <= _WHITE
    return bool(fits and (levels_HW == np.rint(levels_HW)).all())


def _padding(dataset: "Dataset", stored_HW: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a border was filled in (PS3.3 C.7.5.1.1.2), if the file says with which values."""
    one = dataset.get("PixelPaddingValue")
    if one is None:
        return np.zeros(stored_HW.shape, bool)
    other = dataset.get("PixelPaddingRangeLimit", one)
    return np.asarray((stored_HW >= min(one, other)) & (stored_HW <= max(one, other)))


def read_header(path: Path) -> "Dataset":
    """The attributes of a file that `read_dicom` could read, without its pixels."""
    import pydicom

    return pydicom.dcmread(path, stop_before_pixels=True)
