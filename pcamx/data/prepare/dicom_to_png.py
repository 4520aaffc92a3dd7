"""A data set with DICOM, which DALI does not decode, taken into the store as a whole.

DICOM films become PNG of the grey levels that `pcamx explain` sees, to the bit; the others stay as
they are. Imports no torch, so that the processes that write start fast.
"""

from collections.abc import Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from pcamx.data.files.file_content import UnfitError, read_bytes
from pcamx.data.files.film import read_film
from pcamx.data.files.image import read_image
from pcamx.data.store import Film
from pcamx.errors import PcamxError
from pcamx.processes import in_processes
from pcamx.progress import Track

_SUFFIXES = (".dcm", ".dicom")


def take_in(
    root: Path,
    folder: Path,
    films: Sequence[Film],
    dicoms: Set[str],
    workers: int | None,
    track: Track,
) -> list[Film]:
    """Write ``films`` of ``root`` below ``folder``; ``dicoms`` are the paths of DICOM films.

    Returns them as they are there. Raises as `pcamx.data.prepare.stored_films.store_films`.
    """
    names = _names([film.path for film in films], dicoms)
    jobs = [(film, name, film.path in dicoms) for film, name in zip(films, names, strict=True)]
    paths = [root / film.path for film in films]
    work = in_processes(partial(_write, root, folder), jobs, paths, workers)
    return list(track(work, "taking films into the store", len(films)))


def _names(paths: Sequence[str], dicoms: Set[str]) -> list[str]:
    """Each film's in the store. A DICOM's often ends in a number that is no suffix, and stays."""
    taken = set(paths) - dicoms
    names = []
    for path in paths:
        name = path
        if path in dicoms:
            known = PurePosixPath(path).suffix.lower() in _SUFFIXES
            name = PurePosixPath(path).with_suffix(".png").as_posix() if known else path + ".png"
            while name in taken:  # a.dcm beside a.png
                path += "_"
                name = path + ".png"
            taken.add(name)
        names.append(name)
    return names


def _write(root: Path, folder: Path, job: tuple[Film, str, bool]) -> Film:
    film, name, dicom = job
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if not dicom:
            target.write_bytes(read_bytes(root / film.path))
            return film
        grey_HW = read_film(root / film.path).grey_HW
        Image.fromarray(grey_HW).save(target)
        same = np.array_equal(read_image(target.read_bytes()).grey_HW, grey_HW)
    except UnfitError as reason:
        raise PcamxError(f"{root / film.path}: {reason}; it was sound a moment ago") from None
    if not same:
        raise PcamxError(f"{target}: not what was written; check the disk")
    return replace(film, path=name)
