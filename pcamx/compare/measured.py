"""A run as `pcamx evaluate` left it: report.json and films.csv."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pcamx.data.contents import sha256_of
from pcamx.errors import PcamxError
from pcamx.evaluation.film_table import FilmTable, read_films
from pcamx.output import readable
from pcamx.run.folder import RunFolder
from pcamx.run.report import Report, check_asked_alike, read_report


@dataclass(frozen=True, slots=True)
class Measured:
    """One evaluated run; ``name`` tells it from the others."""

    folder: Path
    name: str
    report: Report
    films: FilmTable


def read_run(folder: Path, name: str) -> Measured:
    """Read an evaluated run, or what an evaluation on another store left (RUN/on_STORE).

    Raises PcamxError that names the folder where it is no run, not evaluated or of another version.
    """
    run = RunFolder(folder)
    report, films = read_report(run), read_films(run.films_file)
    # Absent in reports of an earlier pcamx.
    if report.get("films_sha256") not in (None, sha256_of(run.films_file)):
        raise PcamxError(
            f"{run.report_file} and {run.films_file.name} are of different evaluations, or one was "
            f"changed; run pcamx evaluate {folder} again"
        )
    return Measured(folder, name, report, films)


def read_runs(folders: Sequence[Path]) -> list[Measured]:
    """Read several runs, named by as many of the last parts of their paths as tell them apart.

    Raises PcamxError as `read_run`, where there are fewer than two or one is given twice, and where
    a run's weights are not its own or its config is not theirs, or not that of what was measured:
    settings are compared as well.
    """
    if len(folders) < 2:
        raise PcamxError("compare takes two runs or more")
    places = [folder.resolve() for folder in folders]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise PcamxError(f"{folders[number]}: given twice; name different runs")
    found = [read_run(f, n) for f, n in zip(folders, names(places), strict=True)]
    for measured in found:
        run = RunFolder(measured.folder)
        for key in run.finished():
            run.load_weights(key)
        if run.finished():
            check_asked_alike(run, measured.report)
    return found


def names(places: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the different absolute paths that differ from each other."""
    for parts in range(1, max(len(place.parts) for place in places)):
        found = [readable("/".join(place.parts[-parts:])) for place in places]
        if len(set(found)) == len(found):
            return found
    return [readable(str(place)) for place in places]
