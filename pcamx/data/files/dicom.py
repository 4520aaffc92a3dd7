"""DICOM radiographs, as files: which attributes are read, in which encoding, and who is who.

pydicom reads the attributes. What the pixels are is settled in `pcamx.data.files.dicom_pixels`,
what is shown of them in `pcamx.data.files.dicom_view`.

Shapes: H W the film.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray

from pcamx.data.files.codestream import INSTALL
from pcamx.data.files.dicom_attributes import Header, check_items, items, text, whole
from pcamx.data.files.dicom_geometry import GEOMETRY_TAGS, check_square
from pcamx.data.files.dicom_pixels import read_words
from pcamx.data.files.dicom_view import show
from pcamx.data.files.file_content import UnfitError, one_line

if TYPE_CHECKING:
    from pydicom import Dataset

_DEFLATED, _META_BYTES = b"1.2.840.10008.1.2.1.99", 2048
_READ = ("JPEG", "High-Throughput JPEG 2000", "RLE Lossless")  # how the names of syntaxes begin
_SHAPE = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}  # PS3.3, C.8.11.3.1
_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_TAGS = [  # the others are passed over, so that a file of a million of them fills no memory
    *_UIDS,
    *("Modality", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "PixelData"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *_GROUPS,
    *GEOMETRY_TAGS,
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape"),
]


class DicomFile(NamedTuple):
    """A decoded DICOM film."""

    grey_HW: NDArray[Any]
    """As shown, 0 is black; uint8 where the file has no view and no level above 255, else
    uint16."""
    uids: dict[str, str]
    """SOPInstanceUID, SeriesInstanceUID and StudyInstanceUID, where given."""
    padded: int
    """Pixels of a border that was filled in or lies under a shutter, black."""


def read_dicom(data: bytes) -> DicomFile:
    """Decode the content of a DICOM file of one grey film.

    Raises UnfitError with the reason where it cannot be shown: no pixels, several frames, colour,
    a compression without its decoder (named), of an unbearable size, damaged, pixels that are not
    square, or a window or shutter that shows nothing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that break their type's rules
            dataset = _dataset(data)
            _check_kind(dataset)
            check_square(dataset)
            grey_HW, padded = show(dataset, *read_words(dataset))
            uids = {name: text(dataset, name) for name in _UIDS if text(dataset, name)}
    except (UnfitError, MemoryError):
        raise
    except Exception as error:  # pydicom and the decoders raise many kinds for a damaged file
        raise UnfitError(f"damaged DICOM: {one_line(error)}") from None
    return DicomFile(grey_HW, uids, padded)


def _dataset(data: bytes) -> "Dataset":
    """The attributes that are used. Without a preamble or file meta the encoding is told by the
    first attribute, as PS3.5, 10.1 has it for old files."""
    try:
        import pydicom
    except ImportError:
        raise UnfitError(f"DICOM needs pydicom: {INSTALL}") from None
    if _DEFLATED in data[:_META_BYTES]:  # pydicom would inflate it whole, whatever its size
        raise UnfitError("a deflated DICOM is not read; save it without that compression")
    check_items(data)
    dataset = pydicom.dcmread(Header(data), force=True, specific_tags=list(_TAGS))
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    plain = syntax and syntax.is_transfer_syntax and not syntax.is_compressed
    if syntax and not plain and not syntax.name.startswith(_READ):
        raise UnfitError(f"its TransferSyntaxUID is {one_line(syntax.name)}, which is not read")
    return dataset


def _check_kind(dataset: "Dataset") -> None:
    """Raise UnfitError unless the pixels are one grey film."""
    if "PixelData" not in dataset:
        modality = text(dataset, "Modality") or "unknown"
        raise UnfitError(f"a DICOM without pixels, or cut short (modality {modality})")
    frames = whole(dataset, "NumberOfFrames", 1)
    if frames > 1:
        raise UnfitError(f"a DICOM of {frames} frames; a film has one")
    kind = text(dataset, "PhotometricInterpretation")
    if not kind:
        raise UnfitError("a DICOM without PhotometricInterpretation")
    if kind not in _SHAPE or whole(dataset, "SamplesPerPixel", 1) != 1:
        raise UnfitError(f"a DICOM of kind {kind}, not grey: MONOCHROME1 or MONOCHROME2")
    if any(items(dataset, name) for name in _GROUPS):
        raise UnfitError(
            "an enhanced DICOM, whose rescale and window stand in functional groups, is not read; "
            "save it as a classic one"
        )
    shape = text(dataset, "PresentationLUTShape")
    if shape in _SHAPE.values() and shape != _SHAPE[kind]:  # viewers go by one or the other
        raise UnfitError(f"{kind} and PresentationLUTShape {shape}, which contradict each other")


def read_header(path: Path) -> "Dataset":
    """Read the attributes of a file that `read_dicom` could read, without its pixels."""
    import pydicom

    return pydicom.dcmread(Header(path.read_bytes()), force=True, stop_before_pixels=True)
