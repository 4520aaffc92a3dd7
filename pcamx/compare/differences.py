"""How much one run exceeds another, film by film on the same films.

Shapes: N films that both runs have a value for.
"""

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from pcamx import metrics
from pcamx.catalogue import POSITIVE_CAM, Measure, measures
from pcamx.evaluation.film_table import FilmTable
from pcamx.metrics import Difference
from pcamx.metrics.basis import statistic
from pcamx.report.comparison_rows import SURE

REPLICATES = 10_000
"""Of the bootstrap: p is never below 2 / (REPLICATES + 1), which Holm's correction multiplies by
the number of comparisons."""


def out_of_reach(tests: int) -> list[str]:
    """Say that these are too many differences for any p to be small; empty where one can be."""
    least = min(1.0, tests * 2 / (REPLICATES + 1))
    if least <= SURE:
        return []
    return [
        f"p by Holm's correction for {tests} differences cannot fall below {least:.2g}: none is "
        "marked."
    ]


def other_films(one: FilmTable, first: FilmTable) -> str:
    """Say why two runs' films are not the same, empty where they are.

    They are where names and labels agree; patients then do, being part of the same set.
    """
    both = one.label.keys() & first.label.keys()
    if one.label.keys() != first.label.keys():
        return (
            f"measured on {len(one.label)} films, {len(both)} of them among the other's "
            f"{len(first.label)}"
        )
    relabelled = sum(one.label[path] != first.label[path] for path in both)
    return f"{relabelled} films of the same name have another label" if relabelled else ""


def difference(
    ones: Sequence[FilmTable],
    firsts: Sequence[FilmTable],
    network: str,
    name: str,
    key: str,
    *,
    minus: tuple[str, str] | None = None,
    seed: int = 0,
) -> Difference | None:
    """Compare column ``key`` of two runs: mean over films in ``ones`` minus ``firsts``, and a test
    of 0.

    Of ``network`` ("stage 2") and the map ``name`` ("positive_cam"), in ``firsts`` of those of
    ``minus`` where it is given. Runs of several seeds are
    averaged film by film before patients are drawn: the interval is over patients, given these
    very trainings. None where a run lacks the column or the films are not the same.
    """
    places = ((ones, (network, name)), (firsts, minus or (network, name)))
    sides = [[table.values(*place, key) for table in side] for side, place in places]
    films = list(sides[1][0])
    if not films or any(values.keys() != set(films) for side in sides for values in side):
        return None
    one_N, first_N = ([fmean(values[f] for values in side) for f in films] for side in sides)
    patients = [firsts[0].patient[f] for f in films]
    return metrics.paired(one_N, first_N, patients, replicates=REPLICATES, seed=seed)


def basis_difference(
    ones: Sequence[FilmTable],
    firsts: Sequence[FilmTable],
    network: str,
    measure: Measure,
    *,
    minus: str = "",
    seed: int = 0,
) -> Difference | None:
    """Return a figure of what decisions rest on in ``ones`` minus ``firsts``, as `difference` does.

    Of ``network``, in ``firsts`` of ``minus`` where it is given. Runs of several seeds are averaged
    figure by figure, since each seed calls other films abnormal. None where a run lacks the figure,
    or not the same films have twins or were erased.
    """
    sides = [
        [_basis_columns(table, name, measure) for table in tables]
        for tables, name in ((ones, network), (firsts, minus or network))
    ]
    seen = [set().union(*columns.values()) for side in sides for columns in side]
    films = [film for film in firsts[0].patient if film in seen[0]] if firsts else []
    if not films or any(found != seen[0] for found in seen):
        return None
    one, first = (
        metrics.mean_of(
            [
                statistic(
                    measure,
                    {
                        column: np.array([values.get(film, np.nan) for film in films])
                        for column, values in columns.items()
                    },
                )
                for columns in side
            ]
        )
        for side in sides
    )
    patients = [firsts[0].patient[f] for f in films]
    found = metrics.paired(one, first, patients, replicates=REPLICATES, seed=seed)
    return None if found.value is None else found


def _basis_columns(table: FilmTable, network: str, measure: Measure) -> dict[str, dict[str, float]]:
    """By column what the films that ``measure`` is about have in it, whatever the map."""
    alike = [m.column for m in measures("basis") if m.column and m.films == measure.films]
    return {column: table.values(network, POSITIVE_CAM.key, column) for column in alike}


def auroc_difference(
    one: FilmTable, first: FilmTable, network: str, *, minus: str = "", seed: int = 0
) -> Difference | None:
    """Return the AUROC of ``network`` in ``one`` minus in ``first``; None as in `difference`.

    In ``first`` of ``minus`` where it is given.
    """
    places = ((one, network), (first, minus or network))
    values = [table.values(name, POSITIVE_CAM.key, "probability") for table, name in places]
    films = list(first.label)
    if not films or any(v.keys() != first.label.keys() for v in values):
        return None
    label_N = [float(first.label[film]) for film in films]
    mine, other = (metrics.auroc([v[f] for f in films], label_N) for v in values)
    patients = [first.patient[f] for f in films]
    return metrics.paired(mine, other, patients, replicates=REPLICATES, seed=seed)
