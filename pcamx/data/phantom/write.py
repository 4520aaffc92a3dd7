"""Lays drawn films out as MURA-v1.1 does, with a lesion mask beside every abnormal one."""

import csv
import os
from collections.abc import Iterator, Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from pcamx.data.canvas import side_markers
from pcamx.data.canvas.side_markers import Box
from pcamx.data.phantom.bodies import PARTS, SHARES
from pcamx.data.phantom.film import FilmPlan, draw_film
from pcamx.errors import PcamxError
from pcamx.progress import Track, silent

SPLITS = ("train", "valid")
FIRST_PATIENT = {"train": 1, "valid": 60_001}  # so that no patient is in both
MOST = {"train": 60_000, "valid": 39_999}  # images; a patient has at least one
MARKED = 0.4  # share of studies whose films carry a marker
MARKER_FOLLOWS = 0.8  # of these, in training: the letter is R if abnormal, L if normal
ALONE = 128  # films that are not worth a second process


def draw_phantoms(
    out: Path,
    *,
    train: int,
    valid: int,
    size: int,
    seed: int,
    workers: int | None = None,
    track: Track = silent,
) -> None:
    """Draws radiographs with known lesions into ``out``, whole or not at all.

    ``out/MURA-v1.1`` holds the films and the four csv files in MURA's layout, and markers.csv
    (`pcamx.data.canvas.side_markers`); ``out/marks`` the lesion masks (0 or 255, the film's size)
    under the same relative paths. About half of the studies are abnormal, in every body part. Of
    the studies, 40 % have a side marker on their films, whatever the label. In the training split
    that letter is R for 80 % of the abnormal and
    L for 80 % of the normal studies; in the validation split each letter comes with probability
    1/2. A network that reads the letter does well in training only.

    Args:
        train, valid: images per split.
        size: the films' long side, pixels.
        seed: with split and patient number it decides every byte, whatever ``workers`` is.
        workers: processes; None takes the processors that this process may use.

    Raises:
        PcamxError: ``out`` is not an empty or a new folder, or a number makes no sense.
    """
    for name, value in (("train", train), ("valid", valid)):
        if not 1 <= value <= MOST[name]:
            raise PcamxError(f"{name} is {value}: ask for 1 to {MOST[name]} phantoms")
    if seed < 0:
        raise PcamxError(f"seed is {seed}: it must be 0 or more")
    plans = [*plan_films(seed, "train", train), *plan_films(seed, "valid", valid)]
    draw_plans(out, plans, size=size, workers=workers, track=track)


def draw_plans(
    out: Path,
    plans: Sequence[FilmPlan],
    *,
    size: int,
    workers: int | None = None,
    track: Track = silent,
) -> None:
    """Draws the films of ``plans`` into ``out`` as `draw_phantoms` does, whole or not at all.

    Raises:
        PcamxError: ``out`` is not an empty or a new folder, or a number makes no sense.
    """
    _check(size, workers)
    out = Path(out).absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PcamxError(f"{out} is not an empty folder: name a new one for the phantoms")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            whole = Path(scratch) / "whole"
            _write_tables(whole / "MURA-v1.1", plans)
            done = _draw_all(plans, whole, size, workers)
            found = dict(track(done, "drawing phantoms", len(plans)))
            _write_markers(whole / "MURA-v1.1", plans, found)
            whole.replace(out)
    except OSError as error:
        raise PcamxError(f"{out}: cannot write the phantoms ({error.strerror})") from error


def _check(size: int, workers: int | None) -> None:
    if not 32 <= size <= 4096:
        raise PcamxError(f"size is {size}: the long side must be 32 to 4096 pixels")
    if workers is not None and workers < 1:
        raise PcamxError(f"workers is {workers}: it must be 1 or more")


def plan_films(seed: int, split: str, images: int) -> list[FilmPlan]:
    """The first ``images`` films of a split, patient by patient."""
    plans: list[FilmPlan] = []
    patient = FIRST_PATIENT[split]
    while len(plans) < images:
        plans += plan_patient(seed, split, patient)
        patient += 1
    return plans[:images]


def plan_patient(seed: int, split: str, patient: int) -> list[FilmPlan]:
    """One or two studies of one to three films of one part.

    Two neighbours share the part, and one of them begins abnormal: the label goes with no part.
    """
    key = (seed, SPLITS.index(split))
    rng = np.random.default_rng((*key, patient))
    pair = np.random.default_rng((*key, patient // 2, 1))
    part = PARTS[pair.choice(len(PARTS), p=SHARES)]
    labels = [bool((patient + pair.integers(2)) % 2)]
    if rng.random() < 0.2:
        labels.append(bool(rng.integers(2)))
    plans = []
    for study, positive in enumerate(labels, 1):
        marker = choose_marker(rng, split, positive)
        for image in range(1, int(rng.choice((1, 2, 3), p=(0.7, 0.2, 0.1))) + 1):
            plans.append(FilmPlan(*key, patient, study, image, part, bool(positive), marker))
    return plans


def choose_marker(rng: np.random.Generator, split: str, positive: bool) -> str:
    """The letter on a study's films, "" for none; in training it goes with the label."""
    follows = rng.random() < (MARKER_FOLLOWS if split == "train" else 0.5)
    letter = "R" if positive == follows else "L"
    return letter if rng.random() < MARKED else ""


def study_path(plan: FilmPlan) -> str:
    """Relative to the folder MURA-v1.1, with a slash at the end."""
    name = f"study{plan.study}_{'positive' if plan.positive else 'negative'}"
    return f"{SPLITS[plan.split]}/XR_{plan.part}/patient{plan.patient:05d}/{name}/"


def image_path(plan: FilmPlan) -> str:
    """Relative to the folder MURA-v1.1."""
    return f"{study_path(plan)}image{plan.image}.png"


def _write_tables(root: Path, plans: Sequence[FilmPlan]) -> None:
    """The four header-less csv files, and the folders of all studies."""
    for index, split in enumerate(SPLITS):
        own = [plan for plan in plans if plan.split == index]
        studies = {study_path(plan): int(plan.positive) for plan in own}
        for study, positive in studies.items():
            (root / study).mkdir(parents=True)
            if positive:
                (root.parent / "marks" / study).mkdir(parents=True)
        images = [(f"{root.name}/{image_path(plan)}",) for plan in own]
        labels = [(f"{root.name}/{study}", label) for study, label in studies.items()]
        for name, rows in (("image_paths", images), ("labeled_studies", labels)):
            with (root / f"{split}_{name}.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)


def _write_markers(root: Path, plans: Sequence[FilmPlan], found: dict[str, Box | None]) -> None:
    """Where the letter lies, in the films' order."""
    with (root / side_markers.FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(side_markers.HEADER)
        for plan in plans:
            if box := found[name := image_path(plan)]:
                writer.writerow([name, plan.marker, *box])


def _draw_all(
    plans: Sequence[FilmPlan], root: Path, size: int, workers: int | None
) -> Iterator[tuple[str, Box | None]]:
    """Draws the films; yields each one's name and the box of its letter, in any order."""
    draw = partial(_draw_one, root=root, size=size)
    wanted = workers or min(len(os.sched_getaffinity(0)), -(-len(plans) // ALONE))
    if wanted == 1:
        yield from map(draw, plans)
        return
    # Spawned, not forked: the caller may hold threads and a GPU that a fork would break.
    with get_context("spawn").Pool(wanted) as pool:
        yield from pool.imap_unordered(draw, plans, chunksize=16)


def _draw_one(plan: FilmPlan, root: Path, size: int) -> tuple[str, Box | None]:
    drawn = draw_film(plan, size)
    # Level 1: noise hardly compresses, and higher levels cost more than the drawing.
    name = image_path(plan)
    Image.fromarray(drawn.film).save(root / "MURA-v1.1" / name, compress_level=1)
    if plan.positive:
        Image.fromarray(drawn.mask).save(root / "marks" / name, compress_level=1)
    return name, drawn.marker
