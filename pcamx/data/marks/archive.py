"""A zip of mark files, as CVAT exports it: read in memory, within the limit of one file."""

import lzma
import struct
import zipfile
import zlib
from collections.abc import Container
from pathlib import Path, PurePosixPath

from pcamx.data.marks import parse
from pcamx.errors import PcamxError

SUFFIX = ".zip"
PACKED = {SUFFIX, ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar"}
"""Archives, which may hold marks; one that lies beside marks or in a zip is not looked into."""
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, RuntimeError, ValueError),
)
"""What zipfile raises of damage, encryption, and kinds of compression that it does not know."""


def is_hidden(name: PurePosixPath | Path) -> bool:
    """Tell whether a file, or a folder that it lies in, is hidden; macOS leaves one beside each."""
    return any(part.startswith(".") for part in name.parts)


def unpacked(
    archive: Path, suffixes: Container[str], named: Container[str] = ()
) -> dict[Path, bytes]:
    """Return the content of the files of ``suffixes``, by paths as if ``archive`` were a folder.

    Files of the suffixes ``named`` are there too, and empty: they are not read. Nothing is written,
    and what a member says of its size is not believed. Raises PcamxError, with the archive, where
    it is damaged or encrypted, or where the files are too large together.
    """
    found: dict[Path, bytes] = {}
    room = parse.MAX_BYTES
    try:
        with zipfile.ZipFile(archive) as file:
            for member in file.infolist():
                parts = [part for part in member.filename.split("/") if part not in ("", "..")]
                name = PurePosixPath(*parts)
                read = name.suffix.lower() in suffixes
                if not (read or name.suffix.lower() in named) or is_hidden(name):
                    continue
                data = b""
                if read:
                    with file.open(member) as opened:
                        data = opened.read(room + 1)
                room -= len(data)
                if room < 0:
                    raise parse.too_large(archive)
                if archive / name in found:
                    raise PcamxError(f"{archive}: holds {name} twice; export the marks again")
                found[archive / name] = data
    except _DAMAGE as error:
        raise PcamxError(
            f"{archive}: not a zip that can be read ({error}); export the marks again"
        ) from None
    return found
