"""`pcamx prepare --verify`: whether a store's files still hold what they held when it was made."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from pcamx.data.contents import check_film
from pcamx.data.store import CONTENT, Film, Store, read_store
from pcamx.errors import PcamxError
from pcamx.progress import Track, silent


def changed_films(folder: Path, track: Track = silent) -> tuple[list[str], int]:
    """Read all of a store's films and masks; return a line for each that changed, and their number.

    Training looks at size and time of change alone, which a program can keep. Raises PcamxError
    where the folder is no store, or one of a pcamx that kept no digests.
    """
    store = read_store(folder)
    if not all(film.path in store.contents for film in store.films):
        raise PcamxError(
            f"{folder / CONTENT}: has no digests of the films, as in a store of an earlier pcamx; "
            "run pcamx prepare again"
        )
    # Python lets go of its lock while a digest is made.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        checked = pool.map(partial(_changed, store), store.films)
        found = [
            line for lines in track(checked, "reading films", len(store.films)) for line in lines
        ]
    return found, len(store.films)


def _changed(store: Store, film: Film) -> list[str]:
    """What is wrong with one film's file and its mask."""
    said = []
    try:
        check_film(store.root / film.path, store.contents[film.path], digest=True)
    except PcamxError as error:
        said.append(str(error))
    try:
        if film.mark:
            store.check_mark(film)
    except PcamxError as error:
        said.append(str(error))
    return said
