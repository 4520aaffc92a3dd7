"""Which film a mark file means: by its whole path, or by the end of the path that only it has.

A name from a mark file is only ever compared with the names of films; no file is opened by it. So
absolute paths, addresses and `..` do no harm, and are what many tools write.
"""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

_UPLOAD = re.compile(r"^([0-9a-f]{8,32}-|[0-9a-f]{6,32}__)(?=.)")
_IMAGES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom"}
_GATHERED = {
    *("upload", "uploads", "image", "images", "img", "imgs", "jpegimages", "obj_train_data"),
    *("label", "labels", "mask", "masks", "annotation", "annotations", "segmentationclass"),
}
"""Folders, in small letters, that tools gather images or marks of any other in."""
Parts = tuple[str, ...]
WHOLE = 1 << 30
"""How well a name fits that is a film's whole path; else the number of equal parts at the end."""


class Names:
    """The films of a data set, by the last parts of their paths."""

    def __init__(self, films: Iterable[str]) -> None:
        self._parts = {film: _parts(film) for film in films}
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for film, parts in self._parts.items():
            # Also by the whole name, since tools write x.png.txt as well as x.txt.
            for name in {stem(parts[-1]), parts[-1]}:
                self._by_stem[name].append(film)

    def find(self, name: str, *, suffix: bool = True) -> tuple[list[str], int]:
        """Find the films that ``name`` fits best, and how well: none, one, or several.

        The folders count first, then the suffix: a/x.png is rather a copy of a/x.dcm than b/x.png.
        Without ``suffix`` it counts in a whole path only.
        """
        if name in self._parts:
            return [name], WHOLE
        parts = _parts(name)
        if not parts:
            return [], 0
        found = self._by_stem.get(stem(parts[-1]), [])
        if not found or PurePosixPath(parts[-1]).suffix.lower() not in _IMAGES:
            # The end of a name without a suffix may look like one: scan.left is scan.left.png.
            found = self._by_stem.get(parts[-1], []) or found
        fit = {film: _shared(self._parts[film][:-1], parts[:-1]) + 1 for film in found}
        best = max(fit.values(), default=0)
        nearest = [film for film in found if fit[film] == best]
        same = [film for film in nearest if suffix and self._parts[film][-1] == parts[-1]]
        return same or nearest, best

    def differs(self, name: str, film: str, fit: int) -> bool:
        """Tell whether the folders that both name differ somewhere.

        Not where the name alone is shared and the image's folder is one that tools make for all.
        """
        parts = _parts(name)
        if fit == 1 and {part.casefold() for part in parts[-3:-1]} & _GATHERED:
            return False
        return fit < min(len(self._parts[film]), len(parts))

    def without_prefix(self, name: str) -> str:
        """Return the name without what an upload puts before it, as Label Studio does; "" without
        one.

        Eight or more hexadecimal digits and a hyphen, or six or more and two underscores.
        """
        folder, _, last = name.replace("\\", "/").rpartition("/")
        rest = _UPLOAD.sub("", last)
        return "" if rest == last else f"{folder}/{rest}".lstrip("/")


class Beside:
    """The images that lie in the data folder ``root``, films or not; opens none.

    The suffix may be another: masks of JPEGs are PNGs. A name without a folder may be anywhere.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._stems: dict[Path, set[str]] = {}

    def is_other(self, name: str, films: Sequence[str]) -> bool:
        """Tell whether an image of this whole name lies there, and none of ``films`` is that."""
        *folders, last = parts = _parts(name) or ("",)
        if not folders or any(_alike(parts, _parts(film)) for film in films):
            return False
        folder = self._root.joinpath(*folders)
        if folder not in self._stems:
            files = os.listdir(folder) if os.path.isdir(folder) else []
            images = (file for file in files if PurePosixPath(file).suffix.lower() in _IMAGES)
            self._stems[folder] = {stem(file) for file in images}
        return stem(last) in self._stems[folder]


def _alike(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two paths are the same but for the suffix."""
    return [*one[:-1], stem(one[-1])] == [*other[:-1], stem(other[-1])]


def _parts(name: str) -> Parts:
    # macOS writes accents as letters of their own.
    path = unicodedata.normalize("NFC", name).replace("\\", "/")
    path = re.sub(r"^[A-Za-z]:(?=/)", "", path)
    return tuple(p for p in PurePosixPath(path).parts if p not in ("/", "//", "..", "."))


def stem(name: str) -> str:
    """Return a file's name without its suffix, which begins with a letter: a UID has none."""
    return re.sub(r"(?<=.)\.[A-Za-z]\w{0,4}$", "", name)


def foreign_folder(name: str, film: str) -> str:
    """Return the folders of an image that are none of its film's, "" where there are none."""
    folders = _parts(name)[:-1]
    return "/".join(folders[: len(folders) - _shared(_parts(film)[:-1], folders)])


def _shared(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """How many parts are equal, counted from the end."""
    count = 0
    for a, b in zip(reversed(ours), reversed(theirs), strict=False):
        if a != b:
            break
        count += 1
    return count
