"""Drawn radiographs: MURA's layout, lesions where the masks say, a marker that misleads."""

import csv
import hashlib
import math
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import processes
import pytest
from PIL import Image

from pcamx.data.phantom import draw_phantoms
from pcamx.data.phantom.anatomy.bodies import PARTS, SHARES
from pcamx.data.phantom.film import draw_film
from pcamx.data.phantom.plan import FIRST_PATIENT, image_path, plan_films, study_path
from pcamx.data.phantom.write import MOST
from pcamx.errors import PcamxError

T = TypeVar("T")
TRAIN, VALID, SIZE = 40, 12, 96


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "set"
    draw_phantoms(out, train=TRAIN, valid=VALID, size=SIZE, seed=3, workers=1)
    return out


def _rows(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.reader(lines))


def _bytes(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_layout_is_muras(drawn: Path) -> None:
    assert sorted(path.name for path in drawn.iterdir()) == ["MURA-v1.1", "marks"]
    root = drawn / "MURA-v1.1"
    tables = {path.name for path in root.iterdir() if path.is_file()}
    kinds = ("image_paths", "labeled_studies")
    named = {f"{split}_{kind}.csv" for split in ("train", "valid") for kind in kinds}
    assert tables == named | {"markers.csv"}
    for split, images in (("train", TRAIN), ("valid", VALID)):
        paths = [row[0] for row in _rows(root / f"{split}_image_paths.csv")]
        assert len(paths) == len(set(paths)) == images
        on_disk = {path.relative_to(drawn).as_posix() for path in (root / split).rglob("*.png")}
        assert set(paths) == on_disk
        studies = dict(_rows(root / f"{split}_labeled_studies.csv"))
        assert {path.rsplit("/", 1)[0] + "/" for path in paths} == set(studies)
        for study, label in studies.items():
            top, folder, part, patient, name, end = study.split("/")
            assert (top, folder, end) == ("MURA-v1.1", split, "")
            assert part.removeprefix("XR_") in PARTS
            assert patient.removeprefix("patient").isdecimal() and len(patient) == 12
            assert name.endswith("_positive" if label == "1" else "_negative")


def test_the_default_films_are_those_of_before_the_temptations(drawn: Path) -> None:
    """Which films there are, their labels, and place and letter of every marker."""
    tables = sorted((drawn / "MURA-v1.1").glob("*.csv"))
    # The marker's column was called letter then.
    text = b"".join(t.read_bytes().replace(b"path,marker,", b"path,letter,") for t in tables)
    digest = hashlib.sha256(text).hexdigest()
    assert digest == "c7e1c94aa343e3cb4afbf3d7015bb82595c3ee6155aaa2697c035c8ac63bf5aa"


def test_every_abnormal_film_has_a_mask_and_no_other(drawn: Path) -> None:
    films = [Path(row[0]) for row in _rows(drawn / "MURA-v1.1" / "train_image_paths.csv")]
    for path in films:
        with Image.open(drawn / path) as film:
            assert film.mode == "L" and max(film.size) == SIZE and min(film.size) >= SIZE // 3
            size = film.size
        mark = drawn / "marks" / path.relative_to("MURA-v1.1")
        assert mark.exists() == ("_positive" in str(path))
        if mark.exists():
            with Image.open(mark) as mask:
                assert mask.mode == "L" and mask.size == size
                assert set(np.unique(np.asarray(mask))) == {0, 255}


def test_bytes_do_not_depend_on_the_workers(drawn: Path, tmp_path: Path) -> None:
    draw_phantoms(tmp_path / "two", train=TRAIN, valid=VALID, size=SIZE, seed=3, workers=2)
    assert _bytes(tmp_path / "two") == _bytes(drawn)


def test_the_seed_changes_the_films() -> None:
    one, other = (plan_films(seed, "train", 1)[0] for seed in (3, 4))
    same = replace(other, part=one.part, positive=one.positive, marker=one.marker)
    first, second = draw_film(one, 64).film, draw_film(same, 64).film
    assert first.shape != second.shape or np.mean(first != second) > 0.5


def test_a_larger_set_begins_with_the_smaller() -> None:
    assert plan_films(5, "train", 200)[:50] == plan_films(5, "train", 50)


@pytest.mark.parametrize("size", [128, 320])
def test_a_lesion_changes_the_film_within_its_mask_only(size: int) -> None:
    films = 120 if size == 128 else 40
    plans = [plan for plan in plan_films(0, "train", films) if plan.positive]
    inside, areas = [], []
    for plan in plans:
        ill, mask, *_ = draw_film(plan, size)
        healthy, nothing, *_ = draw_film(replace(plan, positive=False), size)
        assert ill.shape == healthy.shape == mask.shape and not nothing.any()
        energy = (ill.astype(np.float64) - healthy) ** 2
        inside.append(energy[mask > 0].sum() / energy.sum())
        areas.append(np.mean(mask > 0))
    assert np.mean(inside) >= 0.95 and min(inside) >= 0.85
    assert 0.002 < min(areas) and max(areas) < 0.03
    assert 0.01 < np.median(areas) < 0.017


def test_a_lesion_lies_on_bone_with_its_centre_well_inside_the_film() -> None:
    for plan in (plan for plan in plan_films(1, "train", 120) if plan.positive):
        healthy = draw_film(replace(plan, positive=False), 160).film.astype(np.float64)
        mask = draw_film(plan, 160).mask > 0
        ys, xs = np.nonzero(mask)
        assert 0.05 < ys.mean() / mask.shape[0] < 0.95
        assert 0.05 < xs.mean() / mask.shape[1] < 0.95
        assert healthy[mask].mean() > healthy.mean() + 10, image_path(plan)


def test_parts_and_labels_come_up_as_often_as_they_should() -> None:
    plans = plan_films(0, "train", 2000)
    shares = [np.mean([plan.part == part for plan in plans]) for part in PARTS]
    assert shares == pytest.approx(SHARES, abs=0.05)
    for part in PARTS:  # nobody can tell the label from the part
        labels = [plan.positive for plan in plans if plan.part == part]
        assert abs(np.mean(labels) - 0.5) < 0.08


def test_a_study_is_one_patients_one_label() -> None:
    studies: dict[tuple[int, int], set[tuple[str, bool, str]]] = {}
    images: dict[tuple[int, int], list[int]] = {}
    for plan in plan_films(0, "train", 1000):
        key = plan.patient, plan.study
        studies.setdefault(key, set()).add((study_path(plan), plan.positive, plan.marker))
        images.setdefault(key, []).append(plan.image)
    assert all(len(facts) == 1 for facts in studies.values())
    assert {len(numbers) for numbers in images.values()} == {1, 2, 3}
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in images.values())


def test_no_patient_is_in_both_splits() -> None:
    """Patients are counted up, and have a film each at least; five digits, as in MURA."""
    for split, first in FIRST_PATIENT.items():
        patients = list(dict.fromkeys(plan.patient for plan in plan_films(0, split, 400)))
        assert patients == list(range(first, first + len(patients))) and len(patients) < 400
    assert FIRST_PATIENT["train"] + MOST["train"] <= FIRST_PATIENT["valid"]
    assert FIRST_PATIENT["valid"] + MOST["valid"] <= 100_000


@pytest.mark.parametrize(("split", "chance"), [("train", 0.8), ("valid", 0.5)])
def test_the_marker_follows_the_label_in_training_only(split: str, chance: float) -> None:
    studies = {study_path(plan): plan for plan in plan_films(0, split, 6000)}
    for positive, letter in ((True, "R"), (False, "L")):
        marks = [plan.marker for plan in studies.values() if plan.positive == positive]
        letters = [mark for mark in marks if mark]
        assert abs(len(letters) - 0.4 * len(marks)) < 4 * math.sqrt(0.24 * len(marks))
        spread = math.sqrt(chance * (1 - chance) * len(letters))
        assert set(letters) == {"L", "R"}
        assert abs(letters.count(letter) - chance * len(letters)) < 4 * spread


def test_the_marker_is_all_that_its_letter_changes() -> None:
    plan = plan_films(0, "train", 1)[0]
    left, right = (draw_film(replace(plan, marker=letter), 128) for letter in "LR")
    ys, xs = np.nonzero(left.film != right.film)
    assert 0 < len(ys) and np.ptp(ys) < 0.12 * 128 and np.ptp(xs) < 0.12 * 128
    assert not (left.mask > 0)[ys, xs].any()
    assert max(left.film[ys, xs].max(), right.film[ys, xs].max()) > 180


@pytest.mark.parametrize("size", [64, 200])
def test_the_marker_is_all_that_its_box_holds(size: int) -> None:
    for plan in plan_films(2, "valid", 12):
        plain = draw_film(replace(plan, marker=""), size)
        lettered = draw_film(replace(plan, marker="R"), size)
        assert plain.marker is None and lettered.marker is not None
        left, top, right, bottom = lettered.marker
        ys, xs = np.nonzero(plain.film != lettered.film)
        assert left <= xs.min() and xs.max() < right and right - left < 0.12 * size
        assert top <= ys.min() and ys.max() < bottom and bottom - top < 0.12 * size
        assert np.ptp(xs) + 1 >= (right - left) / 2 and np.ptp(ys) + 1 >= (bottom - top) / 2
        assert not lettered.mask[top:bottom, left:right].any()


def test_markers_are_listed_in_the_films_order(drawn: Path) -> None:
    header, *rows = _rows(drawn / "MURA-v1.1" / "markers.csv")
    assert header == ["path", "marker", "left", "top", "right", "bottom"]
    plans = [*plan_films(3, "train", TRAIN), *plan_films(3, "valid", VALID)]
    expected = []
    for plan in plans:
        if plan.marker:
            box = draw_film(plan, SIZE).marker
            assert box is not None
            expected.append([image_path(plan), plan.marker, *map(str, box)])
    assert rows == expected and 5 < len(rows) < len(plans) - 5


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(PcamxError, match="there is something already; name a new folder") as error:
        draw_phantoms(tmp_path, train=1, valid=1, size=32, seed=0)
    assert "\n" not in str(error.value)
    with pytest.raises(PcamxError, match=r"mine\.txt"):
        draw_phantoms(tmp_path / "mine.txt", train=1, valid=1, size=32, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    draw_phantoms(tmp_path / "set", train=1, valid=1, size=32, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert len(list((tmp_path / "set").rglob("image*.png"))) >= 2


def test_a_broken_run_leaves_nothing(tmp_path: Path) -> None:
    def stop(work: Iterable[T], what: str, total: int) -> Iterator[T]:
        yield next(iter(work))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_phantoms(tmp_path / "set", train=4, valid=1, size=32, seed=0, track=stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("key", "value"),
    [("train", 0), ("train", 10**6), ("valid", -1), ("size", 31), ("seed", -1), ("workers", 0)],
)
def test_bad_numbers_are_named(tmp_path: Path, key: str, value: int) -> None:
    n = {"train": 2, "valid": 2, "size": 64, "seed": 0, "workers": 1} | {key: value}
    with pytest.raises(PcamxError, match=f"^{key} is {value}:"):
        draw_phantoms(
            tmp_path / "set",
            train=n["train"],
            valid=n["valid"],
            size=n["size"],
            seed=n["seed"],
            workers=n["workers"],
        )
    assert not list(tmp_path.iterdir())


def test_track_sees_every_film(tmp_path: Path) -> None:
    seen: list[int] = []

    def count(work: Iterable[T], what: str, total: int) -> Iterator[T]:
        for item in work:
            seen.append(total)
            yield item

    draw_phantoms(tmp_path / "set", train=5, valid=3, size=32, seed=0, track=count)
    assert seen == [8] * 8


def test_drawing_needs_no_torch() -> None:
    code = "import sys, pcamx.data.phantom; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ctrl_c_while_processes_are_launched_is_no_traceback(tmp_path: Path) -> None:
    """One that was launched by half complained of it."""
    code = (
        "import os, signal, sys; from multiprocessing import util; from pathlib import Path\n"
        "from pcamx.data.phantom import draw_phantoms\n"
        "launch, launched = util.spawnv_passfds, []\n"
        "def stopped(*given):\n"
        "    launched.append(launch(*given))\n"
        "    os.kill(os.getpid(), signal.SIGINT) if len(launched) == 2 else None\n"
        "    return launched[-1]\n"
        "util.spawnv_passfds = stopped\n"
        "try:\n"
        "    draw_phantoms(Path(sys.argv[1]), train=6, valid=4, size=32, seed=0, workers=2)\n"
        "except KeyboardInterrupt:\n"
        "    print('stopped')\n"
    )
    words = (sys.executable, "-c", code, tmp_path / "out")
    ended = processes.command(*words, cwd=processes.PROJECT)
    assert (ended.code, ended.text) == (0, "stopped\n") and not list(tmp_path.iterdir())
