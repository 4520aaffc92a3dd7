"""Files that a command leaves: whole, or as they were."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pcamx.errors import PcamxError


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to; what is there at the end takes ``path``'s place.

    Raises PcamxError that names ``path`` where the disk refuses; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        raise PcamxError(f"cannot write {path}: {refusal(error)}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; raises PcamxError."""
    with replacing_file(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8 whole or not at all; raises PcamxError."""
    write_bytes(path, text.encode())


def make_folder(folder: Path) -> None:
    """Make a folder of a run; raises PcamxError where the disk refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PcamxError(f"run.folder: cannot make {folder}: {error.strerror}") from None


def refusal(error: Exception) -> str:
    """Why a write failed; torch's RuntimeError is about its file format, not about the disk."""
    return getattr(error, "strerror", None) or "the disk is full or refused the write"
