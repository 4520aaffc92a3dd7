"""Films that lie in the store itself: a data set with DICOM, and what --transcode writes."""

import shutil
from collections.abc import Sequence, Set
from pathlib import Path

from pcamx.data.canvas.side_markers import take_markers
from pcamx.data.prepare.dicom_to_png import take_in
from pcamx.data.prepare.parity import Parity, transcode_films
from pcamx.data.prepare.transcode import Kind
from pcamx.data.store import FILMS, Film
from pcamx.progress import Track

_TAKEN = "taken"  # DALI reads what is transcoded from there


def store_films(
    root: Path,
    draft: Path,
    films: Sequence[Film],
    dicoms: Set[str],
    transcode: Kind | None,
    workers: int | None,
    track: Track,
) -> tuple[Path, list[Film], Parity | None]:
    """Write what has to lie in the store ``draft``; ``dicoms`` are the paths of DICOM films.

    Returns the store's root, the films as its manifest is to have them, and what transcoding
    changed. Raises PcamxError if a film has changed since it was checked, OSError if the disk is
    full.
    """
    source, parity, stored = root, None, list(films)
    if dicoms:
        source = draft / (_TAKEN if transcode else FILMS)
        stored = take_in(root, source, films, dicoms, workers, track)
    if transcode is not None:
        stored, parity = transcode_films(source, draft, stored, transcode, workers, track)
    if dicoms and transcode is not None:
        shutil.rmtree(source)
    if not dicoms and transcode is None:
        return root, stored, parity
    named = {old.path: new.path for old, new in zip(films, stored, strict=True)}
    take_markers(root, draft / FILMS, named)
    return Path(FILMS), stored, parity
