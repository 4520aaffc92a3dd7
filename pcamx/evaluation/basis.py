"""What the decisions of every network rest on: columns of films.csv, and the figures made of them.

Shapes: N films, M of them marked.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pcamx import metrics
from pcamx.catalogue import BY_TEMPTATION, TEMPTING, measures, resolve
from pcamx.data.feed.order import choose_marked
from pcamx.data.store import Film, Store
from pcamx.evaluation.erasing import MOST, SEED, Found, erase_lesions
from pcamx.evaluation.measured_run import MeasuredRun
from pcamx.evaluation.twins import Twin, margins, twin_columns
from pcamx.metrics import Floats
from pcamx.metrics.basis import statistic
from pcamx.model.network import Network

Columns = dict[str, Floats]
"""By column of films.csv a value of every film [N], NaN where it has none."""


class Basis(NamedTuple):
    """What was asked of one network."""

    columns: Columns
    by_temptation: dict[str, Columns]
    """The same of the twins of each temptation, where they are of several."""


def measure_basis(
    run: MeasuredRun,
    networks: Mapping[str, Network],
    twins: tuple[Store, Sequence[Twin]] | None,
) -> dict[str, Basis]:
    """Return what every network says of the films' ``twins`` and of the marked films erased."""
    films = run.store.split(run.split)
    found = {name: Basis({}, {}) for name in networks}
    if twins is not None:
        store, pairs = twins
        film_N = margins(networks, run.measured(run.store, "deciding films"))
        given = run.some(store, store.split("valid"), "deciding their twins")
        twin_M = margins(networks, given)
        for name, basis in found.items():
            basis.columns.update(twin_columns(film_N[name], twin_M[name], pairs))
            for kind, some in by_kind(pairs).items():
                basis.by_temptation[kind] = twin_columns(film_N[name], twin_M[name], some)
    if marked := choose_marked(films, MOST, seed=SEED):
        batches = run.some(run.store, [films[i] for i in marked], "erasing lesions of films")
        erased = erase_lesions(networks, batches)
        for name, basis in found.items():
            basis.columns.update(erased_columns(erased[name], marked, len(films)))
    return found


def by_kind(twins: Sequence[Twin]) -> dict[str, list[Twin]]:
    """Return for each temptation its twins and those of the lesion; nothing where it is one."""
    kinds = sorted({one.temptation for one in twins} - {""})
    if len(kinds) < 2:
        return {}
    return {kind: [one for one in twins if one.temptation in ("", kind)] for kind in kinds}


def erased_columns(found: Found, marked: Sequence[int], films: int) -> Columns:
    """Return what erasing says of each of so many films; ``marked`` are those it was given."""
    columns: Columns = {}
    for measure in measures("basis"):
        if measure.films == "marked":
            columns[measure.column] = np.full(films, np.nan)
            at_M = [marked[number] for number in found.films]
            columns[measure.column][at_M] = resolve(measure.function)(found.by_fill)
    return columns


def all_figures(basis: Basis, films: Sequence[Film], seed: int) -> dict[str, Any]:
    """Return `basis_figures`, and where temptations are several those about them for each.

    What one temptation does may be the opposite of another's: taken together they may cancel.
    """
    found = basis_figures(basis.columns, films, seed)
    each = {}
    for kind, columns in basis.by_temptation.items():
        told = basis_figures(columns, films, seed)
        each[kind] = {key: told[key] for key in TEMPTING if key in told}
    return found | ({BY_TEMPTATION: each} if each else {})


def basis_figures(
    columns: Mapping[str, Floats], films: Sequence[Film], seed: int
) -> dict[str, Any]:
    """Return every figure of the catalogue about what the decision rests on, as in report.json.

    Of one network; what the films do not allow is left out.
    """
    found: dict[str, Any] = {}
    for measure in measures("basis"):
        needed = measure.made_of or (measure.column,)
        if not columns.keys() >= set(needed):
            continue
        unknown_NK = np.isnan(np.stack([columns[key] for key in needed], axis=1))
        taken = [number for number in range(len(films)) if not unknown_NK[number].all()]
        sample = statistic(measure, {key: columns[key][taken] for key in needed})
        patients = [films[number].patient for number in taken]
        figure = metrics.figure(sample, patients, seed=seed)
        if figure.value is not None:
            found[measure.key] = figure.to_dict()
    return found
