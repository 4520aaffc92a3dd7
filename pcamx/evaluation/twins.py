"""Films drawn twice with one thing changed, and how far that moves the decision.

A store of twins is made of what `pcamx phantom --twins` draws: its data folder holds twins.csv,
whose rows are film, twin, change, temptation and, where it was drawn, the digest of the film's file
(`pcamx.data.phantom.twins`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
import torch

from pcamx.catalogue import measures, resolve
from pcamx.data.contents import Content
from pcamx.data.csv_files import csv_rows
from pcamx.data.phantom.twins import DIGEST, FILE, HEADER
from pcamx.data.store import Film, Store
from pcamx.errors import PcamxError
from pcamx.metrics import Floats
from pcamx.metrics.basis import CHANGES, Change, Pairs
from pcamx.model.network import Network
from pcamx.types import ABNORMAL, NORMAL, Batch


class Twin(NamedTuple):
    """Where a film and its twin stand among the films of their stores, and what differs."""

    film: int
    twin: int
    change: Change
    temptation: str


def read_twins(
    store: Store,
    films: Sequence[Film],
    twins: Sequence[Film],
    contents: Mapping[str, Content],
) -> list[Twin]:
    """Read which of the ``twins`` of ``store`` are of which ``films``.

    A film is known by its path, or by that without the suffix, which transcoding changes. Films
    that are not among these are passed by. Raises PcamxError that names the file and line where it
    cannot be understood, or is of another film than that of ``contents`` by the same path, and
    where no pair is left.
    """
    path = store.root / FILE
    if not path.is_file():
        raise PcamxError(
            f"{store.folder}: no {FILE} in {store.root}; prepare the twins/ that pcamx phantom "
            "--twins draws"
        )
    film_at = {film.path: i for i, film in enumerate(films)}
    bare = [_without_suffix(film.path) for film in films]
    count = Counter(bare)
    film_at |= {name: i for i, name in enumerate(bare) if count[name] == 1}
    twin_at = {film.path: i for i, film in enumerate(twins)}
    found = []
    header: tuple[str, ...] = HEADER
    for number, (line, row) in enumerate(csv_rows(path)):
        if number == 0:
            header = tuple(row)
            if header not in (HEADER, (*HEADER, DIGEST)):
                raise PcamxError(f"{path}: line 1 must be {','.join(HEADER)}")
            continue
        change = next((c for c in CHANGES if len(row) == len(header) and row[2] == c), None)
        if change is None or not PurePosixPath(row[0]).name:
            raise PcamxError(f"{path}, line {line}: not a twin; expected {','.join(header)}")
        film = film_at.get(row[0], film_at.get(_without_suffix(row[0])))
        if film is not None and row[1] in twin_at:
            # A transcoded film has another path.
            known = contents.get(row[0])
            if DIGEST in header and known is not None and row[4] != known.sha256:
                raise PcamxError(
                    f"{path}, line {line}: the twin of another {row[0]} than the one measured "
                    "here; name the twins that were drawn with these films"
                )
            found.append(Twin(film, twin_at[row[1]], change, row[3]))
    if not found:
        raise PcamxError(f"{path}: none of its films is measured here; are they of this data set?")
    return found


def _without_suffix(path: str) -> str:
    return PurePosixPath(path).with_suffix("").as_posix()


@torch.no_grad()
def margins(networks: Mapping[str, Network], batches: Iterable[Batch]) -> dict[str, Floats]:
    """Return every network's logit of abnormal minus that of normal, float64 [N]."""
    found: dict[str, list[Floats]] = {name: [] for name in networks}
    for batch in batches:
        for name, network in networks.items():
            logits_BC = network(batch.image_B1HW).double().cpu()
            found[name].append((logits_BC[:, ABNORMAL] - logits_BC[:, NORMAL]).numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def twin_columns(film_N: Floats, twin_M: Floats, twins: Sequence[Twin]) -> dict[str, Floats]:
    """Return by column of films.csv what each film's twins say of the decision, [N].

    ``film_N`` and ``twin_M`` are margins of all films and of all twins. A film of several pairs of
    a kind gets their mean, one of none NaN.
    """
    at_P = np.array([one.film for one in twins], dtype=int)
    pairs = Pairs(film_N[at_P], twin_M[[one.twin for one in twins]], [one.change for one in twins])
    found = {}
    for measure in measures("basis"):
        if measure.films == "twins" and measure.column:
            value_P = resolve(measure.function)(pairs)
            known_P = ~np.isnan(value_P)
            sums_N, count_N = (
                np.bincount(at_P[known_P], weights, minlength=len(film_N))
                for weights in (value_P[known_P], None)
            )
            found[measure.column] = np.where(count_N > 0, sums_N / np.maximum(count_N, 1), np.nan)
    return found
