"""`pcamx explain RUN FILE...`: films in; pictures, maps, candidates and tables out.

OUT/explain.json   model, threshold, versions, command
OUT/films.csv      a row a film, the skipped ones with the reason
OUT/coco.json      candidates of all films
OUT/index.html     all films, to look at; its pictures are in OUT/page
OUT/films/...      of film F, under the folders it came from: F.png, F.npy, F.json, F.seg.dcm
"""

import datetime
import functools
import itertools
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple

from pcamx import provenance
from pcamx.catalogue import MAPS, MapKind, StageId, best_map, trainable
from pcamx.devices import command_device
from pcamx.errors import PcamxError
from pcamx.explain.dicom_seg import check_installed
from pcamx.explain.inputs import FilmPath, find_films
from pcamx.explain.maps import answer, identity
from pcamx.explain.messages import CALLED, Job, Row, Settings
from pcamx.explain.page import PAGE, write_page
from pcamx.explain.predict import BATCH
from pcamx.explain.read_film import Reading, read
from pcamx.explain.results import FILMS, FORMAT, PICTURES, finish
from pcamx.explain.summary import COCO, HEAD, TABLE, write_summary
from pcamx.explain.workers import ahead, executor
from pcamx.output import printable, readable, replacing_folder
from pcamx.progress import Track, silent
from pcamx.run.folder import RunFolder
from pcamx.run.pretrained import Pretrained, from_pretrained


class Explained(NamedTuple):
    """What `explain` did."""

    out: Path
    rows: list[Row]
    """A row a film, in the order in which they were given."""
    level: float | None
    """What a candidate's peak reaches, in the map's own unit; None where that is unknown."""

    def skipped(self) -> list[Row]:
        """Return the films that were not explained."""
        return [row for row in self.rows if row.probability is None]

    def incomplete(self) -> list[Row]:
        """Return the films that were explained, but for a DICOM Segmentation asked for."""
        return [row for row in self.rows if row.reason and row.probability is not None]


def explain(
    run: Path,
    films: Sequence[Path],
    *,
    out: Path | None = None,
    replace: bool = False,
    stage: StageId | None = None,
    map_key: str | None = None,
    level: float | None = None,
    dicom_seg: bool = False,
    workers: int | None = None,
    track: Track = silent,
) -> Explained:
    """Explain films, and those in folders, with a run or an export; write ``out`` as a whole.

    ``out`` (by default ``run``/explain) is new; with ``replace`` it may hold an earlier
    explanation, which stays as it was if this one does not come to its end. By the last finished
    ``stage`` and the map that shows best where it looks unless told otherwise; a lesion candidate
    peaks at ``level`` of that map or above, by default at the one that the model knows
    (`pcamx.run.thresholds.Threshold`). A film that cannot be read is skipped, with the reason in
    its row; one whose segmentation could not be written has the reason there, too. Run it under
    ``if __name__ == "__main__"``.

    Raises PcamxError where ``run`` holds no model, or none of that stage or map, no film can be
    read, or ``out`` cannot be written or holds something else.
    """
    out = RunFolder(run).explained if out is None else out
    found = find_films(films)
    _check_apart(out, films)
    if dicom_seg:
        check_installed()
    may_replace = functools.partial(_may_replace, earlier=replace)
    may_replace(out)
    model = from_pretrained(run, stage=stage, device=command_device())
    settings = _settings(model, _kind(model, map_key), level, dicom_seg)
    with replacing_folder(out, may_replace) as draft, executor(len(found), workers) as pool:
        work = _rows(model, found, draft, settings, pool)
        rows = list(track(work, "explaining films", len(found)))
        if all(row.probability is None for row in rows):
            first = printable(f"{found[0].path}: {rows[0].reason}")
            others = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
            raise PcamxError(f"no film could be read; {first}{others}")
        write_summary(draft, rows, _head(settings, rows))
        write_page(draft, rows, settings)
    return Explained(out, rows, settings.level)


def _check_apart(out: Path, films: Sequence[Path]) -> None:
    """Raise where results would lie among the films, or films be replaced with the results."""
    place = out.resolve()
    for film in map(Path.resolve, films):
        if place == film or (film.is_dir() and place.is_relative_to(film)):
            raise PcamxError(f"--out {out} lies among the films in {film}; name another folder")
        if film.is_relative_to(place):
            raise PcamxError(f"--out {out} would replace the folder that holds {film}")


def _may_replace(folder: Path, *, earlier: bool) -> None:
    """Raise unless ``folder`` is missing or empty, or, with ``earlier``, an explanation alone."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise PcamxError(f"{folder} is a file; --out takes a folder")
    names = {item.name for item in folder.iterdir()}
    foreign = sorted(names - {TABLE, COCO, HEAD, FILMS, PAGE, PICTURES})
    if names and (foreign or HEAD not in names):
        what = f" (it holds {foreign[0]})" if foreign else ""
        raise PcamxError(
            f"{folder} is not empty and not of pcamx explain{what}; choose another --out"
        )
    if names and not earlier:
        raise PcamxError(
            f"{folder} holds an earlier explanation; choose another --out, or add --replace"
        )


def _kind(model: Pretrained, key: str | None) -> MapKind:
    """The map that is asked for, or the one that shows best where the stage looks."""
    entry = trainable(model.stage)
    if key is None:
        return best_map(entry)
    if key not in model.thresholds:
        raise PcamxError(f"--map {key}: {entry.title} has {', '.join(model.thresholds)}")
    return next(kind for kind in MAPS if kind.key == key)


def _settings(model: Pretrained, kind: MapKind, level: float | None, dicom_seg: bool) -> Settings:
    about = {
        "model": {
            "folder": readable(str(model.folder)),
            "stage": model.stage,
            "encoder": model.encoder,
            "mirrored": model.mirrored,
            "canvas": model.canvas,
            "sha256": identity(model),
            "measured_at_commit": model.commit,
        },
        "device": provenance.device_name(model.device),
        "versions": provenance.versions({"pydicom": "pydicom"}),
        "commit": provenance.commit(),
    }
    threshold = model.thresholds[kind.key]
    if level is not None:
        level_from = "given"
    elif (level := threshold.level) is not None:
        level_from = "reached by few of the normal training films, as pcamx evaluate chose it"
    else:
        level_from = "unknown, so every film has candidates: run pcamx evaluate, or give a level"
    return Settings(kind.key, threshold.value, threshold.tuned, level, level_from, dicom_seg, about)


def _head(settings: Settings, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": readable(shlex.join(sys.argv)),
        "films": len(rows),
        "skipped": sum(row.probability is None for row in rows),
        "without_segmentation": sum(row.probability is not None for row in rows if row.reason),
        "map": settings.map,
        "threshold": {"value": settings.threshold, "tuned": settings.tuned},
        "level": {"value": settings.level, "from": settings.level_from},
        "called_abnormal_from": CALLED,
        **settings.about,
    }


def _rows(
    model: Pretrained,
    films: Sequence[FilmPath],
    folder: Path,
    settings: Settings,
    pool: Executor,
) -> Iterator[Row]:
    """Each film's row, in order, once its files are written."""
    readings = zip(films, ahead(pool, read, films, depth=2 * BATCH), strict=True)
    kind = _kind(model, settings.map)
    jobs = itertools.chain.from_iterable(
        _answer(model, kind, batch) for batch in _batches(readings)
    )
    return ahead(pool, functools.partial(finish, folder, settings), jobs, depth=2 * BATCH)


def _batches(readings: Iterable[Any]) -> Iterator[list[Any]]:
    readings = iter(readings)
    while batch := list(itertools.islice(readings, BATCH)):
        yield batch


def _answer(
    model: Pretrained, kind: MapKind, batch: Sequence[tuple[FilmPath, Reading | str]]
) -> Iterator[Job | Row]:
    """Run the network on the films that could be read; the rows of the others."""
    good = [reading for _, reading in batch if isinstance(reading, Reading)]
    try:
        answers = iter(answer(model, good, kind) if good else [])
    except PcamxError as error:  # of one film that its own check let pass, or that has gone
        for alone in batch if len(batch) > 1 else ():
            yield from _answer(model, kind, [alone])
        if len(batch) == 1:
            yield Row(batch[0][0].name, readable(str(error)))
        return
    for film, reading in batch:
        if isinstance(reading, Reading):
            # What DALI needed of the film is not sent on.
            yield Job(reading._replace(grey_HW=None), *next(answers))
        else:
            yield Row(film.name, reading)
