"""Groups of training films within which a batch is to be half abnormal (data.balanced)."""

import hashlib
import json
from collections.abc import Sequence

from pcamx.config import Config
from pcamx.data.canvas.side_markers import FILE, marker_names
from pcamx.data.feed.order import Classes
from pcamx.data.store import Film, Store
from pcamx.errors import PcamxError
from pcamx.types import ABNORMAL, NORMAL


def strata(config: Config, store: Store) -> list[Classes]:
    """Return the training films' indices by stratum and label; none where batches are as they come.

    Of all films one stratum, one of each body part, or one of each set of markers that a film may
    have (markers.csv or the set's own, `pcamx.data.canvas.side_markers`), as data.balanced says.
    Balancing what a label goes with is the simplest remedy against learning it (Idrissi et al.,
    CLeaR 2022).

    Raises PcamxError where a class is missing, or where there are no two strata.
    """
    films, kind = store.split("train"), config.data.balanced
    if kind == "off":
        return []
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, name in enumerate(_names(kind, store, films)):
        groups.setdefault(name, []).append(index)
    found: list[Classes] = [
        {label: [i for i in group if films[i].label == label] for label in (NORMAL, ABNORMAL)}
        for _, group in sorted(groups.items())
    ]
    for label, word in ((NORMAL, "normal"), (ABNORMAL, "abnormal")):
        if not any(classes[label] for classes in found):
            raise PcamxError(
                f"{store.folder}: data.balanced needs films of both classes, and no training film "
                f"is {word}; set it to off"
            )
    if kind != "on" and len(found) < 2:
        raise PcamxError(
            f"{store.folder}: data.balanced: {kind} needs two groups of films, and all training "
            f"films {'are of one part' if kind == 'parts' else 'have the same markers'}; "
            "set it to on"
        )
    return found


def strata_digest(config: Config, store: Store) -> str | None:
    """Return the SHA-256 of `strata`; None where there are none. Raises PcamxError as it does."""
    found = strata(config, store)
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest() if found else None


def _names(kind: str, store: Store, films: Sequence[Film]) -> Sequence[tuple[str, ...]]:
    """Each film's stratum."""
    if kind == "parts":
        return [(film.part,) for film in films]
    if kind == "on":
        return [()] * len(films)
    names = marker_names(store, films)
    if not any(names) and not (path := store.root / FILE).is_file():
        raise PcamxError(
            f"{path}: no such file; data.balanced: markers needs it, a row for each marker of a "
            "film; or set data.balanced to on"
        )
    return names
