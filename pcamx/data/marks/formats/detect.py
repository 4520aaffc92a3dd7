"""What kind of marks a file, folder or zip holds, known by its content."""

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from pcamx.data.marks import archive, parse
from pcamx.data.marks.annotated import Annotated, Remark
from pcamx.data.marks.formats import (
    coco,
    cvat,
    label_studio,
    labelme,
    mask_images,
    predictions,
    via,
    voc,
    yolo,
)
from pcamx.errors import PcamxError


class _Kind(NamedTuple):
    name: str
    suffix: str
    fits: Callable[[Any], bool]
    read: Callable[[Any, str], Iterator[Annotated]]


_KINDS = (
    _Kind("COCO", ".json", coco.fits, coco.read),
    _Kind("LabelMe", ".json", labelme.fits, labelme.read),
    _Kind("Label Studio", ".json", label_studio.fits, label_studio.read),
    _Kind("VIA", ".json", via.fits, via.read),
    _Kind("Pascal VOC", ".xml", voc.fits, voc.read),
    _Kind("CVAT", ".xml", cvat.fits, cvat.read),
    _Kind("YOLO", ".txt", yolo.fits, yolo.read),
)
_LOAD: dict[str, Callable[[bytes, Path], Any]] = {
    ".json": parse.json_tree,
    ".xml": parse.xml_tree,
    # A README in any encoding is no reason to stop; its lines are none of YOLO's.
    ".txt": lambda data, file: yolo.lines(parse.words_of(data, file)),
}
KNOWN = (
    "COCO .json, Pascal VOC .xml, YOLO .txt, LabelMe .json, Label Studio .json (not JSON-MIN), "
    "VGG VIA .json, CVAT for images 1.1 .xml, a folder or zip of them, or a folder of mask images"
)
MASKS = "mask images"
ONE_EACH = ("Pascal VOC", "LabelMe")
"""Kinds of which each file is of one image, that the file names."""
_COMPANIONS = ("classes.txt", "notes.json", "predefined_classes.txt", "train.txt", "valid.txt")
"""What tools lay beside marks."""
_UNREAD = {*archive.PACKED, ".jsonl", ".ndjson"}
"""What may hold marks as well, and is named."""


def open_marks(source: Path) -> tuple[str, Iterator[tuple[Path, Annotated]]]:
    """Return the kind of ``source``, and its images with the file that each stands in.

    Raises PcamxError, with the file, for what is of no known kind, of several, or damaged; the
    iterator raises it too.
    """
    if not source.exists():
        raise PcamxError(f"{source}: no such file or folder; marks are {KNOWN}")
    packed: dict[Path, bytes] = {}
    folder, files = source.parent, [source]
    if source.is_dir():
        folder, files = source, _files(source)
    elif source.suffix.lower() == archive.SUFFIX:
        packed = archive.unpacked(source, _LOAD, named=_UNREAD)
        folder, files = source, sorted(packed)
    found: list[tuple[Path, Any, _Kind]] = []
    others: list[Path] = []
    for file in files:
        if file.suffix.lower() in _LOAD:
            tree, kind = _recognise(file, packed.pop(file, None))
            if kind:
                found.append((file, tree, kind))
            elif tree and file.name.lower() not in _COMPANIONS and not _is_readme(file):
                others.append(file)
        elif file.suffix.lower() in _UNREAD:
            others.append(file)
    kinds = {kind.name: file for file, _, kind in reversed(found)}
    if len(kinds) > 1:
        several = ", ".join(
            f"{name} ({file.relative_to(folder)})" for name, file in sorted(kinds.items())
        )
        raise PcamxError(f"{source}: several kinds of marks, {several}; name one of them")
    if found:
        return found[0][2].name, chain(_unknown(others), _read(folder, found))
    if source.is_dir() and any(file.suffix.lower() in mask_images.SUFFIXES for file in files):
        others = [file for file in others if file.suffix.lower() in _LOAD]  # masks name the rest
        return MASKS, chain(_unknown(others), mask_images.read(folder, files))
    what = "holds no marks of a known kind" if folder == source else "marks of an unknown kind"
    hint = "" if folder != source or source.is_dir() else "unpack it if it holds mask images; "
    raise PcamxError(f"{source}: {what}; {hint}known: {KNOWN}")


def _files(folder: Path) -> list[Path]:
    """All files below, but for hidden ones."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return [file for file in files if not archive.is_hidden(file.relative_to(folder))]


def _recognise(file: Path, data: bytes | None) -> tuple[Any, _Kind | None]:
    """The file's content and kind. Raises PcamxError for the predictions of a model."""
    suffix = file.suffix.lower()
    tree = _LOAD[suffix](parse.content(file) if data is None else data, file)
    if why := predictions.refusal(tree):
        raise PcamxError(f"{file}: {why}")
    kinds = (kind for kind in _KINDS if kind.suffix == suffix and kind.fits(tree))
    return tree, next(kinds, None)


def _is_readme(file: Path) -> bool:
    return file.stem.lower().startswith(("readme", "license", "licence"))


def _unknown(files: list[Path]) -> Iterator[tuple[Path, Annotated]]:
    for file in files:
        yield file, Annotated("", remarks=(Remark("damaged", f"{file.name}: of no known kind"),))


def _read(folder: Path, found: list[tuple[Path, Any, _Kind]]) -> Iterator[tuple[Path, Annotated]]:
    for file, tree, kind in found:
        try:
            for image in kind.read(tree, file.relative_to(folder).as_posix()):
                yield file, image
        except PcamxError as error:
            raise PcamxError(f"{file}: {parse.line(error)}") from None
