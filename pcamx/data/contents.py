"""What the files of a store's films and masks held when they were checked: `content.csv`.

It lies beside the manifest, whose columns other programs read. A file that is about to be used is
held against it: size and time of change first, and its digest only where the time alone differs
(a copied data set), so a start reads no gigabytes.
"""

import csv
import errno
import hashlib
import io
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pcamx.errors import PcamxError


class Content(NamedTuple):
    """One row of content.csv behind the film's path; the header row holds these names."""

    bytes: int
    modified_ns: int
    """Time of the last change, in nanoseconds since 1970."""
    sha256: str
    mark_sha256: str = ""
    """Of the lesion mask's file, "" without one."""


COLUMNS = ("path", *Content._fields)


def content_of(path: Path) -> Content:
    """Read a file's content; raises OSError."""
    before = path.stat()
    return Content(before.st_size, before.st_mtime_ns, sha256_of(path))


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256, in hexadecimal; raises OSError, also for a pipe."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a file", str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(contents: Mapping[str, Content], films: Sequence[str]) -> str | None:
    """Return the SHA-256 of which ``films`` there are and what is in them; None if not known."""
    if not all(film in contents for film in films):
        return None
    listed = "".join(f"{film}\0{contents[film].sha256}\n" for film in sorted(films))
    return hashlib.sha256(listed.encode()).hexdigest()


def parse(rows: Sequence[Sequence[str]]) -> dict[str, Content]:
    """Return contents by the film's path, from the rows of content.csv; raises ValueError."""
    header, *films = rows
    if tuple(header) != COLUMNS:
        raise ValueError
    found = {}
    for path, size, modified, *digests in films:
        found[path] = Content(int(size), int(modified), *digests)
    return found


def without_times(text: bytes) -> bytes:
    """Return the bytes of content.csv without the column of when files were changed.

    As they are where they are no csv, which whoever reads the contents says.
    """
    at = COLUMNS.index("modified_ns")
    try:
        rows = [*csv.reader(io.StringIO(text.decode("utf-8"), newline=""))]
    except (csv.Error, UnicodeDecodeError):
        return text
    return "\n".join("\0".join([*row[:at], *row[at + 1 :]]) for row in rows).encode()


def check_film(path: Path, known: Content | None, *, digest: bool = False) -> None:
    """Raise PcamxError that names the file unless it is the one that `pcamx prepare` checked.

    ``known`` is None in a store of an earlier pcamx; then it need only be a file. With ``digest``
    its content is read even where size and time are as they were.
    """
    again = "run pcamx prepare again"
    try:
        info = os.stat(path)
        if not stat.S_ISREG(info.st_mode):
            raise PcamxError(f"{path}: not a file any more; {again}")
        same = known is not None and (info.st_size, info.st_mtime_ns) == known[:2]
        if known is None or (same and not digest):
            return
        changed = info.st_size != known.bytes or sha256_of(path) != known.sha256
    except OSError as error:
        raise PcamxError(f"{path}: cannot be decoded ({error.strerror}); {again}") from None
    if changed:
        sizes = f"{info.st_size} bytes" + f", were {known.bytes}" * (info.st_size != known.bytes)
        raise PcamxError(f"{path}: has changed since pcamx prepare ({sizes}); {again}")


def check_mark(path: Path, known: Content | None) -> None:
    """Raise PcamxError that names the mask if it is not the one that `pcamx prepare` wrote."""
    try:
        if known is None or sha256_of(path) == known.mark_sha256:
            return
    except OSError as error:
        raise PcamxError(
            f"{path}: not a readable mask ({error.strerror}); run pcamx prepare again"
        ) from None
    raise PcamxError(f"{path}: has changed since pcamx prepare wrote it; run pcamx prepare again")


def rows(contents: Mapping[str, Content]) -> list[tuple[object, ...]]:
    """Return the rows of content.csv behind its header."""
    return [(path, *content) for path, content in contents.items()]
