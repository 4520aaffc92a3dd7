"""Lays drawn films out as MURA-v1.1 does, with a lesion mask beside every abnormal one."""

import csv
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcamx.data.canvas import side_markers
from pcamx.data.canvas.side_markers import Box
from pcamx.data.contents import sha256_of
from pcamx.data.phantom.film import Drawn, draw_film
from pcamx.data.phantom.plan import SPLITS, FilmPlan, image_path, plan_films, study_path
from pcamx.data.phantom.temptations import CAST, EXPOSURE, PLATE, THE_LETTER, Temptation
from pcamx.data.phantom.twins import DIGEST, FILE, HEADER, Twin, pair_up
from pcamx.errors import PcamxError
from pcamx.output import refuse_anything, replacing_folder
from pcamx.processes import in_processes
from pcamx.progress import Track, silent

MOST = {"train": 60_000, "valid": 39_999}  # images; a patient has at least one
ALONE = 128  # films that are not worth a second process
FILMS, MARKS, TEMPTING, TWINS = "MURA-v1.1", "marks", "temptations", "twins"
OBJECTS = (PLATE, CAST)
"""Temptations that have a box in markers.csv, as letters do."""
Markers = list[tuple[str, Box | None]]
"""Of a film, each with its name: L, R or a temptation's kind."""
LABELS = ("path", "label", "split", "patient", "study", "part")


class Job(NamedTuple):
    """One film to be drawn, and where it and its masks go, relative to the folder of all."""

    plan: FilmPlan
    film: str
    mark: str
    tempting: str  # with {kind} in it


def draw_phantoms(
    out: Path,
    *,
    train: int,
    valid: int,
    size: int,
    seed: int,
    temptations: Sequence[Temptation] = (THE_LETTER,),
    twins: bool = False,
    workers: int | None = None,
    track: Track = silent,
) -> None:
    """Draw radiographs with known lesions into ``out``, whole or not at all.

    ``out/MURA-v1.1`` holds the films and the four csv files in MURA's layout, and markers.csv
    (`pcamx.data.canvas.side_markers`); ``out/marks`` the lesion masks (0 or 255, the film's size)
    under the same relative paths. About half of the studies are abnormal, in every body part. What
    tempts a network to decide by something else, and how often, stands in
    `pcamx.data.phantom.temptations`; ``out/temptations/KIND`` holds masks of where it is, but
    for the letter, whose place is in markers.csv, and for exposure, which is everywhere.
    markers.csv names them all, so that `data.balanced: markers` knows them, and has the boxes of
    letters, plates and casts. A network that falls for a temptation does well in training only.

    ``out/twins``, if asked for, is a data set of its own for `pcamx prepare` and `pcamx evaluate`:
    the validation films once more, each with its lesion toggled and with each of the temptations
    toggled; ``twins.csv`` in it says which film became which twin, and ``marks`` and
    ``temptations`` in it are what they are beside it. Nothing else differs, down to the noise.

    Args:
        train, valid: images per split.
        size: the films' long side, pixels.
        seed: with split and patient number it decides every byte, whatever ``workers`` is.
        temptations: one of a kind; with others, the same films with something else on them.
        workers: processes; None takes the processors that this process may use.

    Raises:
        PcamxError: ``out`` is not an empty or a new folder, or a number makes no sense.
    """
    for name, value in (("train", train), ("valid", valid)):
        if not 1 <= value <= MOST[name]:
            raise PcamxError(f"{name} is {value}: ask for 1 to {MOST[name]} phantoms")
    if seed < 0:
        raise PcamxError(f"seed is {seed}: it must be 0 or more")
    valids = plan_films(seed, "valid", valid, temptations)
    plans = [*plan_films(seed, "train", train, temptations), *valids]
    pairs = pair_up(valids, [tempts.kind for tempts in temptations]) if twins else []
    draw_plans(out, plans, pairs, size=size, workers=workers, track=track)


def draw_plans(
    out: Path,
    plans: Sequence[FilmPlan],
    twins: Sequence[Twin] = (),
    *,
    size: int,
    workers: int | None = None,
    track: Track = silent,
) -> None:
    """Draw the films of ``plans`` and ``twins`` into ``out`` as `draw_phantoms` does.

    Raises:
        PcamxError: ``out`` is not an empty or a new folder, or a number makes no sense.
    """
    _check(size, workers)
    out = Path(out).absolute()
    jobs = [*map(_film_job, plans), *map(_twin_job, twins)]
    with replacing_folder(out, refuse_anything) as whole:
        _write_tables(whole / FILMS, plans)
        for folder in {(whole / path).parent for job in jobs for path in _files(job)}:
            folder.mkdir(parents=True, exist_ok=True)
        done = _draw_all(jobs, whole, size, workers)
        markers = dict(track(done, "drawing phantoms", len(jobs)))
        _write_markers(whole / FILMS, plans, markers)
        if twins:
            _write_twins(whole, twins)


def _film_job(plan: FilmPlan) -> Job:
    path = image_path(plan)
    return Job(plan, f"{FILMS}/{path}", f"{MARKS}/{path}", f"{TEMPTING}/{{kind}}/{path}")


def _twin_job(twin: Twin) -> Job:
    home, path = TWINS, twin.path
    tempting = f"{home}/{TEMPTING}/{{kind}}/{path}"
    return Job(twin.twin, f"{home}/{path}", f"{home}/{MARKS}/{path}", tempting)


def _files(job: Job) -> Iterator[str]:
    """What is written for a film: itself, the mask of its lesion, those of its temptations."""
    yield job.film
    if job.plan.positive:
        yield job.mark
    yield from (job.tempting.format(kind=k) for k in job.plan.temptations if k != EXPOSURE)


def _check(size: int, workers: int | None) -> None:
    if not 32 <= size <= 4096:
        raise PcamxError(f"size is {size}: the long side must be 32 to 4096 pixels")
    if workers is not None and workers < 1:
        raise PcamxError(f"workers is {workers}: it must be 1 or more")


def _write_tables(root: Path, plans: Sequence[FilmPlan]) -> None:
    """The four header-less csv files."""
    root.mkdir(parents=True)
    for index, split in enumerate(SPLITS):
        own = [plan for plan in plans if plan.split == index]
        studies = {study_path(plan): int(plan.positive) for plan in own}
        images = [(f"{root.name}/{image_path(plan)}",) for plan in own]
        labels = [(f"{root.name}/{study}", label) for study, label in studies.items()]
        for name, rows in (("image_paths", images), ("labeled_studies", labels)):
            with (root / f"{split}_{name}.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)


def _write_markers(root: Path, plans: Sequence[FilmPlan], markers: dict[str, Markers]) -> None:
    """What tempts on each film, in the films' order."""
    with (root / side_markers.FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(side_markers.HEADER)
        for plan in plans:
            for name, box in markers[f"{FILMS}/{image_path(plan)}"]:
                writer.writerow([image_path(plan), name, *(box or ("", "", "", ""))])


def _write_twins(whole: Path, twins: Sequence[Twin]) -> None:
    """Which film became which twin, and the table that `pcamx prepare` reads."""
    # Other films may have the same names: those of the same seed with another temptation do.
    digests = {path: sha256_of(whole / FILMS / path) for path in {t.listed()[0] for t in twins}}
    paired = [twin.listed() for twin in twins]
    tables = (
        (FILE, (*HEADER, DIGEST), [(*row, digests[row[0]]) for row in paired]),
        ("labels.csv", LABELS, [twin.label() for twin in twins]),
    )
    for name, header, rows in tables:
        with (whole / TWINS / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])


def _draw_all(
    jobs: Sequence[Job], root: Path, size: int, workers: int | None
) -> Iterator[tuple[str, Markers]]:
    """Draws the films; yields each one's path and its markers."""
    draw = partial(_draw_one, root=root, size=size)
    wanted = workers or min(len(os.sched_getaffinity(0)), -(-len(jobs) // ALONE))
    if wanted == 1:
        yield from map(draw, jobs)
        return
    yield from in_processes(draw, jobs, [Path(job.film) for job in jobs], wanted)


def _draw_one(job: Job, root: Path, size: int) -> tuple[str, Markers]:
    drawn = draw_film(job.plan, size)
    _save(drawn.film, root / job.film)
    if job.plan.positive:
        _save(drawn.mask, root / job.mark)
    for kind, mask_HW in drawn.temptations.items():
        _save(mask_HW, root / job.tempting.format(kind=kind))
    return job.film, _markers(job.plan, drawn)


def _markers(plan: FilmPlan, drawn: Drawn) -> Markers:
    """The letter and the temptations that show on the film."""
    found: Markers = [] if drawn.marker is None else [(plan.marker, drawn.marker)]
    for kind in plan.temptations:
        if kind not in drawn.temptations:  # everywhere
            found.append((kind, None))
        elif box := Image.fromarray(drawn.temptations[kind]).getbbox():
            found.append((kind, Box(*box) if kind in OBJECTS else None))
    return found


def _save(image_HW: NDArray[np.uint8], path: Path) -> None:
    # Level 1: noise hardly compresses, and higher levels cost more than the drawing.
    Image.fromarray(image_HW).save(path, compress_level=1)
