"""What the commands that read lesion marks say of them alike."""

import argparse
import csv

FORMATS = (
    "lesion marks: COCO, Pascal VOC, YOLO, LabelMe, Label Studio, CVAT, VGG VIA, also zipped, or a "
    "folder of mask images"
)
MERGING = (
    "of several, also of several formats, all count: what any of them marks on a film is lesion"
)


def add_labels(sub: argparse.ArgumentParser) -> None:
    """Add ``--labels``, the classes that are lesions."""
    sub.add_argument(
        "--labels",
        type=_names,
        default=(),
        metavar="NAME,...",
        help="the classes that are lesions, such as fracture,lesion; needed where a file has marks "
        "of several; a name that holds a comma in quotes of its own: '\"fracture, distal\"'",
    )


def _names(text: str) -> tuple[str, ...]:
    fields = next(csv.reader([text], skipinitialspace=True), [])
    names = tuple(name.strip() for name in fields if name.strip())
    if not names:
        raise argparse.ArgumentTypeError("name one class at least")
    return names
