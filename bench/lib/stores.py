"""The same drawn films as PNG, JPEG and HTJ2K, prepared; an index names the same film in all."""

from pathlib import Path
from typing import NamedTuple

from pcamx.data.phantom import draw_phantoms
from pcamx.data.prepare.store_builder import prepare
from pcamx.data.prepare.transcode import Kind, check_codec
from pcamx.data.store import Store, read_store
from pcamx.errors import PcamxError
from pcamx.report.console import track

PNG, JPEG, HTJ2K = "PNG", "JPEG", "HTJ2K"
_TRANSCODE: dict[str, Kind | None] = {PNG: None, JPEG: "jpeg", HTJ2K: "htj2k"}
_DRAWN = "phantom"


class Stores(NamedTuple):
    """Format > store, and why the others are missing."""

    found: dict[str, Store]
    missing: dict[str, str]


def open_stores(folder: Path, films: int, size: int) -> Stores:
    """Open the stores below ``folder``, made where they are not there yet.

    ``films`` training films whose long side is ``size`` pixels. Raises PcamxError where the folder
    holds others.
    """
    if not (folder / _DRAWN).exists():
        draw_phantoms(folder / _DRAWN, train=films, valid=1, size=size, seed=0, track=track)
    stores = Stores({}, {})
    for name, kind in _TRANSCODE.items():
        out = folder / name.lower()
        try:
            if kind is not None and not out.exists():
                check_codec(kind)
        except PcamxError as error:
            stores.missing[name] = str(error)
            continue
        if not out.exists():
            prepare(folder / _DRAWN / "MURA-v1.1", out, transcode=kind, track=track)
        stores.found[name] = read_store(out)
        _check(folder, stores.found[name], films, size)
    return stores


def _check(folder: Path, store: Store, films: int, size: int) -> None:
    drawn = store.split("train")
    sides = {max(film.width, film.height) for film in drawn}
    if len(drawn) != films or sides != {size}:
        raise PcamxError(
            f"{store.folder}: {len(drawn)} films of {max(sides, default=0)} px, asked for {films} "
            f"of {size}; name another folder than {folder}"
        )
