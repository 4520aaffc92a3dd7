"""FracAtlas as it is published: its films, its marks, and a test split that nobody looks at."""

import csv
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import processes
import pytest
import yaml
from PIL import Image

from pcamx import cli
from pcamx.data.canvas.side_markers import strata_of
from pcamx.data.feed.strata import strata
from pcamx.data.prepare.store_builder import prepare
from pcamx.data.sets import fracatlas
from pcamx.data.sets.fracatlas import read_fracatlas, split_of, test_blocks
from pcamx.data.store import read_store
from pcamx.errors import PcamxError
from pcamx.evaluation import evaluate
from pcamx.marking.check import check
from pcamx.run.folder import RunFolder

test_blocks.__test__ = False  # type: ignore[attr-defined]

HEADER = "image_id,hand,leg,hip,shoulder,mixed,hardware,multiscan,fractured,fracture_count".split(
    ","
)
TRAIN, VALID, TEST = range(20, 36), range(200, 208), range(700, 706)
COPY, ODD = 261, 702
"""A number whose file is in the test split as well; one filed as fractured and labelled normal."""
FOLDER = ("Non_fractured", "Fractured")


def name(number: int) -> str:
    return f"IMG{number:07}.jpg"


def row(number: int) -> list[object]:
    """Odd numbers are fractured; hand and shoulder in turn, every fourth film shows both."""
    hand, shoulder = int(number % 4 < 2 or number % 4 == 3), int(number % 4 > 1)
    label = number % 2
    mixed = int(hand and shoulder)
    return [name(number), hand, 0, 0, shoulder, mixed, 0, 0, label, label]


def path(root: Path, number: int) -> Path:
    return root / "images" / FOLDER[number == ODD or number % 2] / name(number)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """31 films of 40 x 32 px; the left half is brighter where there is a fracture."""
    root = tmp_path_factory.mktemp("fracatlas") / "FracAtlas"
    numbers = [*TRAIN, *VALID, COPY, *TEST]
    rng = np.random.default_rng(5)
    for number in numbers:
        file = path(root, number)
        file.parent.mkdir(parents=True, exist_ok=True)
        grey = rng.integers(0, 120, (32, 40), np.uint8)
        grey[:, :20] += 60 * np.uint8(number % 2)
        Image.fromarray(grey).save(file)
    write_table(root, [HEADER, *map(row, numbers)])
    write_marks(root / fracatlas.MARKS, [n for n in numbers if n % 2 or n == ODD])
    return root


def write_table(root: Path, rows: list[list[Any]]) -> None:
    with (root / "dataset.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def write_marks(file: Path, numbers: list[int]) -> None:
    """The same rectangle of 8 x 6 pixels on each."""
    square = [4, 10, 12, 10, 12, 16, 4, 16]
    images = [{"id": n, "width": 40, "height": 32, "file_name": name(n)} for n in numbers]
    drawn = [
        {"id": n, "image_id": n, "category_id": 0, "segmentation": [square], "bbox": [4, 10, 8, 6]}
        for n in numbers
    ]
    kinds = [{"id": 0, "name": "fractured"}]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": images, "annotations": drawn, "categories": kinds}))


@pytest.fixture
def copy(release: Path, tmp_path: Path) -> Path:
    shutil.copytree(release, tmp_path / "FracAtlas")
    return tmp_path / "FracAtlas"


def test_the_test_blocks_are_those_of_the_definition() -> None:
    text = " ".join(map(str, sorted(test_blocks())))
    assert len(test_blocks()) == 39 and test_blocks() < set(range(220))
    assert hashlib.sha256(text.encode()).hexdigest() == (
        "97ff300f551448f9cf8aed61dc1daf0302723027271a9808d35d0f61c30ddfbc"
    )


def test_the_splits_of_the_blocks_by_hand() -> None:
    of = {block: split_of(block) for block in (0, 1, 34, 35, 36, 37, 40, 100, 120, 215, 219)}
    assert [b for b in of if of[b] == "test"] == [35, 37, 100, 120]  # 35, 100, 120 are multiples
    assert [b for b in of if of[b] == "valid"] == [0, 40, 215]
    assert [b for b in of if of[b] == "train"] == [1, 34, 36, 219]
    assert Counter(map(split_of, range(220))) == {"train": 145, "valid": 36, "test": 39}


def test_hardware_counts_as_a_marker_without_a_table_of_markers(copy: Path, tmp_path: Path) -> None:
    """In the store that points at the release, and in one that holds its films anew."""
    numbers = [*TRAIN, *VALID, COPY, *TEST]
    rows = [row(number) for number in numbers]
    with_plate = {name(n) for n in (20, 21, 25, 202)}
    for listed in rows:
        listed[HEADER.index("hardware")] = int(listed[0] in with_plate)
    write_table(copy, [HEADER, *rows])
    for folder, transcode in (("as_it_is", None), ("anew", "jpeg")):
        prepare(copy, tmp_path / folder, transcode=transcode, workers=1)  # type: ignore[arg-type]
        store = read_store(tmp_path / folder)
        films = store.films
        found = dict(zip((Path(f.path).stem for f in films), strata_of(store, films), strict=True))
        plated = {stem for stem, stratum in found.items() if stratum == "hardware"}
        assert plated == {Path(film).stem for film in with_plate}
        assert set(found.values()) == {"hardware", "none"}
    config = SimpleNamespace(data=SimpleNamespace(balanced="markers"))
    assert len(strata(config, store)) == 2  # type: ignore[arg-type]
    # What is said in markers.csv counts instead.
    (copy / "markers.csv").write_text("path,marker,left,top,right,bottom\n")
    as_it_is = read_store(tmp_path / "as_it_is")
    assert not any(strata_of(as_it_is, as_it_is.films))


def test_entries(release: Path) -> None:
    entries = {entry.path.rpartition("/")[2]: entry for entry in read_fracatlas(release)}
    assert len(entries) == 31
    first, odd = entries[name(21)], entries[name(ODD)]
    assert (first.path, first.label, first.part) == (f"images/Fractured/{name(21)}", 1, "hand")
    assert (first.patient, first.study, first.split) == ("block 1", "IMG0000021", "train")
    assert first.where == f"{release / 'dataset.csv'}, line 3" and not first.left_out
    assert (odd.path, odd.label, odd.split) == (f"images/Fractured/{name(ODD)}", 0, "test")
    assert [entries[name(n)].part for n in (200, 202, 203)] == ["hand", "shoulder", "mixed"]
    assert {entries[name(n)].split for n in VALID} == {"valid"}
    assert entries[name(COPY)].left_out == "the same file as a film of the test split"


def test_no_copy_is_of_a_film_of_its_own_split() -> None:
    for split, numbers in fracatlas._COPIES.items():
        assert all(split_of(n // 20) not in ("test", split) for n in numbers)


Pcamx = Callable[..., str]


@pytest.fixture
def pcamx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Pcamx:
    """``pcamx(words...)``: what the command prints, started in ``tmp_path``."""

    def run(*words: object) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["pcamx", *map(str, words)])
        assert cli.main() == 0
        return capsys.readouterr().out

    return run


def test_prepare_as_a_user_does(release: Path, tmp_path: Path, pcamx: Pcamx) -> None:
    text = pcamx("prepare", release, "--out", "store")
    for line in (
        "train: 16 films, 8 of them abnormal",
        "valid: 8 films, 4 of them abnormal",
        "test: 6 films, 3 of them abnormal",
        "marked: 15;",
        "1 marks on films labelled normal, not used",
        "1 film left out, see store/quarantine.csv",
    ):
        assert line in text
    store = read_store(tmp_path / "store")
    assert all(split_of(int(f.study[3:]) // 20) == f.split for f in store.films)
    with Image.open(tmp_path / "store/marks/images/Fractured" / f"{name(21)}.png") as image:
        assert (image.getpixel((8, 13)), image.getpixel((20, 13))) == (255, 0)


def test_other_marks_take_the_place_of_its_own(release: Path, tmp_path: Path) -> None:
    write_marks(tmp_path / "mine.json", [21, 23])
    marks = tmp_path / "mine.json"
    assert prepare(release, tmp_path / "store", marks=marks, workers=1).marks.used == 2


def test_test_films_kept_elsewhere(copy: Path, tmp_path: Path, pcamx: Pcamx) -> None:
    for number in TEST:
        path(copy, number).unlink()
    text = pcamx("prepare", copy, "--out", "store")
    assert f"6 films of the test split listed, but not in {copy}" in text
    assert "train: 16 films" in text and "test:" not in text
    rows = list(csv.reader((tmp_path / "store/quarantine.csv").open()))[1:]
    assert Counter(reason for _, reason in rows) == {
        "missing": 6,
        "the same file as a film of the test split": 1,
    }


GOOD = row(20)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([HEADER[1:], GOOD[1:]], "dataset.csv, line 1: column image_id missing"),
        ([HEADER, GOOD[:-1]], "line 2: 10 fields expected, found 9"),
        ([HEADER, GOOD, ["IMG21.jpg", *GOOD[1:]]], "line 3: image_id is 'IMG21.jpg'; write it as"),
        ([HEADER, GOOD, ["../" + name(21), *GOOD[1:]]], "line 3: image_id is"),
        ([HEADER, [*GOOD[:8], "yes", 0]], "line 2: fractured is 'yes'; write 0 or 1"),
        ([HEADER, [GOOD[0], "", *GOOD[2:]]], "line 2: hand is ''; write 0 or 1"),
        ([HEADER, GOOD, GOOD], r"line 3: IMG0000020.jpg is listed twice \(.*line 2\)"),
        ([HEADER], "dataset.csv: no films listed"),
    ],
)
def test_a_wrong_csv_is_named(
    release: Path, tmp_path: Path, rows: list[list[Any]], message: str
) -> None:
    (tmp_path / "images/Fractured").mkdir(parents=True)
    write_table(tmp_path, rows)
    with pytest.raises(PcamxError, match=message) as caught:
        prepare(tmp_path, tmp_path / "store")
    assert "\n" not in str(caught.value) and not (tmp_path / "store").exists()


def test_the_contact_sheet_of_marks_shows_no_test_film(copy: Path, tmp_path: Path) -> None:
    prepare(copy, tmp_path / "store", workers=1)
    for number in TEST:
        path(copy, number).write_text("decoding this fails")
    found = check(copy / fracatlas.MARKS, tmp_path / "store", tmp_path / "sheet.png")
    assert found.splits == {"train": 8, "valid": 4, "test": 3} and found.shown == 12


def test_only_evaluate_on_test_decodes_test_films(copy: Path, tmp_path: Path, pcamx: Pcamx) -> None:
    """Training and validation do without these films; asked for, they are measured apart."""
    prepare(copy, tmp_path / "store", workers=1)
    tree = {
        "run": {"folder": "run"},
        "data": {"store": str(tmp_path / "store"), "canvas": 32, "threads": 1, "marked": 6},
        "stages": {f"stage{n}": {"epochs": 1} for n in (1, 2, 3)},
        "runtime": {"batch_size": 8, "precision": "fp32"},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    kept = {number: path(copy, number).read_bytes() for number in TEST}
    for number in TEST:
        path(copy, number).unlink()
    words = (processes.TRAIN, "--stage", "1", "--config", "run.yaml")
    processes.python(*words, cwd=tmp_path).ok()
    run = tmp_path / "run"
    evaluate.evaluate(run)
    before = {file: file.read_bytes() for file in run.iterdir() if file.is_file()}
    with pytest.raises(PcamxError, match=name(700)):
        evaluate.evaluate(run, split="test")
    assert not (run / "on_test").exists()
    for number, data in kept.items():
        path(copy, number).write_bytes(data)
    said = pcamx("evaluate", "run", "--split", "test")
    assert f"measured on the test split of {tmp_path / 'store'}" in said
    assert "run/on_test/report.html" in said
    assert before == {file: file.read_bytes() for file in run.iterdir() if file.is_file()}
    reports = [json.loads((f / "report.json").read_text()) for f in (run, run / "on_test")]
    assert [r["data"]["split"] for r in reports] == ["valid", "test"]
    assert [r["stages"]["1"]["classification"]["auroc"]["n"] for r in reports] == [8, 6]
    assert "from the test split" in (run / "on_test/report.html").read_text()
    with (run / "on_test/films.csv").open() as file:
        assert {Path(r["path"]).name for r in csv.DictReader(file)} == set(map(name, TEST))


def test_where_reports_go(tmp_path: Path) -> None:
    run, other = Path("run"), tmp_path / "other"
    where = RunFolder(run).measured_on
    folders = {where(o, s).path for o in (None, other) for s in ("valid", "test")}
    assert folders == {run, run / "on_test", run / "on_other", run / "on_other/on_test"}
    with pytest.raises(PcamxError, match="rename this store"):
        where(tmp_path / "test")


def test_the_wheel_holds_the_test_blocks(tmp_path: Path) -> None:
    project, out = tmp_path / "project", tmp_path / "out"
    out.mkdir()
    for part in ("pcamx", "kernels"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(processes.PROJECT / part, project / part, symlinks=True, ignore=ignored)
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(processes.PROJECT / part, project)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=project, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        text = packed.read("pcamx/data/sets/fracatlas_test_blocks.txt").decode()
    assert set(map(int, text.split())) == test_blocks()
