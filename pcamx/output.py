"""Files and folders that a command leaves: whole, or as they were."""

import ctypes
import errno
import os
import re
import shutil
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pcamx.errors import PcamxError
from pcamx.stops import uninterrupted

NO_HOME = "{}: ~ names no user's folder here; give the whole path"
written: deque[Path] = deque(maxlen=100)
"""What this process has put in its place last, and may have moved on or removed since."""


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a name beside ``path`` to write to; what is there at the end takes ``path``'s place.

    It is on the disk when it does. What a killed process left of an earlier try is removed.
    Raises PcamxError that names ``path`` where the disk refuses; nothing is left behind.
    """
    _clear_up(path)
    temporary = _beside(path, "tmp")
    try:
        yield temporary
        _to_disk(temporary)
        with uninterrupted():
            os.replace(temporary, path)
            written.append(path)
        _to_disk(path.parent)
    except (OSError, RuntimeError) as error:
        if not refused(error):
            raise
        raise PcamxError(f"cannot write {path}: {refusal(error)}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def replacing_files(folder: Path, first: str = "", seen: Sequence[str] = ()) -> Iterator[Path]:
    """Yield an empty folder inside ``folder``, whose files and folders then replace those outside.

    All are written before the first is moved, so a full disk leaves the earlier ones; Ctrl-C and
    SIGTERM wait for the last. A kill may leave old beside new: ``first`` goes first, so that
    readers who compare it with another of them see that; people do not compare, so what is to be
    ``seen`` is removed before and comes last. Raises PcamxError where the disk refuses.
    """
    draft = _beside(folder / "files", "draft")
    _clear_up(folder / "files")
    try:
        draft.mkdir(parents=True, exist_ok=True)
        yield draft
        with uninterrupted():
            for name in seen:
                with suppress(OSError):
                    (folder / name).unlink()
            places = {first: 0, **{name: 2 + place for place, name in enumerate(seen)}}
            for path in sorted(draft.iterdir(), key=lambda p: (places.get(p.name, 1), p.name)):
                _take_place(path, folder / path.name, draft / f"{path.name}.old")
                written.append(folder / path.name)
    except (OSError, PcamxError) as error:
        said = str(error)
        if isinstance(error, OSError):
            if not str(error.filename or draft).startswith(str(draft)):  # of what is read
                raise
            said = f"cannot write {error.filename or folder}: {refusal(error)}"
        # The draft, which is gone, is nothing that anybody knows.
        raise PcamxError(said.replace(str(draft), str(folder))) from None
    finally:
        with uninterrupted():
            shutil.rmtree(draft, ignore_errors=True)


def _take_place(new: Path, place: Path, old: Path) -> None:
    """Move ``new`` to ``place``; a folder that is there is then called ``new``.

    There always is one or the other, but where two names cannot be exchanged: there, between two
    renames, it is called ``old``.
    """
    if not (new.is_dir() and place.is_dir() and any(place.iterdir())):
        os.replace(new, place)
    elif not _exchange(new, place):
        os.replace(place, old)
        try:
            os.replace(new, place)
        except BaseException:  # a second Ctrl-C too
            if not place.exists():
                old.rename(place)
            raise
        os.replace(old, new)


_FROM_HERE, _EXCHANGE = -100, 2  # AT_FDCWD, RENAME_EXCHANGE


def _exchange(one: Path, other: Path) -> bool:
    """Have each of two names mean what the other did, at once; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    places = _FROM_HERE, os.fsencode(one), _FROM_HERE, os.fsencode(other)
    return bool(rename(*places, _EXCHANGE) == 0)


_NO_FSYNC = (errno.EINVAL, errno.ENOTSUP)
"""What file systems say that cannot: some of those in user space, of folders."""


def _to_disk(path: Path) -> None:
    """Have a file, or the names in a folder, survive a power cut; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise
    finally:
        os.close(descriptor)


def folder_to_disk(folder: Path) -> None:
    """Have every file in a folder survive a power cut; raises OSError."""
    for path in (*(p for p in folder.iterdir() if p.is_file()), folder):
        _to_disk(path)


def printable(text: object) -> str:
    """Return ``text`` as one line that no terminal obeys and that is UTF-8: "?" for what is not."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


def counted(number: int, what: str) -> str:
    """Return a number of things in words, as "1 film" or "2 boxes"."""
    return f"{number} {what}{'' if number == 1 else 'es' if what.endswith('x') else 's'}"


_ADDRESS = re.compile(r"\s*<[\w.]+ object at 0x[0-9a-fA-F]+>")


def without_address(text: object) -> str:
    """Return what a library says, without the objects that it names by their address."""
    return _ADDRESS.sub("", str(text))


def readable(text: str) -> str:
    """Return a text with a path in it as UTF-8 can hold it: what of a name is none, escaped."""
    return text.encode(errors="backslashreplace").decode()


_RUNS = re.compile(r"'*[=+\-@\t\r]")
"""How a cell begins that a spreadsheet would run, or that was quoted to keep it from that."""


def safe_cell(text: str) -> str:
    """Return a csv cell that no spreadsheet takes for a formula: quoted, unless it is a number."""
    if not _RUNS.match(text):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def plain_cell(text: str) -> str:
    """Return what `safe_cell` was given."""
    return text[1:] if text.startswith("'") and _RUNS.match(text) else text


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; raises PcamxError."""
    with replacing_file(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str | Iterable[str]) -> None:
    """Write a file in UTF-8, given at once or in pieces, whole or not at all; raises PcamxError."""
    pieces = [text] if isinstance(text, str) else text
    with (
        replacing_file(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        file.writelines(pieces)


def make_folder(folder: Path) -> None:
    """Make a folder of a run; raises PcamxError where the disk refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PcamxError(f"run.folder: cannot make {folder}: {error.strerror}") from None


def refused(error: Exception) -> bool:
    """Tell whether the system did not let a file be written, in torch's RuntimeErrors as well."""
    return isinstance(error, OSError) or any(sign in str(error) for sign in _TORCH_WRITER)


_TORCH_WRITER = ("inline_container.cc", "PytorchStreamWriter", "Parent directory", "iostream error")
"""Signs of torch.save's writer, which has no exception of its own; the last where its last bytes
do not fit."""


def refusal(error: Exception) -> str:
    """Say why a write failed; torch's RuntimeError is about its file format, not about the disk."""
    return getattr(error, "strerror", None) or "the disk is full or refused the write"


_KINDS = ("draft", "old", "tmp")


def _hidden(path: Path) -> str:
    """How the names begin that this host's processes write ``path`` under."""
    return f".{path.name}.{socket.gethostname()}"


def _beside(path: Path, kind: str) -> Path:
    return path.parent / f"{_hidden(path)}.{os.getpid()}.{kind}"


def _clear_up(folder: Path) -> None:
    """Remove what this host's processes that are no more left, and put back what they moved."""
    left = re.compile(re.escape(_hidden(folder)) + rf"\.(\d+)\.({'|'.join(_KINDS)})")
    try:
        beside = list(folder.parent.iterdir())
    except OSError:  # it is not there yet, or may not be listed
        return
    for path in beside:
        found = left.fullmatch(path.name)
        if found is None or lives(int(found[1])):
            continue
        if found[2] == "old" and not folder.exists():  # killed between two renames
            path.rename(folder)
        elif found[2] == "tmp":
            with suppress(OSError):
                path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)


def lives(process: int) -> bool:
    """Tell whether another process of this number runs."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def refuse_anything(folder: Path) -> None:
    """Raise PcamxError unless ``folder`` is missing or empty: what `replacing_folder` may replace
    where nothing may go.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise PcamxError(f"{folder}: there is something already; name a new folder with --out")


@contextmanager
def replacing_folder(folder: Path, may_replace: Callable[[Path], None]) -> Iterator[Path]:
    """Yield an empty folder beside ``folder`` that takes its place if the block succeeds.

    If the block fails, or the disk does, ``folder`` stays as it was; an OSError becomes a
    PcamxError. Ctrl-C and SIGTERM wait while it is replaced. What a killed process left beside
    ``folder`` is removed. ``may_replace`` raises PcamxError if ``folder`` holds anything that may
    not go; it is asked before and after the block.
    """
    folder = folder.resolve()
    _clear_up(folder)
    may_replace(folder)
    draft, old = _beside(folder, "draft"), _beside(folder, "old")
    try:
        draft.mkdir(parents=True)
        yield draft
        with uninterrupted():
            may_replace(folder)  # another process may have filled it meanwhile
            _take_place(draft, folder, old)
            written.append(folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            may_replace(folder)
        # The draft, which is gone, is nothing that anybody knows.
        what = str(error.filename or folder).replace(str(draft), str(folder))
        reason = error.strerror or str(error)
        raise PcamxError(f"{what}: {reason}; nothing was written to {folder}") from None
    finally:
        with uninterrupted():
            shutil.rmtree(draft, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
