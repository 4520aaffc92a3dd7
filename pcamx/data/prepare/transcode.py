"""`pcamx prepare --transcode`: films written anew in a format that DALI decodes on a GPU.

jpeg: grey baseline JPEG, quality 95, 8 bits; deeper films are scaled by 255 / white.
htj2k: High-Throughput JPEG 2000 (ISO/IEC 15444-15), lossless, up to 16 bits, as a raw codestream.
Either is upright, so it needs no EXIF.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from PIL import Image

from pcamx.data.files.file_content import UnfitError
from pcamx.data.files.film import read_film
from pcamx.data.store import FILMS, Film
from pcamx.errors import PcamxError
from pcamx.processes import in_processes
from pcamx.progress import Track

Kind = Literal["jpeg", "htj2k"]
SUFFIX: dict[Kind, str] = {"jpeg": ".jpg", "htj2k": ".j2c"}
QUALITY = 95


def check_codec(kind: Kind) -> None:
    """Raise PcamxError if the library that writes ``kind`` is not installed."""
    if kind == "htj2k":
        try:
            import imagecodecs  # noqa: F401
        except ImportError:
            raise PcamxError(
                "--transcode htj2k needs imagecodecs: pip install 'pcamx[htj2k]'"
            ) from None


def write_films(
    root: Path,
    draft: Path,
    films: Sequence[Film],
    kind: Kind,
    *,
    workers: int | None,
    track: Track,
) -> list[Film]:
    """Write every film of ``root`` below ``draft``/films; the films as the new manifest has them.

    Marks stay as they are: they lie in upright pixels. Raises PcamxError if a film has changed
    since it was checked, OSError if the disk is full.
    """
    paths = [root / film.path for film in films]
    jobs = list(zip(films, _names([film.path for film in films], SUFFIX[kind]), strict=True))
    work = in_processes(partial(_write, root, draft / FILMS, kind), jobs, paths, workers)
    return list(track(work, f"writing films as {kind}", len(films)))


def _names(paths: Sequence[str], suffix: str) -> list[str]:
    """Each path with the new suffix in the place of its own, by which marks still find the film.

    Where two would be one (a.jpg and a.png), both keep their own before the new.
    """
    replaced = [PurePosixPath(path).with_suffix(suffix).as_posix() for path in paths]
    count = Counter(replaced)
    names = [
        new if count[new] == 1 else path + suffix for path, new in zip(paths, replaced, strict=True)
    ]
    return names if len(set(names)) == len(names) else [path + suffix for path in paths]


def _write(root: Path, folder: Path, kind: Kind, job: tuple[Film, str]) -> Film:
    film, name = job
    new = replace(film, path=name)
    try:
        grey_HW = read_film(root / film.path).grey_HW
    except UnfitError as reason:
        raise PcamxError(f"{root / film.path}: {reason}; it was sound a moment ago") from None
    if kind == "jpeg" and film.white != 255:
        grey_HW, new = to_8_bits(grey_HW, film.white), replace(new, white=255)
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(_jpeg(grey_HW) if kind == "jpeg" else _htj2k(grey_HW))
    return new


def to_8_bits(grey_HW: np.ndarray[Any, Any], white: int) -> np.ndarray[Any, Any]:
    """Scale grey levels up to ``white`` to 255, halves to the even; uint8."""
    return np.rint(grey_HW * (255 / white)).clip(0, 255).astype(np.uint8)


def _jpeg(grey_HW: np.ndarray[Any, Any]) -> bytes:
    file = BytesIO()
    Image.fromarray(grey_HW).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _htj2k(grey_HW: np.ndarray[Any, Any]) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.htj2k_encode(grey_HW, reversible=True))
