"""What the decision rests on: films and their twins, by hand and through the real commands."""

import csv
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pcamx.catalogue import measures
from pcamx.cli import main
from pcamx.data.phantom import draw_phantoms, temptation
from pcamx.data.phantom.twins import HEADER
from pcamx.data.prepare.store_builder import prepare
from pcamx.data.store import Film, Store, read_store
from pcamx.errors import PcamxError
from pcamx.evaluation.basis import Basis, all_figures, basis_figures, by_kind, erased_columns
from pcamx.evaluation.erasing import Found
from pcamx.evaluation.evaluate import evaluate
from pcamx.evaluation.twins import Twin, read_twins, twin_columns
from pcamx.metrics.basis import Change, Erased
from pcamx.report.page import render
from pcamx.report.tables import basis_table

FILMS = [Film(f"{i}.png", i % 2, f"p{i}", f"s{i}", "", "valid", 9, 9, 255, "") for i in range(4)]
FILM = np.array([-1.0, 2.0, -3.0, 0.5])
REMOVED: Change = "lesion_removed"


def by_hand(pairs: list[tuple[int, Change, float]]) -> dict[str, Any]:
    """Figures of pairs (film, change, the twin's margin)."""
    twins = [Twin(film, i, change, "") for i, (film, change, _) in enumerate(pairs)]
    margins = np.array([margin for _, _, margin in pairs])
    return basis_figures(twin_columns(FILM, margins, twins), FILMS, seed=0)


def test_flips_and_effects_by_hand() -> None:
    found = by_hand(
        [
            (1, "lesion_removed", -1.0),  # flips, effect 3
            (3, "lesion_removed", 0.25),  # stays, effect 0.25
            (0, "lesion_added", 4.0),  # flips, effect 5
            (2, "lesion_added", -2.0),  # stays, effect 1
            (0, "temptation_added", -0.5),  # stays, effect 0.5
            (1, "temptation_removed", -2.0),  # flips, effect 4
            (2, "temptation_added", -3.5),  # stays, effect -0.5
        ]
    )
    value = {key: figure["value"] for key, figure in found.items()}
    assert value["lesion_flips"] == 0.5 and found["lesion_flips"]["n"] == 2
    assert value["lesion_put_in_flips"] == 0.5 and found["lesion_put_in_flips"]["n"] == 2
    assert value["temptation_flips"] == pytest.approx(1 / 3)
    lesion, tempted = (3 + 0.25 + 5 + 1) / 4, (0.5 + 4 - 0.5) / 3
    assert value["lesion_effect"] == pytest.approx(lesion)
    assert value["temptation_effect"] == pytest.approx(tempted)
    assert value["share"] == pytest.approx(tempted / (tempted + lesion))
    assert found["share"]["low"] <= value["share"] <= found["share"]["high"]
    assert found["share"]["n"] == 4
    assert set(found) == {measure.key for measure in measures("basis") if measure.films == "twins"}


def test_what_the_films_do_not_allow_is_left_out() -> None:
    found = by_hand([(1, REMOVED, 1.0)])
    assert set(found) == {"lesion_flips", "lesion_effect"}
    # A film called normal has no decision that taking the lesion away could turn.
    assert set(by_hand([(0, REMOVED, -5.0)])) == {"lesion_effect"}


def test_a_film_of_two_temptations_counts_once() -> None:
    """Film 1: effects 4 and 1, one decision of two changes; film 3: effect 0.5, none."""
    found = by_hand(
        [
            (1, "temptation_removed", -2.0),
            (1, "temptation_removed", 1.0),
            (3, "temptation_added", 1.0),
        ]
    )
    assert found["temptation_effect"]["value"] == pytest.approx((2.5 + 0.5) / 2)
    assert found["temptation_flips"]["value"] == pytest.approx((0.5 + 0.0) / 2)
    assert found["temptation_flips"]["n"] == 2


def test_temptations_that_cancel_show_one_by_one() -> None:
    """A plate adds 2 logits and a cast takes 2: together nothing, each all that moves a film."""
    pairs: list[tuple[int, Change, str, float]] = [
        (1, "temptation_removed", "plate", 0.0),
        (3, "temptation_removed", "plate", -1.5),
        (1, "temptation_removed", "cast", 4.0),
        (3, "temptation_removed", "cast", 2.5),
        (1, "lesion_removed", "", 1.0),
    ]
    twins = [Twin(film, i, change, kind) for i, (film, change, kind, _) in enumerate(pairs)]
    margins = np.array([margin for *_, margin in pairs])
    columns = {kind: twin_columns(FILM, margins, some) for kind, some in by_kind(twins).items()}
    basis = Basis(twin_columns(FILM, margins, twins), columns)
    found = all_figures(basis, FILMS, seed=0)
    assert found["temptation_effect"]["value"] == found["share"]["value"] == 0
    plate, cast = found["by_temptation"]["plate"], found["by_temptation"]["cast"]
    assert plate["temptation_effect"]["value"] == 2 and cast["temptation_effect"]["value"] == -2
    assert plate["share"]["value"] == cast["share"]["value"] == pytest.approx(2 / 3)
    assert plate["temptation_flips"]["value"] == 1 and plate["temptation_flips"]["n"] == 2
    assert cast["temptation_flips"]["value"] == 0
    assert by_kind(twins[2:]) == {} and "by_temptation" not in by_hand([(1, REMOVED, 1.0)])
    page = render({"stages": {"1": {"basis": found}}}, [], [])
    assert "Each temptation by itself" in page and "stage 1, plate" in page
    assert "Each temptation" not in render({"stages": {"1": {"basis": cast}}}, [], [])


def test_erased_films_by_hand() -> None:
    """Films 1 and 3 of four, two draws each, and film 2 without a place; a margin is log odds."""
    film = np.log([9.0, 1 / 3])  # p .9 and .25
    lesion = np.log([1 / 4, 1 / 3])  # p .2 and .25
    other = np.log([[4.0, 1.0], [1 / 3, 3.0]])  # p .8 and .5; .25 and .75
    blur = Erased(film, lesion, other)
    none = blur._replace(lesion_M=blur.film_M, other_MD=np.stack([blur.film_M] * 2, axis=1))
    columns = erased_columns(Found({"blur": blur, "inpaint": none}, [0, 2]), [1, 2, 3], 4)
    assert np.isnan(columns["erase_blur"][[0, 2]]).all()
    assert columns["erase_blur"][[1, 3]] == pytest.approx([0.65 - 0.2, 0.5 - 0.25])
    found = basis_figures(columns, FILMS, seed=0)
    assert found["erase_blur"]["value"] == pytest.approx(0.35) and found["erase_blur"]["n"] == 2
    logit = (np.log(4.0) / 2 - np.log(1 / 4), (np.log(1 / 3) + np.log(3)) / 2 - np.log(1 / 3))
    assert found["erase_blur_logit"]["value"] == pytest.approx(sum(logit) / 2)
    # Film 1 alone is called abnormal: without its lesion normal, with one of two patches as well.
    assert found["erase_blur_flips"]["value"] == pytest.approx(1 - 0.5)
    assert found["erase_blur_flips"]["n"] == 1
    assert found["erase_inpaint"]["value"] == pytest.approx(0.0, abs=1e-12)


def test_through_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on plated films, whose twins are drawn, prepared and evaluated."""

    def pcamx(*words: object) -> None:
        monkeypatch.setattr("sys.argv", ["pcamx", *map(str, words)])
        assert main() in (None, 0)

    drawn = tmp_path / "drawn"
    pcamx(
        "phantom",
        drawn,
        "--train",
        4,
        "--valid",
        8,
        "--size",
        48,
        "--temptation",
        "plate",
        "--twins",
    )
    pcamx("prepare", drawn / "MURA-v1.1", "--out", tmp_path / "store")
    pcamx("prepare", drawn / "twins", "--out", tmp_path / "twins")
    films = read_store(tmp_path / "store").split("valid")
    store = read_store(tmp_path / "twins")
    twins = read_twins(store, films, store.split("valid"), {})
    assert len(twins) == 2 * len(films)
    for one in twins:
        film, twin = films[one.film], store.films[one.twin]
        lesion = one.change.startswith("lesion")
        assert (twin.label != film.label) == lesion and (one.temptation == "plate") != lesion
        assert twin.patient == film.patient
    pcamx("prepare", drawn / "MURA-v1.1", "--out", tmp_path / "jpeg", "--transcode", "jpeg")
    pcamx("prepare", drawn / "twins", "--out", tmp_path / "jpeg_twins", "--transcode", "jpeg")
    smaller = [read_store(tmp_path / name) for name in ("jpeg", "jpeg_twins")]
    assert read_twins(smaller[1], *(one.split("valid") for one in smaller), {}) == twins
    others = [film for film in films if film.path.startswith("nowhere")]
    with pytest.raises(PcamxError, match=r"twins\.csv: none of its films is measured here"):
        read_twins(store, others, store.split("valid"), {})
    table = store.root / "twins.csv"
    text = table.read_text()
    for row in ("a.png,b.png,lesion_moved,", ",b.png,lesion_removed,", ".,b.png,lesion_removed,"):
        table.write_text(f"{text}{row},\n")
        with pytest.raises(PcamxError, match=r"twins\.csv, line \d+: not a twin; expected film,"):
            read_twins(store, films, store.split("valid"), {})
    table.unlink()
    with pytest.raises(PcamxError, match=r"no twins\.csv in .*; prepare the twins/ that pcamx"):
        read_twins(store, films, store.split("valid"), {})


def test_twins_of_other_films_of_the_same_names_are_refused(tmp_path: Path) -> None:
    """Drawn by the same seed with another temptation, the films have the same names."""
    for kind in ("plate", "cast"):
        kinds, numbers = [temptation(kind)], {"train": 6, "valid": 4, "size": 48, "seed": 1}
        draw_phantoms(tmp_path / kind, **numbers, temptations=kinds, twins=True, workers=1)
    roots = [tmp_path / place for place in ("plate/MURA-v1.1", "plate/twins", "cast/twins")]
    for root in roots:
        prepare(root, tmp_path / "stores" / root.relative_to(tmp_path))
    plates, own, other = (
        read_store(tmp_path / "stores" / root.relative_to(tmp_path)) for root in roots
    )
    films = plates.split("valid")
    assert {film.path for film in films} == {row[0] for row in csv.reader(_twins_csv(other))}
    assert len(read_twins(own, films, own.split("valid"), plates.contents)) == 2 * len(films)
    said = r"twins\.csv, line 2: the twin of another valid/\S+ than the one measured here; name the"
    with pytest.raises(PcamxError, match=said):
        read_twins(other, films, other.split("valid"), plates.contents)
    # A table made by hand, or by an earlier pcamx, says nothing of what is in the files.
    rows = [row[:4] for row in csv.reader([",".join(HEADER), *_twins_csv(other)])]
    (other.root / "twins.csv").write_text("".join(f"{','.join(row)}\n" for row in rows))
    assert len(read_twins(other, films, other.split("valid"), plates.contents)) == 2 * len(films)


def _twins_csv(store: Store) -> list[str]:
    return (store.root / "twins.csv").read_text().splitlines()[1:]


def test_terminal_and_page_show_it_first() -> None:
    added = [(0, "temptation_added", 3.0), (2, "temptation_added", 3.0)]
    basis = by_hand([(1, "lesion_removed", -1.0), *added])
    report = {"stages": {"1": {"basis": basis}, "2": {"basis": basis}}}
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(basis_table(report))
    shown = console.export_text()
    assert "stage 1" in shown and "stage 2" in shown and "…" not in shown
    line = next(line for line in shown.splitlines() if line.startswith("temptation toggled: flips"))
    assert line.split()[3:] == ["1.00", "[0.16,", "1.00]"] * 2
    page = render(report, [], [])
    assert page.index("What the decision rests on") < page.index("Where the maps lie")
    assert "temptation toggled: flips" in page
    assert "What the decision rests on" not in render({"stages": {"1": {}}}, [], [])


def test_a_store_of_twins_that_is_not_there_is_said_before_the_measuring(
    finished_run: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(finished_run, tmp_path / "run"))
    with pytest.raises(PcamxError, match="nowhere: no such folder"):
        evaluate(copy, twins=tmp_path / "nowhere", track=pytest.fail)
