"""What a file is before its pixels are looked at: its bytes, DICOM or not, a bearable size."""

import stat
from pathlib import Path

from pcamx.output import without_address

MAX_PIXELS = 64_000_000
MAX_BYTES = 1 << 29
MIN_SIDE = 8
MISSING = "missing"
"""The reason where there is no file."""
_FIRST_VRS = (b"UL", b"CS", b"UI", b"OB", b"SH", b"DA", b"TM", b"LO")
DICOM_HEAD = 132
"""Bytes that tell a DICOM file from others."""


class UnfitError(Exception):
    """The file goes to the quarantine, for this reason."""


def is_dicom(data: bytes) -> bool:
    """Tell whether the content begins as DICOM does (PS3.10, 7.1), or as files without a preamble.

    Old ones begin with their file meta (group 2) or data set (group 8), the latter also in big
    endian.
    """
    if data[128:132] == b"DICM":
        return True
    if data[:3] == b"\0\x08\0" and data[4:6] in _FIRST_VRS:
        return True
    if data[:2] not in (b"\x02\0", b"\x08\0") or data[3:4] != b"\0":
        return False
    return data[4:6] in _FIRST_VRS or int.from_bytes(data[4:8], "little") in range(0, 256, 2)


def read_bytes(path: Path) -> bytes:
    """Read a regular file's content, if of a bearable size. Raises UnfitError."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise UnfitError("not a file")
        if info.st_size > MAX_BYTES:
            raise UnfitError(f"larger than {MAX_BYTES >> 20} MiB")
        data = path.read_bytes()
    except FileNotFoundError:
        raise UnfitError(MISSING) from None
    except (OSError, ValueError) as error:
        raise UnfitError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not data:
        raise UnfitError("empty")
    return data


def check_size(width: int, height: int) -> None:
    """Raise UnfitError before anything of an unbearable size is decoded."""
    if width * height > MAX_PIXELS:
        raise UnfitError(f"larger than {MAX_PIXELS // 10**6} megapixels")
    if min(width, height) < MIN_SIDE:
        raise UnfitError(f"smaller than {MIN_SIDE} pixels a side")


def one_line(error: object) -> str:
    """Cut what a library says of a file to fit a message."""
    words = "".join(c if c.isprintable() else " " for c in without_address(error)[:1000])
    return (" ".join(words.split()) or type(error).__name__)[:100]
