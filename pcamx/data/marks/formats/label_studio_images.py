"""Which image of a Label Studio task a region lies on.

A task may show several: in data of their own (a region's to_name says which, where the Image tag is
named like the data), or in one list (item_index says which).
"""

import re
from collections.abc import Set
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pcamx.data.marks.parse import short
from pcamx.errors import PcamxError

_IMAGES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".webp"}
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded file."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|file:")
"""How an address begins that names a place to read from."""


def images_of(task: Any, tags: Set[Any]) -> dict[str, list[str]]:
    """Return the task's data that name images > the paths of these, from their addresses.

    Images are known by their suffix, or as data of the name of one of ``tags``; one that stands in
    the task itself, as `pcamx marks suggest` writes it, has no path. Local files are
    `/data/local-files/?d=path`, uploads `/data/upload/1/1a2b3c4d-name`.
    """
    data = task.get("data") if isinstance(task, dict) else None
    found: dict[str, list[str]] = {}
    for key, value in data.items() if isinstance(data, dict) else ():
        addresses = value if isinstance(value, list) else [value]
        told = (one for one in addresses if isinstance(one, str) and not one.startswith("data:"))
        paths = [_path(address) for address in told]
        known = key in tags or all(PurePosixPath(p).suffix.lower() in _IMAGES for p in paths)
        if known and paths and len(paths) == len(addresses):
            found[key] = paths
    return found


def image_of(item: dict[str, Any], images: dict[str, list[str]]) -> str:
    """Return the path of the image that a region lies on. Raises PcamxError where none is said."""
    tag = item.get("to_name")
    if not images:
        raise PcamxError("its task's data name no image; export the marks again")
    if len(images) == 1:
        paths = next(iter(images.values()))
    elif isinstance(tag, str) and tag in images:
        paths = images[tag]
    elif tag is None and "image" in images:
        paths = images["image"]
    else:
        raise PcamxError(
            f"lies on {short(tag)}, which may be any of {', '.join(images)}; "
            "name the Image tags like the data that they show"
        )
    index = item.get("item_index")
    if index is None and len(paths) == 1:
        index = 0
    if type(index) is not int or not 0 <= index < len(paths):
        raise PcamxError(f"item_index is {short(index)} of {len(paths)} images; export it again")
    return paths[index]


def _path(address: str) -> str:
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    told = _URL.match(address)
    # A name is none: "wrist:left.png" and "x?d=left.png" are films of their own, not left.png.
    local = parse_qs(parts.query).get("d") if told or address.startswith("/") else None
    if local:
        return local[0]
    if not told and not parts.path.startswith("/data/"):
        return address
    folder, _, name = unquote(parts.path).rpartition("/")
    return (
        f"{folder}/{_UPLOAD.sub('', name)}"
        if folder.startswith("/data/upload")
        else unquote(parts.path)
    )
