"""A folder is replaced as a whole or not at all; a store's, if it is nothing but a store."""

import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pcamx.data.store import CACHE, CANVASES, FILMS, HEAD, MANIFEST, MARKS, QUARANTINE, REPORT
from pcamx.errors import PcamxError


def _may_replace(folder: Path) -> None:
    """Raise unless ``folder`` is missing, empty, or a store and nothing but a store."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise PcamxError(f"{folder} is a file; --out takes a folder for the store")
    names = {item.name for item in folder.iterdir()}
    foreign = _foreign(folder, names)
    if names and (foreign or HEAD not in names):
        what = f" (it holds {foreign[0]})" if foreign else ""
        raise PcamxError(f"{folder} is not empty and not a store{what}; choose another --out")


def _foreign(folder: Path, names: set[str]) -> list[str]:
    """What a folder with these ``names`` holds that a store does not."""
    ours = {MANIFEST, QUARANTINE, HEAD, MARKS, CACHE, f"{REPORT}.json", f"{REPORT}.md"}
    if FILMS in names and HEAD in names:
        # A folder of that name is ours only if the store says so: it is deleted with the store.
        try:
            head = json.loads((folder / HEAD).read_text(encoding="utf-8"))
        except ValueError:
            head = None
        if isinstance(head, dict) and head.get("root") == FILMS:
            ours.add(FILMS)
    cached = (folder / CACHE).iterdir() if (folder / CACHE).is_dir() else ()
    others = [f"{CACHE}/{file.name}" for file in cached if file.suffix != CANVASES]
    return sorted(names - ours) + sorted(others)


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
def replacing(folder: Path, may_replace: Callable[[Path], None] = _may_replace) -> Iterator[Path]:
    """Yield an empty folder beside ``folder`` that takes its place if the block succeeds.

    If the block fails, or the disk does, ``folder`` stays as it was; an OSError becomes a
    PcamxError. What a killed process left beside ``folder`` is removed. ``may_replace`` raises
    PcamxError if ``folder`` holds anything that may not go: by default, anything that is not a
    store.
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
