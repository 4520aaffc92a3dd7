"""A split's canvases, decoded once into a file that all ranks of a host map.

The file is a line of JSON and a SHA-256 of the rest, padded to HEAD bytes, then uint8 [N, 1, H, W].
Its name is the digest of all that its bits depend on; a file that does not hold what its SHA-256
says is decoded anew, and it may be deleted at any time. Mapped, it lies in the host's memory once,
however many ranks read it.

Shapes: N films, H W the canvas.
"""

import errno
import hashlib
import json
import mmap
import os
import re
import socket
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from pcamx.config import Data
from pcamx.data.canvas.decode import decoder
from pcamx.data.store import CACHE, CANVASES, Film, Store
from pcamx.errors import PcamxError
from pcamx.output import lives

HEAD = 4096
FORMAT = 1
MEMORY = Path("/dev/shm")  # noqa: S108  where files are memory; used where the disk takes none
_ABANDONED = 600.0
"""Seconds without a write after which a draft belongs to nobody; a batch takes a few."""
_BLOCK = 1 << 24
"""Bytes that are digested at a time; blocks go to threads, so that gigabytes take seconds."""
_THREADS = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """What the first rank of a host tells the others."""

    path: Path
    """Where the file is, or will be."""
    draft: Path | None
    """Where it is to be written first; None if it is there."""
    reason: str = ""
    """Why it cannot be kept on disk, if so: then the draft lies in memory."""
    damaged: bool = False
    """Whether there was one whose content is not what was decoded."""


def size(data: Data, films: int) -> int:
    """Return the bytes of a file."""
    return HEAD + films * data.canvas**2


def describe(data: Data, store: Store, films: Sequence[Film], device: torch.device) -> str:
    """Return all that the canvases depend on, as the file's first line.

    A film's content is known by its size and time of change: reading gigabytes at each start
    would cost more than it saves. Raises PcamxError that names a film that is gone.
    """
    digest = hashlib.sha256()
    for film in films:
        path = store.root / film.path
        try:
            found = path.stat()
        except OSError as error:
            raise PcamxError(
                f"{path}: cannot be decoded ({error.strerror}); run pcamx prepare again"
            ) from None
        identity = (film.path, found.st_size, found.st_mtime_ns, film.width, film.height)
        digest.update(json.dumps([*identity, film.white]).encode() + b"\n")
    head = {
        "format": FORMAT,
        "decoder": decoder(device),
        "canvas": data.canvas,
        "films": len(films),
        "digest": digest.hexdigest(),
    }
    return json.dumps(head)


def plan(data: Data, store: Store, films: Sequence[Film], head: str) -> Plan:
    """Find the file, or make room for it: on disk if that can be, else in memory.

    Raises PcamxError where neither has room.
    """
    folder = Path(data.cache) if data.cache else store.folder / CACHE
    name = hashlib.sha256(head.encode()).hexdigest()[:32] + CANVASES
    path, needed = folder / name, size(data, len(films))
    for place in (folder, MEMORY):
        _sweep(place)
    damaged = False
    if _holds(path, head, needed):
        if _is_whole(path):
            return Plan(path, None)
        damaged = True
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Plan(path, _reserve(path, needed), damaged=damaged)
    except OSError as error:
        reason = f"{folder}: {error.strerror}"
    try:
        return Plan(path, _reserve(MEMORY / name, needed), reason, damaged)
    except OSError as error:
        raise PcamxError(
            f"{reason}, and {MEMORY}: {error.strerror}: no room for {needed / 1e9:.1f} GB of "
            "canvases; set data.cache to a folder that has it, or data.feed to stream"
        ) from None


def _holds(path: Path, head: str, needed: int) -> bool:
    """Whether ``path`` is a whole file of this head; any other is as good as none."""
    try:
        with path.open("rb") as file:
            begins = file.read(HEAD).startswith(head.encode() + b"\n")
            return begins and os.fstat(file.fileno()).st_size == needed
    except OSError:
        return False


def _padded(head: str, digest: str) -> bytes:
    return f"{head}\n{digest}\n".encode().ljust(HEAD - 1) + b"\n"


def _is_whole(path: Path) -> bool:
    """Whether the canvases are those that were decoded, by their SHA-256."""
    try:
        with path.open("rb") as file:
            _, written, _ = file.read(HEAD).split(b"\n", 2)
            return written.decode() == _digest(file)
    except (OSError, ValueError):
        return False


def _digest(file: BinaryIO) -> str:
    """SHA-256 of the digests of all blocks behind the head."""
    size = os.fstat(file.fileno()).st_size

    def block(start: int) -> bytes:
        content = os.pread(file.fileno(), _BLOCK, start)
        if len(content) != min(_BLOCK, size - start):
            raise OSError(errno.EIO, "cut short while it was read")
        return hashlib.sha256(content).digest()

    with ThreadPoolExecutor(_THREADS) as threads:
        found = threads.map(block, range(HEAD, size, _BLOCK))
        return hashlib.sha256(b"".join(found)).hexdigest()


def _reserve(path: Path, needed: int) -> Path:
    """A draft of ``path`` whose bytes are set aside: a full disk shows now, not after hours."""
    draft = path.with_name(f".{path.stem}.{socket.gethostname()}.{os.getpid()}{CANVASES}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    try:
        os.posix_fallocate(descriptor, 0, needed)
    except BaseException:
        draft.unlink()
        raise
    finally:
        os.close(descriptor)
    return draft


def _sweep(folder: Path) -> None:
    """Delete what runs that were killed have left; another host's when nobody writes to it."""
    ours = re.compile(rf"\..*\.{re.escape(socket.gethostname())}\.(\d+){re.escape(CANVASES)}")
    for draft in _drafts(folder):
        found = ours.fullmatch(draft.name)
        try:
            if found is not None and not lives(int(found[1])):
                draft.unlink()
            elif time.time() - draft.stat().st_mtime > _ABANDONED:
                draft.unlink()
        except OSError:
            continue  # another run was faster, or it is not ours to delete


def _drafts(folder: Path) -> Iterator[Path]:
    try:
        yield from list(folder.glob(f".*{CANVASES}"))
    except OSError:  # it may not be listed
        return


def publish(file: BinaryIO, plan: Plan, head: str, needed: int) -> str:
    """Make the draft the file, unless another run has; why not, if the disk refuses, else ""."""
    assert plan.draft is not None
    try:
        digest = _digest(file)
        file.seek(0)
        file.write(_padded(head, digest))
        file.flush()
        os.fsync(file.fileno())
        # Where hosts share the folder, replacing a file that another has mapped would cut it off.
        if plan.damaged or not _holds(plan.path, head, needed):
            os.replace(plan.draft, plan.path)
    except OSError as error:
        return f"{plan.path}: {error.strerror}"
    return ""


def mapped(file: BinaryIO, films: int, canvas: int) -> Tensor:
    """Return the canvases of an open file, uint8 [N, 1, H, W], not to be written into."""
    view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        flat = torch.frombuffer(view, dtype=torch.uint8, offset=HEAD)
    return flat.view(films, 1, canvas, canvas)
