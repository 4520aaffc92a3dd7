"""Files and folders that a command leaves: whole, or as they were."""

import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pcamx.errors import PcamxError


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a name beside ``path`` to write to; what is there at the end takes ``path``'s place.

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
    """Say why a write failed; torch's RuntimeError is about its file format, not about the disk."""
    return getattr(error, "strerror", None) or "the disk is full or refused the write"


_KINDS = ("draft", "old")


def _hidden(folder: Path) -> str:
    """How the names begin that this host's processes write ``folder`` under."""
    return f".{folder.name}.{socket.gethostname()}"


def _clear_up(folder: Path) -> None:
    """Remove what this host's processes that are no more left, and put back what they moved."""
    left = re.compile(re.escape(_hidden(folder)) + rf"\.(\d+)\.({'|'.join(_KINDS)})")
    try:
        beside = list(folder.parent.iterdir())
    except OSError:  # it is not there yet, or may not be listed
        return
    for path in beside:
        found = left.fullmatch(path.name)
        if found is None or _lives(int(found[1])):
            continue
        if found[2] == "old" and not folder.exists():  # killed between two renames
            path.rename(folder)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _lives(process: int) -> bool:
    """Whether another process of this number runs."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


@contextmanager
def replacing_folder(folder: Path, may_replace: Callable[[Path], None]) -> Iterator[Path]:
    """Yield an empty folder beside ``folder`` that takes its place if the block succeeds.

    If the block fails, or the disk does, ``folder`` stays as it was; an OSError becomes a
    PcamxError. What a killed process left beside ``folder`` is removed. ``may_replace`` raises
    PcamxError if ``folder`` holds anything that may not go.
    """
    folder = folder.resolve()
    _clear_up(folder)
    may_replace(folder)
    draft, old = (folder.parent / f"{_hidden(folder)}.{os.getpid()}.{kind}" for kind in _KINDS)
    try:
        draft.mkdir(parents=True)
        yield draft
        try:
            if folder.exists():
                os.replace(folder, old)
            os.replace(draft, folder)
        except BaseException:  # Ctrl-C too
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise
    except OSError as error:
        what = error.filename or folder
        reason = error.strerror or str(error)
        raise PcamxError(f"{what}: {reason}; nothing was written to {folder}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
