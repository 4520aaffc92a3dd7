"""Candidates as a DICOM Segmentation, which a viewer lays over the film it was made from.

Shapes: H W the film.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcamx import __version__
from pcamx.data.files.codestream import INSTALL
from pcamx.data.files.dicom import read_header
from pcamx.errors import PcamxError
from pcamx.explain.candidates import Candidate, cover

MOST = 255
"""Segments that a label map of bytes can tell apart; the candidates with the lowest score go."""

NEEDED = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Modality"),
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber"),
)
"""What highdicom takes over from the film; most of it may be there without a value."""


def check_installed() -> None:
    """Raise PcamxError where highdicom is missing."""
    try:
        import highdicom  # noqa: F401
    except ImportError:
        raise PcamxError(f"--dicom-seg needs highdicom: {INSTALL}") from None


def label_map(candidates: Sequence[Candidate], width: int, height: int) -> NDArray[np.uint8]:
    """Return [H, W]: 0, or the number of the candidate, from 1 on, that covers the pixel's centre.

    One so small that it covers none has the pixel of its peak.
    """
    labels_HW = np.zeros((height, width), np.uint8)
    for number, one in enumerate(candidates, 1):
        labels_HW[cover((one.outline, *one.holes), width, height)] = number
        x, y = map(int, one.peak)
        labels_HW[y, x] = number
    return labels_HW


def write_segmentation(
    source: Path, candidates: Sequence[Candidate], scores: Sequence[float], path: Path
) -> None:
    """Write a Segmentation of the film ``source``, a segment a candidate, 1 to MOST.

    Binary, automatic, of the film's own rows and columns, referring to its SOP instance.
    Raises PcamxError, without the film's name, where the film lacks an attribute that it needs,
    and what highdicom raises where it makes nothing of one.
    """
    import highdicom

    film = read_header(source)
    if missing := [name for name in NEEDED if name not in film]:
        raise PcamxError(f"the film lacks {', '.join(missing)}")
    segmentation = highdicom.seg.Segmentation(
        source_images=[film],
        pixel_array=label_map(candidates, film.Columns, film.Rows)[None],
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _describe(number, score) for number, score in enumerate(scores, start=1)
        ],
        series_instance_uid=highdicom.UID(),
        series_number=100,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="pcamx",
        manufacturer_model_name="pcamx explain",
        software_versions=__version__,
        device_serial_number="0",
        series_description="Lesion candidates (pcamx, not for diagnosis)",
    )
    segmentation.save_as(path)


def _describe(number: int, score: float) -> Any:
    import highdicom
    from highdicom.sr import CodedConcept

    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=f"Candidate {number}, score {score:.2f}",
        segmented_property_category=CodedConcept(
            "49755003", "SCT", "Morphologically Abnormal Structure"
        ),
        segmented_property_type=CodedConcept("52988006", "SCT", "Lesion"),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="pcamx",
            version=__version__,
            family=CodedConcept("123109", "DCM", "Artificial Intelligence"),
        ),
    )
