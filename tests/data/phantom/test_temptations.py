"""Temptations and twins: how often, where, and that nothing else on a film changes."""

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pcamx.cli import main
from pcamx.data.canvas.side_markers import marker_names, read_markers
from pcamx.data.contents import sha256_of
from pcamx.data.phantom import draw_phantoms, temptation
from pcamx.data.phantom.film import Exposed, draw_film, expose
from pcamx.data.phantom.plan import FilmPlan, image_path, plan_films, study_path
from pcamx.data.phantom.temptations import KINDS
from pcamx.data.phantom.twins import pair_up
from pcamx.data.prepare.store_builder import prepare
from pcamx.data.store import read_store
from pcamx.errors import PcamxError

PLACED = ("plate", "cast", "collimation")
BLUR = 3  # pixels, at most, that the film carries a change beyond where it was made
SIZE = 128


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tempting") / "set"
    both = [temptation("plate"), temptation("letter")]
    numbers = {"train": 20, "valid": 10, "size": 64, "seed": 5}
    draw_phantoms(out, **numbers, temptations=both, twins=True, workers=1)
    return out


def _rows(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.reader(lines))


def _pcamx(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["pcamx", *words])
    return main()


def _exposed(plan: FilmPlan) -> Exposed:
    key = plan.seed, plan.split, plan.patient, plan.study, plan.image
    return expose(plan, SIZE, np.random.default_rng(key))


def _bare(films: int, split: str = "valid") -> list[FilmPlan]:
    return plan_films(9, split, films, ())


def _grown(mask_HW: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """All pixels within ``by`` of the mask, diagonally too."""
    height, width = mask_HW.shape
    wide = np.pad(mask_HW, by)
    steps = range(2 * by + 1)
    shifted = [wide[y : y + height, x : x + width] for y in steps for x in steps]
    return np.asarray(np.logical_or.reduce(shifted))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "letter"])
@pytest.mark.parametrize(
    ("split", "share", "follows", "abnormal", "normal"),
    [
        ("train", None, None, 0.9, 0.1),
        ("train", 0.4, 0.8, 0.32, 0.08),
        ("valid", None, None, 0.5, 0.5),
        ("valid", 0.4, 0.8, 0.2, 0.2),
    ],
)
def test_how_many_films_carry_a_temptation(
    kind: str,
    split: str,
    share: float | None,
    follows: float | None,
    abnormal: float,
    normal: float,
) -> None:
    plans = plan_films(0, split, 1500, [temptation(kind, share, follows)])
    studies = {study_path(plan): plan for plan in plans}.values()
    for positive, chance in ((True, abnormal), (False, normal)):
        carries = [kind in plan.temptations for plan in studies if plan.positive == positive]
        spread = (chance * (1 - chance) / len(carries)) ** 0.5
        assert abs(np.mean(carries) - chance) < 4 * spread
    assert not any(plan.marker for plan in plans)


def test_a_letters_share_and_how_often_it_follows() -> None:
    plans = plan_films(0, "train", 3000, [temptation("letter", 0.8, 1.0)])
    letters = Counter((plan.positive, plan.marker) for plan in plans)
    assert not letters[True, "L"] and not letters[False, "R"]
    assert (letters[True, "R"] + letters[False, "L"]) / 3000 == pytest.approx(0.8, abs=0.03)


def test_temptations_of_several_kinds_are_apart() -> None:
    asked = [temptation(kind, follows=0.5) for kind in ("plate", "cast")]
    plans = plan_films(0, "train", 3000, asked)
    count = Counter(plan.temptations for plan in plans)
    assert set(count) == {(), ("plate",), ("cast",), ("plate", "cast")}
    assert all(abs(number / 3000 - 0.25) < 0.05 for number in count.values())


def test_temptations_leave_the_films_as_they_are() -> None:
    bare = _bare(300, "train")
    for kind in KINDS:
        plans = plan_films(9, "train", 300, [temptation(kind)])
        assert [replace(plan, marker="", temptations=()) for plan in plans] == bare


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("kind", ["plate", "cast"])
def test_what_is_laid_on_changes_the_film_where_its_mask_says(kind: str, positive: bool) -> None:
    for plan in _bare(12):
        plain = _exposed(one := replace(plan, positive=positive))
        laid = _exposed(replace(one, temptations=(kind,)))
        beside = ~_grown(laid.tempting_HW[kind], BLUR)
        assert 0.5 < beside.mean() < 0.99
        assert (laid.clean_HW[beside] == plain.clean_HW[beside]).all()
        assert (laid.noise_HW == plain.noise_HW).all()
        more = (laid.clean_HW - plain.clean_HW)[laid.tempting_HW[kind]]
        # Grey levels of 255, on average over a thin bar, and over a cast with its thin ends.
        assert more.mean() > {"plate": 45, "cast": 14}[kind], image_path(plan)
        film, other = (draw_film(p, SIZE).film for p in (one, replace(one, temptations=(kind,))))
        assert (film[beside] == other[beside]).all()


def test_a_narrow_field_leaves_what_it_shows() -> None:
    for plan in _bare(12):
        plain = draw_film(plan, SIZE)
        cut = draw_film(replace(plan, temptations=("collimation",)), SIZE)
        dark = cut.temptations["collimation"] > 0
        assert 0.15 < dark.mean() < 0.75
        assert (cut.film[~dark] == plain.film[~dark]).all()
        assert len(set(cut.film[dark].tolist())) == 1 and cut.film[dark][0] < 10


def test_masks_show_what_a_narrow_field_leaves_to_be_seen() -> None:
    both = [draw_film(replace(p, temptations=("plate", "collimation")), 64) for p in _bare(12)]
    masks = [(film.temptations["plate"] > 0, film.temptations["collimation"] > 0) for film in both]
    assert not any((plate & dark).any() for plate, dark in masks)


def test_overexposure_is_one_curve_for_the_whole_film() -> None:
    for plan in _bare(12):
        plain, bright = _exposed(plan), _exposed(replace(plan, temptations=("exposure",)))
        contrast, lift = np.polyfit(plain.clean_HW.ravel(), bright.clean_HW.ravel(), 1)
        assert 0.7 <= contrast <= 0.8 and 50 <= lift <= 65
        expected = plain.clean_HW * contrast + lift
        np.testing.assert_allclose(bright.clean_HW, expected, atol=1e-3)
        assert (bright.noise_HW == plain.noise_HW).all()
        assert not draw_film(replace(plan, temptations=("exposure",)), SIZE).temptations


@pytest.mark.parametrize("kind", PLACED)
def test_a_temptation_keeps_away_from_the_lesion(kind: str) -> None:
    for plan in plan_films(4, "train", 60, ()):
        film = draw_film(replace(plan, positive=True, temptations=(kind,)), 96)
        tempting = film.temptations[kind] > 0
        assert tempting.any() and set(np.unique(film.temptations[kind])) == {0, 255}
        assert not (_grown(film.mask > 0, 3) & tempting).any(), image_path(plan)


def test_a_lesion_is_all_that_its_twin_lacks_whatever_tempts() -> None:
    for plan in _bare(12):
        tempting = replace(plan, temptations=KINDS[1:], marker="R")
        ill, healthy = (_exposed(replace(tempting, positive=label)) for label in (True, False))
        rows, columns = np.nonzero(_grown(ill.lesion_HW, 8 + BLUR))
        box = np.zeros_like(ill.lesion_HW)
        box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        assert box.mean() < 0.5
        assert (ill.clean_HW[~box] == healthy.clean_HW[~box]).all()
        assert (ill.clean_HW != healthy.clean_HW).any()
        assert (ill.noise_HW == healthy.noise_HW).all()
        assert not healthy.lesion_HW.any()
        for kind, mask_HW in ill.tempting_HW.items():
            assert (mask_HW == healthy.tempting_HW[kind]).all()


def test_twins_by_hand() -> None:
    plan = FilmPlan(1, 1, 60_007, 2, 1, "HAND", True, "", ("plate",))
    film = "valid/XR_HAND/patient60007/study2_positive/image1.png"
    lesion, letter, plate, cast = pair_up([plan], ("cast", "plate", "letter"))
    assert lesion.twin == replace(plan, positive=False)
    assert letter.twin == replace(plan, marker="R")
    assert plate.twin == replace(plan, temptations=())
    assert cast.twin == replace(plan, temptations=("plate", "cast"))
    healthy = film.replace("positive", "negative")
    assert lesion.listed() == (film, f"lesion/{healthy}", "lesion_removed", "")
    assert letter.listed() == (film, f"letter/{film}", "temptation_added", "letter")
    assert plate.listed() == (film, f"plate/{film}", "temptation_removed", "plate")
    assert cast.listed() == (film, f"cast/{film}", "temptation_added", "cast")
    (back, left) = pair_up([replace(plan, positive=False, marker="R")], ("letter",))
    assert back.change == "lesion_added" and back.twin.positive
    assert left.change == "temptation_removed" and left.twin.marker == "L"


def test_twins_on_disk_are_the_films_but_for_one_thing(drawn: Path) -> None:
    header, *rows = _rows(drawn / "twins" / "twins.csv")
    assert header == ["film", "twin", "change", "temptation", "film_sha256"]
    asked = [temptation("plate"), temptation("letter")]
    plans = {image_path(p): p for p in plan_films(5, "valid", 10, asked)}
    assert len(rows) == 3 * len(plans) and {row[0] for row in rows} == set(plans)
    on_disk = {
        p.relative_to(drawn / "twins").as_posix() for p in drawn.glob("twins/*/valid/**/*.png")
    }
    assert {row[1] for row in rows} == on_disk
    for film, path, change, kind, digest in rows:
        assert digest == sha256_of(drawn / "MURA-v1.1" / film)
        pairs = {twin.path: twin.twin for twin in pair_up([plans[film]], ("plate", "letter"))}
        expected = draw_film(pairs[path], 64)
        with Image.open(drawn / "twins" / path) as image:
            assert (np.asarray(image) == expected.film).all()
        mark = drawn / "twins" / "marks" / path
        assert mark.exists() == ("_positive" in path) == pairs[path].positive
        tempting = drawn / "twins" / "temptations" / "plate" / path
        assert tempting.exists() == ("plate" in pairs[path].temptations)
        if kind == "plate":
            assert tempting.exists() == (change == "temptation_added")
        if not kind:
            assert mark.exists() == (change == "lesion_added")


def test_masks_of_temptations_lie_beside_the_marks(drawn: Path) -> None:
    asked = [temptation("plate"), temptation("letter")]
    plans = [p for s, n in (("train", 20), ("valid", 10)) for p in plan_films(5, s, n, asked)]
    with_plate = {image_path(plan): plan for plan in plans if plan.temptations}
    home = drawn / "temptations" / "plate"
    assert {path.relative_to(home).as_posix() for path in home.rglob("*.png")} == set(with_plate)
    assert [path.name for path in home.parent.iterdir()] == ["plate"]
    for name, plan in with_plate.items():
        with Image.open(home / name) as image:
            assert (np.asarray(image) == draw_film(plan, 64).temptations["plate"]).all()


def test_bytes_of_twins_do_not_depend_on_the_workers(drawn: Path, tmp_path: Path) -> None:
    both = [temptation("letter"), temptation("plate")]
    draw_phantoms(
        tmp_path / "two",
        train=20,
        valid=10,
        size=64,
        seed=5,
        temptations=both,
        twins=True,
        workers=2,
    )
    files = [path.relative_to(drawn) for path in drawn.rglob("*") if path.is_file()]
    others = [p.relative_to(tmp_path / "two") for p in tmp_path.rglob("*") if p.is_file()]
    assert sorted(files) == sorted(others)
    assert all((drawn / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)


def test_prepare_makes_a_store_of_the_twins(drawn: Path, tmp_path: Path) -> None:
    found = prepare(drawn / "twins", tmp_path / "store", marks=drawn / "twins" / "marks", workers=1)
    rows = _rows(drawn / "twins" / "twins.csv")[1:]
    films = {film.path: film for film in read_store(tmp_path / "store").films}
    assert list(films) == [row[1] for row in rows] and found.quarantined == 0
    assert {film.split for film in films.values()} == {"valid"}
    assert found.copies.contrary and found.notes == ()  # a twin is a copy that has another label
    for film in films.values():
        assert film.label == ("_positive" in film.path) == bool(film.mark)
        assert film.patient in film.path and film.part in film.path


def test_the_command_takes_several_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ["--train", "4", "--valid", "2", "--size", "48"]
    kinds_asked = ["--temptation", "plate,exposure", "--temptation", "cast"]
    asked = [*kinds_asked, "--share", "1", "--follows", "1", "--twins"]
    assert _pcamx(monkeypatch, "phantom", str(tmp_path / "set"), *small, *asked) == 0
    kinds = {path.name for path in (tmp_path / "set" / "twins").iterdir() if path.is_dir()}
    assert kinds == {"lesion", "plate", "exposure", "cast", "marks", "temptations"}
    _, *rows = _rows(tmp_path / "set" / "MURA-v1.1" / "markers.csv")
    masks = tmp_path / "set" / "temptations"
    for kind in ("plate", "cast"):
        boxes = {path: box for path, name, *box in rows if name == kind}
        assert len(boxes) == len([*(masks / kind).rglob("*.png")]) > 0
        for path, box in boxes.items():
            with Image.open(masks / kind / path) as mask:
                ys, xs = np.nonzero(np.asarray(mask))
            assert list(map(int, box)) == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    assert (
        _pcamx(monkeypatch, "phantom", str(tmp_path / "bare"), *small, "--temptation", "none") == 0
    )
    assert _rows(tmp_path / "bare" / "MURA-v1.1" / "markers.csv")[1:] == []
    assert {path.name for path in (tmp_path / "bare").iterdir()} == {"MURA-v1.1", "marks"}


def test_batches_are_balanced_by_every_temptation(tmp_path: Path) -> None:
    """As markers.csv has them: by the letter alone, an exposure would go on telling the label."""
    kinds = [temptation(kind, 0.5) for kind in KINDS]
    draw_phantoms(tmp_path / "set", train=60, valid=4, size=32, seed=1, temptations=kinds)
    prepare(tmp_path / "set" / "MURA-v1.1", tmp_path / "store", workers=1)
    store = read_store(tmp_path / "store")
    films = store.split("train")
    plans = {image_path(plan): plan for plan in plan_films(1, "train", 60, kinds)}
    named = marker_names(store, films)
    assert {name for names in named for name in names} == {"L", "R", *KINDS} - {"letter"}
    for film, names in zip(films, named, strict=True):
        plan = plans[film.path]
        assert set(names) == {plan.marker, *plan.temptations} - {""}
    # What is everywhere, or nowhere in particular, has no box.
    boxes = read_markers(store, films, 320)
    objects = {"L", "R", "plate", "cast"}
    assert [len(found) for found in boxes] == [len(objects.intersection(n)) for n in named]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--temptation", "none", "plate"], "name none alone"),
        (["--temptation", "none", "--temptation", "plate"], "name none alone"),
        (["--temptation", ""], "name a kind, or none"),
        (["--temptation", "ring"], "temptation is 'ring'"),
        (["--share", "1.5"], "share is 1.5"),
        (["--follows", "nan"], "follows is nan"),
    ],
)
def test_mistakes_are_named(
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _pcamx(monkeypatch, "phantom", str(tmp_path / "set"), *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_share_is_a_number_from_0_to_1() -> None:
    with pytest.raises(PcamxError, match=r"^share is -0\.1: it must be from 0 to 1"):
        temptation("plate", -0.1)
