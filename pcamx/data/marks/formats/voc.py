"""Pascal VOC: an xml of boxes per image, as LabelImg and many others write it.

Edges are taken as continuous coordinates from 0, which is how today's tools write them; the
challenge's own files counted pixels from 1, which would shift a box by one pixel at most.
"""

import posixpath
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element

from pcamx.data.marks.parse import box, image_size, number, word
from pcamx.data.marks.shapes import Annotated, Mark
from pcamx.errors import PcamxError


def fits(tree: Any) -> bool:
    """Whether this is Pascal VOC."""
    return isinstance(tree, Element) and tree.tag == "annotation"


def read(tree: Element, file: str) -> Iterator[Annotated]:
    """The image of the file. Raises PcamxError without the file."""
    name = word(tree.findtext("filename"), "filename")
    path = (tree.findtext("path") or "").strip().replace("\\", "/")
    # The whole path tells apart what has one name; where it is another file's, it is a leftover.
    whole = path if posixpath.basename(path) == name else posixpath.join(*_folder(file), name)
    size = image_size(tree.findtext("size/width"), tree.findtext("size/height"))
    marks = []
    for count, item in enumerate(tree.iter("object"), 1):
        where = f"object {count}"
        edges = (_edge(item, edge, where) for edge in ("xmin", "ymin", "xmax", "ymax"))
        try:
            shape = box(*edges)
        except PcamxError as error:
            raise PcamxError(f"{where}: {error}") from None
        marks.append(Mark(f"{where} of {name}", (item.findtext("name") or "").strip(), shape))
    yield Annotated(whole, size, tuple(marks))


def _folder(file: str) -> tuple[str, ...]:
    return tuple(filter(None, (posixpath.dirname(file),)))


def _edge(item: Element, edge: str, where: str) -> float:
    return number(item.findtext(f"bndbox/{edge}"), f"{where}: {edge}")
