"""Options that several commands share: GPUs, changed keys, a table's words, lesion marks."""

import argparse
import csv

from pcamx import config as configs

FORMATS = (
    "lesion marks: COCO, Pascal VOC, YOLO, LabelMe, Label Studio, CVAT, VGG VIA, also zipped, or a "
    "folder of mask images"
)
MERGING = (
    "of several, also of several formats, all count: what any of them marks on a film is lesion"
)


def add_gpus(sub: argparse.ArgumentParser) -> None:
    """Add ``--gpus``, the number of processes."""
    sub.add_argument(
        "--gpus",
        type=int,
        metavar="N",
        help="one process each (all that are here; the CPU where there is none)",
    )


def add_set(sub: argparse.ArgumentParser, example: str) -> None:
    """Add ``--set``, keys of the config that this run has otherwise."""
    sub.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help=f"a key of the config that this run has otherwise, such as {example}",
    )


def told(error: configs.ConfigError) -> configs.ConfigError:
    """Return ``error``, of what ``--set`` changes, with the option's name in front."""
    return error if str(error).startswith("--set") else configs.ConfigError(f"--set {error}")


def add_words(sub: argparse.ArgumentParser) -> None:
    """Add ``--normal`` and ``--abnormal``, a table's words for its labels."""
    sub.add_argument("--normal", metavar="WORD", help="what the table calls normal, if not 0")
    sub.add_argument("--abnormal", metavar="WORD", help="what the table calls abnormal, if not 1")


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
