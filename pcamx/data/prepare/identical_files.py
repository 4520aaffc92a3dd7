"""The same film twice: files of two sets whose bytes are the same."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from pcamx.data.store import Film

Files = Sequence[tuple[Film, Path]]


def copies(ones: Files, others: Files) -> Iterator[tuple[Film, Film]]:
    """Find each of ``ones`` of which ``others`` hold a copy, under whatever name, and that copy.

    Only files of the same size are read. A film that was stored anew, in another format, is not
    found. Raises OSError where a file cannot be read.
    """
    by_size: dict[int, list[tuple[Film, Path]]] = defaultdict(list)
    for film, path in others:
        by_size[path.stat().st_size].append((film, path))
    digests: dict[Path, bytes] = {}

    def digest(path: Path) -> bytes:
        if path not in digests:
            digests[path] = hashlib.sha256(path.read_bytes()).digest()
        return digests[path]

    for film, path in ones:
        alike = by_size.get(path.stat().st_size, ())
        found = next((other for other, there in alike if digest(there) == digest(path)), None)
        if found is not None:
            yield film, found
