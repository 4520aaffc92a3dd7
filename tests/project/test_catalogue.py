"""The catalogue: every entry can be found, and a new one appears wherever entries are listed."""

import csv
import json
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

TOYS = Path(__file__).parent / "toys.py"


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


def test_new_entries_appear_everywhere(tmp_path: Path, write_config: Any) -> None:
    """In report.json, films.csv, report.html and the console's tables."""
    config = write_config(tmp_path, {"stages.toy": {"epochs": 1}})

    def toys(*words: object) -> str:
        return processes.python(TOYS, *words, cwd=tmp_path).ok().text

    toys("train", "--stage", "toy", "--config", config)
    run = tmp_path / "run"
    said = toys("evaluate", run)
    report = json.loads((run / "report.json").read_text())
    found = report["stages"]["toy"]
    assert {"auroc", "accuracy"} <= set(found["classification"])
    ramp = found["localization"]["toy_ramp"]
    assert 0.9 < ramp["toy_height"]["value"] < 1 and ramp["toy_height"]["n"] > 0
    with (run / "films.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["map"] == "toy_ramp"]
    heights = [
        float(row["toy_height"])
        for row in rows
        if row["network"] == "toy stage" and row["toy_height"]
    ]
    assert len(heights) == ramp["toy_height"]["n"]
    page = (run / "report.html").read_text()
    for name in ("toy height", "toy ramp", "toy stage"):
        assert name in page and name in said
