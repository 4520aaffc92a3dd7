"""Films that people have marked for a run that another goes on from.

`pcamx continue` leaves their marks out where the earlier run did not learn from them, so the new
run's store knows nothing of those; nobody is to be asked for them again.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from pcamx.data.store import Film, Store, read_store
from pcamx.errors import PcamxError
from pcamx.progress import Say
from pcamx.run.folder import RunFolder


def without_marked(films: list[Film], store: Store, run: RunFolder, say: Say) -> list[Film]:
    """Return those of ``films``, of ``store``, that no run which ``run`` goes on from has marked.

    Says which of these runs or stores is gone, so that its marks are not known.
    """
    known = [_marked(earlier) for earlier in _stores(run, say)]
    return [film for film in films if not any(_same(film, store, marked) for marked in known)]


def _stores(run: RunFolder, say: Say) -> Iterator[Store]:
    """The stores of the runs that ``run`` goes on from, the nearest first."""
    while (named := run.parent()) is not None:
        parent = RunFolder(Path(named["folder"]))
        then = f"films that were marked for it, from which {run.path} goes on, may come up again"
        if not parent.is_run() or (parent.id() or "") != named["run"]:
            say(f"{parent.path} is not there any more; {then}")
            return
        try:
            yield read_store(parent.find_store(parent.read_config(), anew=True))
        except PcamxError as error:
            say(f"{error}; {then}")
        run = parent


def _marked(store: Store) -> dict[str, str]:
    """SHA-256 of each marked film by its path, "" where it is not known."""
    return {film.path: _sha256(film.path, store) for film in store.films if film.mark}


def _same(film: Film, store: Store, marked: Mapping[str, str]) -> bool:
    """Tell whether it is one of ``marked``: films of another set may have the same names."""
    return film.path in marked and _sha256(film.path, store) in (marked[film.path], "")


def _sha256(path: str, store: Store) -> str:
    return store.contents[path].sha256 if path in store.contents else ""
