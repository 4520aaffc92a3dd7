"""films.csv of a real run: its columns average to the figures, and two of them can be compared."""

import csv
import json
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pcamx.data.canvas.side_markers import Box
from pcamx.data.store import Film
from pcamx.errors import PcamxError
from pcamx.evaluation.film_table import columns, measured, write_films
from pcamx.metrics import paired

STAGES = ("1", "2", "3")
MARKED = [measure.column for measure in measured() if measure.films == "marked"]


@pytest.fixture(name="report")
def _report(evaluated_run: Path) -> Any:
    return json.loads((evaluated_run / "report.json").read_text())


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "films.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def column(rows: list[dict[str, str]], name: str, network: str, map_: str) -> list[float]:
    taken = (r for r in rows if (r["network"], r["map"]) == (network, map_))
    return [float(row[name]) for row in taken if row[name]]


def test_figures_are_the_means_of_films_csv(evaluated_run: Path, report: Any) -> None:
    rows = rows_of(evaluated_run)
    assert tuple(rows[0]) == columns()
    networks = {f"stage {n}": report["stages"][n] for n in STAGES} | report["baselines"]
    assert len(rows) == 14 * sum(len(found["localization"]) for found in networks.values())
    compared = 0
    for network, found in networks.items():
        for name, maps in found["localization"].items():
            for key in (measure.column for measure in measured()):
                values = column(rows, key, network, name)
                assert len(values) == maps[key]["n"] > 0
                assert np.mean(values) == pytest.approx(maps[key]["value"], abs=1e-7)
                compared += 1
            peaks = [
                float(row["peak"])
                for row in rows
                if (row["network"], row["map"], row["label"]) == (network, name, "0")
            ]
            active = [peak > maps["activation_threshold"] for peak in peaks]
            assert len(peaks) == maps["false_activation"]["n"]
            assert np.mean(active) == pytest.approx(maps["false_activation"]["value"])
        if "classification" in found:
            taken = [r for r in rows if (r["network"], r["map"]) == (network, "cam")]
            right = [(float(r["probability"]) > 0.5) == (r["label"] == "1") for r in taken]
            assert np.mean(right) == pytest.approx(found["classification"]["accuracy"]["value"])
    assert compared == 8 * (4 + 4 + 5 + 3 + 3 + 1)


def test_stages_compared_film_by_film(evaluated_run: Path, report: Any) -> None:
    rows = rows_of(evaluated_run)
    first, third = (column(rows, "energy", f"stage {n}", "positive_cam") for n in (1, 3))
    patients = [r["patient"] for r in rows if r["network"] == "centre" and r["map"] == "cam"]
    marked = [p for p, r in zip(patients, rows, strict=False) if r["energy"]]
    gain = paired(third, first, marked, seed=0)
    values = [report["stages"][n]["localization"]["positive_cam"]["energy"] for n in "13"]
    assert gain.value == pytest.approx(values[1]["value"] - values[0]["value"], abs=1e-7)
    assert gain.p is None  # of so few patients


def test_cells_without_a_value_are_empty(evaluated_run: Path) -> None:
    for row in rows_of(evaluated_run):
        marked = row["label"] == "1"  # every abnormal phantom is
        assert all((row[key] != "") == marked for key in (*MARKED, "lesion_share"))
        assert (row["probability"] == "") == (row["network"] in ("centre", "segmenter"))
        assert row["peak"] and row["path"] and row["patient"] and row["part"]


def test_an_old_file_stays_where_the_disk_refuses(tmp_path: Path) -> None:
    (tmp_path / f".films.csv.{socket.gethostname()}.{os.getpid()}.tmp").mkdir()
    (tmp_path / "films.csv").write_text("before")
    films = [Film("a.png", 0, "p", "s", "", "valid", 9, 9, 255, "")]
    markers: list[Box | None] = [None]
    with pytest.raises(PcamxError, match=r"cannot write .*films\.csv"):
        write_films(tmp_path / "films.csv", films, markers, {}, {}, {})
    assert (tmp_path / "films.csv").read_text() == "before"
