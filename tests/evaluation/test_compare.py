"""`pcamx compare`: differences by hand, bad input, and two runs with real networks."""

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measured_runs import write_run
from PIL import Image, ImageOps

from pcamx import config as configs
from pcamx.catalogue import measures
from pcamx.compare import compare
from pcamx.compare.differences import auroc_difference, basis_difference, difference
from pcamx.compare.measured import names, read_run
from pcamx.compare.pictures import FILMS, choose
from pcamx.errors import PcamxError
from pcamx.evaluation.film_table import FilmTable, read_films
from pcamx.metrics import Difference
from pcamx.report import comparison_rows
from pcamx.report.comparison_rows import Gap
from pcamx.report.viewer.page import read
from pcamx.run.folder import RunFolder
from pcamx.run.report import read_report, write_report
from pcamx.run.weights import load_weights, save_weights


def test_differences_by_hand(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", [1, 1, 0, 1], [0.9, 0.1, 0.8, 0.2])
    other = write_run(tmp_path / "other", [0, 1, 0, 0], [0.1, 0.2, 0.9, 0.3])
    tables = [read_films(folder / "films.csv") for folder in (one, other)]
    found = difference(tables[:1], tables[1:], "stage 1", "positive_cam", "pointing")
    # Patients p0 and p1 gain 1/2 each, so every draw of patients does.
    assert found is not None and found[:3] == (0.5, 0.5, 0.5) and found.n == 4
    assert difference(tables[:1], tables[1:], "stage 1", "cam", "pointing") is None
    # All four pairs in order, against those of the film with 0.9 alone.
    gap = auroc_difference(tables[0], tables[1], "stage 1")
    assert gap is not None and gap.value == pytest.approx(1.0 - 0.5)
    both = difference(tables, tables[1:] * 2, "stage 1", "positive_cam", "pointing")
    assert both is not None and both.value == 0.25  # the mean over two seeds


BASIS: list[dict[str, list[float | None]]] = [
    {
        "lesion_effect": [1, 2, 3, 4],
        "temptation_effect": [1, 1, 1, 1],
        "lesion_flips": [1, 0, None, None],
        "erase_blur": [0.5, 0.5, None, 0.8],
    },
    {
        "lesion_effect": [0, 1, 2, 3],
        "temptation_effect": [3, 3, 3, 3],
        "lesion_flips": [None, 0, 0, 1],
        "erase_blur": [0.5, 0.5, 0.5, 0.5],
    },
]


def test_differences_of_what_decisions_rest_on_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [
        write_run(tmp_path / name, [0, 0, 0, 0], basis=basis)
        for name, basis in zip(("one", "first"), BASIS, strict=True)
    ]
    one, first = (read_films(folder / "films.csv") for folder in runs)
    by_key = {measure.key: measure for measure in measures("basis")}

    def minus(key: str, *seeds: FilmTable) -> Difference | None:
        others = [first] * max(1, len(seeds))
        return basis_difference(list(seeds) or [one], others, "stage 1", by_key[key])

    monkeypatch.setattr("pcamx.metrics.bootstrap.FEWEST", 1)
    effect = minus("lesion_effect")
    assert effect is not None and effect.p == pytest.approx(2 / 10_001)  # what Holm's needs
    assert effect is not None and effect[:3] == pytest.approx((1, 1, 1)) and effect.n == 4
    flips = minus("lesion_flips")  # of other films in each run
    assert flips is not None and flips.value == pytest.approx(1 / 2 - 1 / 3) and flips.n == 4
    share = minus("share")
    assert share is not None and share.value == pytest.approx(1 / (1 + 2.5) - 3 / (3 + 1.5))
    assert minus("erase_blur") is None  # the first run erased a film more
    assert minus("temptation_flips") is None  # in neither
    seeds = minus("lesion_flips", one, first)
    assert seeds is not None and seeds.value == pytest.approx((1 / 2 - 1 / 3) / 2)
    found = compare(runs[::-1], tmp_path / "out").gaps["one"]["stage 1"]
    assert found["share"].value == pytest.approx(share.value)
    assert found["lesion_flips"].value == pytest.approx(1 / 6) and "erase_blur" not in found
    page = (tmp_path / "out/compare.html").read_text()
    assert "+0.167" in page and "lesion away: flips" in page and "share" in page


def test_what_is_written(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "first", [0, 0, 0, 0]),
        write_run(tmp_path / "better", [1, 1, 1, 1]),
        write_run(tmp_path / "elsewhere", [1, 1, 1], first=2),
    ]
    found = compare(runs, tmp_path / "out")
    gap = found.gaps["better"]["stage 1, positive CAM"]["pointing"]
    assert (gap.value, gap.low, gap.high, gap.n, gap.clear) == (
        1.0,
        1.0,
        1.0,
        4,
        False,
    )  # of two patients
    assert "elsewhere" not in found.gaps
    said = "elsewhere and first have no differences: measured on 3 films, 2 of them among the oth"
    assert any(said in remark for remark in found.remarks)
    assert any("first: " in r and "holds a report and no networks" in r for r in found.remarks)
    facts = json.loads((tmp_path / "out/compare.json").read_text())
    assert facts["first"] == "first" and list(facts["runs"]) == ["first", "better", "elsewhere"]
    assert facts["differences"]["better"]["stage 1, positive CAM"]["pointing"]["value"] == 1.0
    page = (tmp_path / "out/compare.html").read_text()
    assert "+1.000" in page and said in page and "No film was drawn" in page
    compare(runs[:2], tmp_path / "out")  # its own folder is replaced
    assert "elsewhere" not in (tmp_path / "out/compare.html").read_text()


def test_runs_that_share_no_stage_are_compared_by_their_last(tmp_path: Path, capsys: Any) -> None:
    """As a run that goes on from one without stage 3 is."""
    first = write_run(tmp_path / "first", [0, 0, 0, 0], [0.5, 0.4, 0.5, 0.6], stages=(1, 2))
    marked = write_run(tmp_path / "marked", [1, 1, 1, 1], [0.9, 0.1, 0.8, 0.2], stages=(3,))
    both = write_run(tmp_path / "both", [1, 1, 1, 1], stages=(2, 3))
    found = compare([first, marked, both], tmp_path / "out")
    gaps = found.gaps["marked"]
    assert list(gaps) == ["stage 3 against stage 2", "stage 3 against stage 2, positive CAM"]
    assert gaps["stage 3 against stage 2"]["auroc"].value == pytest.approx(1.0 - 0.5)
    assert gaps["stage 3 against stage 2, positive CAM"]["pointing"].value == 1.0
    assert list(found.gaps["both"]) == ["stage 2, positive CAM"]
    assert "stage 3 against stage 2" in (tmp_path / "out/compare.html").read_text()
    comparison_rows.print_comparison(found)
    assert "stage 3 against stage 2" in capsys.readouterr().out


def test_films_of_the_same_names_that_are_others(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, [0, 1, 0, 0]) for name in ("first", "same", "other")]
    for run, content in zip(runs, ("a", "a", "b"), strict=True):
        folder = RunFolder(run)
        report = read_report(folder)
        write_report(folder, report | {"data": report["data"] | {"content": content}})
    found = compare(runs, tmp_path / "out")
    assert list(found.gaps) == ["same"]
    tried = [r.split(":")[0] for r in found.remarks if r.startswith("Without maps of ")]
    assert tried == ["Without maps of first", "Without maps of same"]
    said = "other and first have no differences: films of the same name are others."
    assert said in found.remarks


def test_other_twins_of_the_same_films_are_not_compared(tmp_path: Path) -> None:
    """Films without a plate or a cast are the same ones; how they react to either is another."""
    basis: list[dict[str, list[float | None]]] = [
        {"temptation_flips": [k, k, 0, 0], "erase_blur": [0.5, k, 0.5, 0.5]} for k in (0, 1, 1)
    ]
    runs = [
        write_run(tmp_path / name, [0, 1, 0, 0], basis=found)
        for name, found in zip(("first", "same", "other"), basis, strict=True)
    ]
    for run, twins in zip(runs, ("plates", "plates", "casts"), strict=True):
        folder = RunFolder(run)
        report = read_report(folder)
        write_report(folder, report | {"data": report["data"] | {"twins": twins}})
    found = compare(runs, tmp_path / "out")
    assert found.gaps["same"]["stage 1"]["temptation_flips"].value == 0.5
    assert set(found.gaps["other"]["stage 1"]) == {"erase_blur"}
    said = "other and first have no differences of twins: they were measured on others."
    assert [remark for remark in found.remarks if " and first have " in remark] == [said]


def test_names_tell_runs_apart() -> None:
    assert names([Path("/a/base/seed0"), Path("/a/paper/seed0")]) == ["base/seed0", "paper/seed0"]
    assert names([Path("/a/base"), Path("/a/paper")]) == ["base", "paper"]
    assert names([Path("/a/\udce9"), Path("/a/paper")]) == [r"\udce9", "paper"]


def test_a_report_with_its_own_films(tmp_path: Path) -> None:
    one, two = (write_run(tmp_path / name, [0, 1]) for name in ("one", "two"))
    report = json.loads((two / "report.json").read_text())
    digest = hashlib.sha256((two / "films.csv").read_bytes()).hexdigest()
    (two / "report.json").write_text(json.dumps(report | {"films_sha256": digest}))
    assert read_run(two, "two").report["films_sha256"] == digest


def test_bad_input(tmp_path: Path) -> None:
    one, two = (write_run(tmp_path / name, [0, 1]) for name in ("one", "two"))
    out = tmp_path / "out"

    def refused(message: str, *runs: Path, out: Path = out) -> None:
        with pytest.raises(PcamxError, match=message):
            compare(runs, out)

    refused("two runs or more", one)
    refused("one/../one: given twice", one, two, tmp_path / "one/../one")
    refused("nothing: not a run's folder", one, tmp_path / "nothing")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/config.yaml").touch()
    refused("raw: not evaluated yet; run pcamx evaluate .*raw$", one, tmp_path / "raw")
    refused("something other than a comparison; choose another --out", one, two, out=tmp_path)
    refused("films.csv is a file", one, two, out=one / "films.csv")
    report = json.loads((two / "report.json").read_text())
    (two / "report.json").write_text(json.dumps(report | {"format": 2}))
    refused("format 2, this pcamx .* reads format 1; run pcamx evaluate", one, two)
    (two / "report.json").write_text("{")
    refused("report.json: damaged", one, two)
    (two / "report.json").write_text(json.dumps(report | {"films_sha256": "0" * 64}))
    refused(
        "two/report.json and films.csv are of different evaluations, .* evaluate .*two", one, two
    )
    (two / "report.json").write_text(json.dumps(report))
    text = (two / "films.csv").read_text()
    (two / "films.csv").write_text(text.replace("p0,", "p0,,", 1))
    refused(r"films.csv: row 2: .*; run pcamx evaluate", one, two)
    (two / "films.csv").write_text(text.replace("pointing", "pointed"))
    refused("its columns are not those of this version", one, two)
    assert not out.exists()


def test_half_of_the_films_are_missed_ones(tmp_path: Path) -> None:
    hits = [1.0] * 12 + [0.0] * 6
    runs = [write_run(tmp_path / "one", hits), write_run(tmp_path / "two", [1.0] * 18)]
    chosen = choose([read_run(folder, folder.name) for folder in runs])
    assert len(chosen) == len(set(chosen)) == FILMS
    assert sum(int(film[1:]) >= 12 for film in chosen) == FILMS // 2
    few = write_run(tmp_path / "few", [1.0] * 17 + [0.0])
    chosen = choose([read_run(folder, folder.name) for folder in (few, runs[1])])
    assert len(chosen) == FILMS and chosen[0] == "f17"


def test_two_real_runs(evaluated_run: Path, tmp_path: Path, capsys: Any) -> None:
    other = tmp_path / "other"
    shutil.copytree(evaluated_run, other)
    config = configs.load(other / "config.yaml")
    changed = configs.changed(config, {"attention.omega": 5.0})
    (other / "config.yaml").write_text(configs.dump(changed))
    with pytest.raises(PcamxError, match=r"config\.yaml: changed since stage 1 was trained \(att"):
        compare([evaluated_run, other], tmp_path / "out")
    for path in other.glob("*/weights.pt"):
        weights = load_weights(path)
        save_weights(path, dataclasses.replace(weights, config=configs.as_tree(changed)))
    found = compare([evaluated_run, other], tmp_path / "out")
    assert found.remarks == []
    gaps = [gap for by_key in found.gaps["other"].values() for gap in by_key.values()]
    assert gaps and all((gap.value, gap.low, gap.high) == (0, 0, 0) for gap in gaps)
    assert found.settings["other"] == ["attention.omega: 5.0 here, 10.0 there"]
    with Image.open(tmp_path / "out/figure2.png") as picture:
        assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    page = (tmp_path / "out/compare.html").read_text()
    assert page.count("<figure") == len(re.findall(r"data:image/png", page)) - 1 > 0
    assert set(re.findall(r"(?:src|href)=\"(?!data:|#)([^\"]*)", page)) == {"films.html"}
    for table in re.findall(r"<table>.*?</table>", page, re.DOTALL):
        spans = set(re.findall(r'colspan="(\d+)"', table))
        assert spans == {str(table.count('scope="col"'))}  # a group's title has the whole width
    comparison_rows.print_comparison(found)
    text = capsys.readouterr().out
    assert "Differences to run" in text and "stage 3, decoder" in text


@pytest.fixture
def three_runs(evaluated_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """An evaluated run, one whose maps are its negatives, one with a picture less."""
    monkeypatch.setattr("pcamx.compare.differences.REPLICATES", 20)
    monkeypatch.setattr("pcamx.compare._DPI", 40)
    runs = [tmp_path / name for name in ("one", "negative", "torn")]
    for run in runs:
        shutil.copytree(evaluated_run, run)
    for file in (runs[1] / "films").glob("[0-9]*.png"):
        with Image.open(file) as strip:
            negative = ImageOps.invert(strip)
        negative.save(file)
    next((runs[2] / "films").glob("[0-9]*.png")).unlink()
    return runs


def test_every_film_under_the_maps_of_every_run(three_runs: list[Path], tmp_path: Path) -> None:
    one, negative, torn = three_runs
    found = compare(three_runs, tmp_path / "out")
    (said,) = found.remarks
    assert re.search(r"All films without torn: .*\.png is missing; run pcamx evaluate .*torn", said)
    page, own = read(tmp_path / "out/films.html"), read(one / "films.html")
    assert (page.paths, page.facts, page.marks) == (own.paths, own.facts, own.marks)
    names = [network.title for network in page.networks]
    trained = ["stage 1", "stage 2", "stage 3", "same-marks segmenter"]
    assert names == [f"{run}: {title}" for run in ("one", "negative") for title in trained]
    shown = page.networks[page.start[0]]
    assert (shown.title, shown.maps[page.start[1]].title) == ("one: stage 3", "decoder")
    tiles = [each.tile for network in page.networks for each in network.maps]
    assert tiles == list(range(len(tiles)))
    decoder = [each for each in page.networks[2].maps if each.title == "decoder"]
    assert decoder[0].columns == next(
        each.columns
        for network in own.networks
        for each in network.maps
        if (network.title, each.title) == ("stage 3", "decoder")
    )
    for stem in page.stems:
        with Image.open(tmp_path / f"out/films/{stem}.png") as strip:
            upper, lower = np.split(np.asarray(strip), 2)
        with Image.open(one / f"films/{stem}.png") as strip:
            assert np.array_equal(upper, np.asarray(strip)) and np.array_equal(lower, 255 - upper)
        assert (tmp_path / f"out/films/{stem}.jpg").read_bytes() == (
            one / f"films/{stem}.jpg"
        ).read_bytes()
    compare(three_runs[:2], tmp_path / "out")  # its own folder is replaced
    (tmp_path / "out/films/mine.txt").touch()
    with pytest.raises(PcamxError, match=r"mine\.txt is no picture"):
        compare(three_runs[:2], tmp_path / "out")


def test_a_page_of_all_films_of_another_version(three_runs: list[Path], tmp_path: Path) -> None:
    file = three_runs[1] / "films.html"
    file.write_text(re.sub(r'"subject":"[^"]*",', "", file.read_text()))  # an earlier one
    assert compare(three_runs[:2], tmp_path / "out").remarks == []
    file.write_text(file.read_text().replace('"calledFrom"', '"calledSince"'))
    (said,) = compare(three_runs[:2], tmp_path / "out").remarks
    assert "films.html: not a page of this version; run pcamx evaluate" in said


def test_more_tests_than_draws_can_tell_apart_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pcamx.compare.differences.REPLICATES", 100)
    runs = [write_run(tmp_path / str(k), [float(k > 0)] * 24) for k in range(4)]
    said = "p by Holm's correction for 3 differences cannot fall below 0.059: none is marked."
    assert said in compare(runs, tmp_path / "out").remarks  # 6 / 101
    found = compare(runs[:3], tmp_path / "out")  # 4 / 101
    assert found.gaps["1"]["stage 1, positive CAM"]["pointing"].clear
    assert not any("Holm" in remark for remark in found.remarks)


def test_a_gap_is_clear_where_p_is_small_among_all_gaps(tmp_path: Path) -> None:
    """Three runs of 12 patients; the first differs in every film, the second in 8, the third none.

    p by hand: 2 / 10,001 as no draw is against it, and by Holm times 3; 8 of 12 gain nothing or
    more in every draw but those of the four others alone.
    """
    first = write_run(tmp_path / "first", [0.0] * 24)
    others = [
        write_run(tmp_path / name, [1.0] * hits + [0.0] * (24 - hits))
        for name, hits in (("all", 24), ("some", 4), ("none", 0))
    ]
    gaps = compare([first, *others], tmp_path / "out").gaps
    every, some, none = (
        gaps[n]["stage 1, positive CAM"]["pointing"] for n in ("all", "some", "none")
    )
    assert every.p == pytest.approx(2 / 10_001) and every.p_of_all == pytest.approx(6 / 10_001)
    # Two of 12 patients gain: (10/12)^12 = 11 % of the draws have neither of them.
    assert some.p == pytest.approx(2 * (10 / 12) ** 12, abs=0.02)
    assert some.p_of_all == pytest.approx(2 * (some.p or 0))
    assert none.p_of_all == 1.0
    assert (every.clear, some.clear, none.clear) == (True, False, False)
    assert not Gap(0.2, 0.1, 0.3, p=0.01).clear  # before it was corrected
    assert (Gap().text(), Gap(0.2, 0.1, 0.3).interval()) == ("–", "[+0.100, +0.300]")
