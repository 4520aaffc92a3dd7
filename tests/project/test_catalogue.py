"""The catalogue: every entry can be found, and a new one appears wherever entries are listed."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import processes
import pytest

from pcamx.catalogue import (
    MAPS,
    MEASURES,
    TRAINABLES,
    best_map,
    key_of,
    maps_of,
    resolve,
    trainable,
)
from pcamx.data.store import read_store

TOYS = Path(__file__).parent / "toys.py"
MARKS, RAMP = "toy_marks", "toy_ramp"


def test_every_entry_names_something_that_is_there() -> None:
    for reference in (
        *(entry.stage for entry in TRAINABLES),
        *(kind.function for kind in MAPS),
        *(measure.function for measure in MEASURES),
        *(measure.value for measure in MEASURES if measure.value),
    ):
        assert callable(resolve(reference)), reference


def test_keys_and_titles_are_each_one_of_a_kind() -> None:
    for entries in (TRAINABLES, MAPS, MEASURES):
        for name in ("key", "title"):
            values = [getattr(entry, name) for entry in entries]
            assert len(set(values)) == len(values)
    columns = [measure.column for measure in MEASURES if measure.column]
    assert len(set(columns)) == len(columns)


def test_which_maps_which_network_gives() -> None:
    found = {entry.key: [kind.key for kind in maps_of(entry)] for entry in TRAINABLES}
    gradients = ["gradcam", "layercam"]
    assert found == {
        1: ["cam", "positive_cam", *gradients],
        2: ["cam", "positive_cam", *gradients],
        3: ["cam", "positive_cam", "decoder", *gradients],
        "segmenter": ["decoder"],
    }
    best = [best_map(entry).key for entry in TRAINABLES]
    assert best == ["positive_cam", "positive_cam", "decoder", "decoder"]


def test_an_unknown_key() -> None:
    with pytest.raises(KeyError):
        trainable(4)
    with pytest.raises(KeyError):
        trainable(True)


def test_the_key_that_a_word_names() -> None:
    assert [key_of(str(entry.key)) for entry in TRAINABLES] == [entry.key for entry in TRAINABLES]
    assert key_of("4") == "4"


def test_new_entries_appear_everywhere(
    tmp_path: Path, store_folder: Path, write_config: Any
) -> None:
    """In report.json, films.csv, pages, the console, an explanation, an export, a comparison."""
    config = write_config(tmp_path, {f"stages.{name}": {"epochs": 1} for name in ("toy", MARKS)})
    run, again = tmp_path / "run", tmp_path / "again"

    def toys(*words: object) -> str:
        return processes.python(TOYS, *words, cwd=tmp_path).ok().text

    toys("train", "--stage", "toy", "--config", config)
    assert "toy O " in toys("train", "--stage", MARKS, "--config", config)
    said = toys("evaluate", run)
    check_report(run, said)

    film = next(film for film in read_store(store_folder).split("valid") if film.label)
    path = read_store(store_folder).root / film.path
    toys("explain", run, path, "--stage", "toy", "--map", RAMP, "--out", "explained")
    (explained,) = (tmp_path / "explained/films").rglob("*.json")
    facts = json.loads(explained.read_text())
    assert facts["map"]["of"] == RAMP and facts["model"]["stage"] == "toy"

    toys("export", run, "--stage", "toy", "--out", "exported")
    facts = json.loads((tmp_path / "exported/config.json").read_text())
    assert facts["stage"] == "toy" and RAMP in facts["thresholds"]
    assert "toy stage" in (tmp_path / "exported/README.md").read_text().lower()

    shutil.copytree(run, again)
    said = toys("compare", run, again, "--out", "compared")
    differences = json.loads((tmp_path / "compared/compare.json").read_text())["differences"]
    assert "toy stage, toy ramp" in differences["again"]
    page = (tmp_path / "compared/compare.html").read_text()
    for name in ("toy certainty", "toy ramp", "toy stage"):
        assert name in page and name in said
    assert "toy of marks" in page  # which alone has baselines


def check_report(run: Path, said: str) -> None:
    report = json.loads((run / "report.json").read_text())
    found = report["stages"]["toy"]
    assert 0 < found["classification"]["toy_certainty"]["value"] < 0.5
    assert {"auroc", "accuracy"} <= set(found["classification"])
    assert "decoder" in report["baselines"][MARKS]["localization"]
    ramp = found["localization"][RAMP]
    assert 0.9 < ramp["toy_height"]["value"] < 1 and ramp["toy_height"]["n"] > 0
    with (run / "films.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["map"] == RAMP]
    heights = [
        float(row["toy_height"])
        for row in rows
        if row["network"] == "toy stage" and row["toy_height"]
    ]
    assert len(heights) == ramp["toy_height"]["n"]
    page = (run / "report.html").read_text()
    for name in ("toy height", "toy certainty", "toy ramp", "toy stage", "toy of marks"):
        assert name in page and name in said
    assert "toy O, its own" in page
