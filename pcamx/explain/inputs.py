"""Which films a command line means, and under which name each one's results go."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pcamx.data.files.file_content import DICOM_HEAD, is_dicom
from pcamx.errors import PcamxError
from pcamx.output import readable
from pcamx.report.viewer.pictures import FILM, MAPS, THUMB

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom")
ENDINGS = (".png", ".npy", ".json", ".seg.dcm", FILM, THUMB, MAPS)
"""What the names of a film's results end in, behind the film's own."""
_NO_FILM = "DICOMDIR"  # the table of contents of a DICOM medium


class FilmPath(NamedTuple):
    """A file that was asked for."""

    path: Path
    """Absolute."""
    name: str
    """Relative to the folder that all films share, with forward slashes; no two have the same."""
    refusal: str
    """Why it is not read; empty if it is."""


def find_films(given: Sequence[Path]) -> list[FilmPath]:
    """Find the files of ``given`` and, folder by folder and all the way down, those that are films.

    In a folder a film is known by its suffix, or as DICOM by its first bytes; hidden files and
    what else lies there is left alone. A file that is named itself is always taken. Twice named is
    taken once, where it was named first. A linked folder is listed as a film that is refused,
    unless it is named itself. Raises PcamxError for a folder that cannot be listed or that holds
    no film.
    """
    given = [Path(os.path.abspath(path)) for path in given]
    folders = [path if path.is_dir() else path.parent for path in given]
    common = Path(os.path.commonpath(folders))
    found: dict[Path, str] = {}
    for path in given:
        if path.is_dir():
            films = {film: _refusal(film, path) for film in _below(path)}
            if not films:
                raise PcamxError(f"{path}: no film in it; films are {', '.join(SUFFIXES)}")
            found |= {film: why for film, why in films.items() if film not in found}
        else:
            found[path] = ""
    named = [
        _named(path, path.relative_to(common).as_posix(), why)
        for path, why in found.items()
        if not (why and path in given)  # a linked folder that is named, too, was walked into
    ]
    return list(_apart(named))


def _apart(films: Sequence[FilmPath]) -> Iterator[FilmPath]:
    """Refuse a film whose results would have the name of another's, or of a folder of theirs.

    Beside a DICOM film x there may be films in a folder x.png, or one x.small.
    """
    taken = {
        parent.as_posix(): film.name
        for film in reversed(films)
        if not film.refusal
        for parent in PurePosixPath(film.name).parents
    }
    for film in films:
        names = [] if film.refusal else [film.name + ending for ending in ENDINGS]
        other = next((taken[name] for name in names if name in taken), None)
        if other is not None:
            why = f"its results would be called as those of {other}; rename it or explain it alone"
            yield film._replace(refusal=why)
            continue
        taken |= dict.fromkeys(names, film.name)
        yield film


def _named(path: Path, name: str, refusal: str) -> FilmPath:
    """With a name that JSON, csv and the screen can hold."""
    if readable(name) != name:
        refusal = "its name is not UTF-8; rename it"
    return FilmPath(path, readable(name), readable(refusal))


def _below(folder: Path) -> Iterator[Path]:
    def stop(error: OSError) -> None:
        raise PcamxError(f"{error.filename}: {error.strerror}; it cannot be listed")

    for parent, subfolders, files in os.walk(folder, onerror=stop):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        # They are not walked into: a link may lead round in a circle, or to what is found anyway.
        yield from (path for name in subfolders if (path := Path(parent, name)).is_symlink())
        for name in sorted(files):
            path = Path(parent, name)
            if not name.startswith(".") and name != _NO_FILM and _is_film(path):
                yield path


def _is_film(path: Path) -> bool:
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        if not path.is_file():  # a pipe would keep us waiting
            return False
        with path.open("rb") as file:
            return is_dicom(file.read(DICOM_HEAD))
    except OSError:
        return False


def _refusal(path: Path, folder: Path) -> str:
    if path.is_dir():
        return "a link to a folder, which is not followed; name the folder itself"
    # realpath, since Path.resolve raises for a link to itself.
    if Path(os.path.realpath(path)).is_relative_to(folder.resolve()):
        return ""
    return f"a link that leaves {folder}; name the film itself"
