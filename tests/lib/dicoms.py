"""DICOM films written for a test, and the pixels in them."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)


def ramp(height: int = 24, width: int = 40, top: int = 4095) -> NDArray[np.uint16]:
    """Levels that rise along the rows, from 0 to ``top``."""
    levels = np.linspace(0, top, height * width).round()
    return levels.reshape(height, width).astype(np.uint16)


def dataset(pixels_HW: NDArray[Any], *, bits: int = 12, **attributes: Any) -> Dataset:
    """A CR film of ``pixels_HW``; ``attributes`` are set, or with None left out."""
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    found.SOPClassUID = ComputedRadiographyImageStorage
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        setattr(found, name, generate_uid())
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID
    for name in ("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
        setattr(found, name, "")
    found.PatientID, found.StudyID, found.AccessionNumber = "p", "1", ""
    found.ReferringPhysicianName, found.Manufacturer = "", "drawn"
    found.Modality, found.SeriesNumber, found.InstanceNumber = "CR", 1, 1
    found.Rows, found.Columns = pixels_HW.shape[-2:]
    found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
    found.BitsAllocated = 8 * pixels_HW.dtype.itemsize
    found.BitsStored, found.HighBit = bits, bits - 1
    found.PixelRepresentation = int(pixels_HW.dtype.kind == "i")
    found.PixelData = pixels_HW.tobytes()
    for name, value in attributes.items():
        if value is None:
            delattr(found, name)
        else:
            setattr(found, name, value)
    return found


def table(entries: NDArray[Any], first: int, bits: int) -> Dataset:
    """An item of a VOI or modality LUT sequence."""
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 65536, first, bits]
    item.LUTData = entries.tolist()
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    return item


def save(film: Dataset, path: Path, compress: str | None = None) -> Path:
    """Write the film, compressed by the transfer syntax ``compress`` if given."""
    if compress is not None:
        film.compress(compress)
    pydicom.dcmwrite(path, film, enforce_file_format=True)
    return path


SYNTAX = {
    "jpeg2000": JPEG2000Lossless,
    "htj2k": HTJ2KLossless,
    "jpegls": JPEGLSLossless,
    "lossless jpeg": JPEGLosslessSV1,
    "rle": RLELossless,
}


def stream(kind: str, samples_HW: NDArray[Any], bits: int) -> bytes:
    """One lossless frame of ``samples_HW``, as an encoder that is told ``bits`` bits writes it."""
    import imagecodecs
    import jpeg_ls

    unsigned = samples_HW.view(f"u{samples_HW.dtype.itemsize}")
    if samples_HW.dtype.kind == "i" and kind not in ("jpeg2000", "rle"):  # which know no sign
        unsigned = unsigned & unsigned.dtype.type((1 << bits) - 1)
    if kind == "jpeg2000":
        return bytes(
            imagecodecs.jpeg2k_encode(
                samples_HW, level=0, codecformat="j2k", reversible=True, bitspersample=bits
            )
        )
    if kind == "htj2k":  # of 8 or 16 bits, whatever it is told
        return bytes(imagecodecs.htj2k_encode(unsigned, reversible=True))
    if kind == "lossless jpeg":
        return bytes(imagecodecs.ljpeg_encode(unsigned, bitspersample=bits))
    if kind == "jpegls":
        rows, columns = samples_HW.shape
        words = {"rows": rows, "columns": columns, "samples_per_pixel": 1, "bits_stored": bits}
        return bytes(jpeg_ls.encode_pixel_data(unsigned.tobytes(), **words))
    return run_lengths(unsigned)


def run_lengths(words_HW: NDArray[Any]) -> bytes:
    """A frame of RLE Lossless (PS3.5, annex G): a segment for each byte, the highest first."""
    import imagecodecs

    planes = words_HW.view(np.uint8).reshape(*words_HW.shape, -1)
    segments = [
        b"".join(imagecodecs.packbits_encode(row.tobytes()) for row in planes[..., byte])
        for byte in reversed(range(planes.shape[-1]))
    ]
    segments = [segment + bytes(len(segment) % 2) for segment in segments]
    starts = [64 + sum(len(s) for s in segments[:i]) for i in range(len(segments))]
    head = [len(segments), *starts] + [0] * (15 - len(segments))
    return np.array(head, "<u4").tobytes() + b"".join(segments)
