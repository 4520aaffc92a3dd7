"""Intervals are said to be over patients only where there are patients to draw."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from measured_runs import write_run

from pcamx.compare import compare
from pcamx.data.patients import block, drawn
from pcamx.data.sets.table import read_table
from pcamx.data.store import Film
from pcamx.export import card
from pcamx.report import comparison_rows, page, tables


def films(*patients: str) -> list[Film]:
    return [
        Film(f"{n}.png", 0, patient, patient, "", "valid", 9, 9, 255, "")
        for n, patient in enumerate(patients)
    ]


def test_what_is_drawn() -> None:
    assert drawn(films("a", "a", "b")) == "patients"
    assert drawn(films("a", "b", "c")) == "films"
    assert drawn(films(block(3), block(3), block(4))) == drawn(films(block(3))) == "blocks of films"


@pytest.mark.parametrize(
    ("header", "cells", "expected"),
    [("path,label", "", "films"), ("path,label,patient", ",one", "patients")],
)
def test_of_a_table(tmp_path: Path, header: str, cells: str, expected: str) -> None:
    rows = [f"{n}.png,{n % 2}{cells}" for n in range(40)]
    header, rows = header + ",split", [f"{row},valid" for row in rows]
    (tmp_path / "films.csv").write_text("\n".join([header, *rows]) + "\n")
    entries = read_table(tmp_path / "films.csv").entries
    assert drawn(films(*(entry.patient for entry in entries))) == expected


def report(over: str | None) -> dict[str, Any]:
    split = {"films": 14, "abnormal": 7, "marked": 7, "patients": 14}
    data = {"splits": {"valid": split}} | ({} if over is None else {"intervals_over": over})
    facts = {"device": "cpu", "versions": {}, "commit": "c", "created": "today"}
    return facts | {"data": data, "stages": {}, "baselines": {}}


@pytest.mark.parametrize(
    ("over", "said", "meaning"),
    [
        ("films", "films", "draws films, no two of which are known to be of one patient"),
        ("blocks of films", "blocks of films", "draws whole blocks of neighbouring films"),
        ("patients", "patients", "draws whole patients, not single films"),
        (None, "patients", "draws whole patients"),  # a report of an earlier pcamx
    ],
)
def test_every_place_says_it(over: str | None, said: str, meaning: str, capsys: Any) -> None:
    tables.print_results(report(over))
    assert f"95 % bootstrap interval over {said}. n:" in capsys.readouterr().out
    assert meaning in page.render(report(over), [], [])
    model: Any = SimpleNamespace(stage=3, thresholds={})
    text = "".join(card._figures(model, report(over)))  # type: ignore[arg-type]
    assert f"95 % bootstrap interval over {said}. Baselines" in text
    of = "" if said == "films" else f" of 14 {said}"
    assert f"validation split: 14 films{of}, 7 abnormal" in text


def test_comparisons_say_it(tmp_path: Path, capsys: Any) -> None:
    runs = [write_run(tmp_path / name, [0, 1, 1, 0]) for name in ("one", "other")]
    path = runs[0] / "report.json"
    path.write_text(path.read_text().replace('"data": {}', '"data": {"intervals_over": "films"}'))
    comparison_rows.print_comparison(compare(runs, tmp_path / "out"))
    said = " ".join(capsys.readouterr().out.split())
    assert "bootstrap interval over films; of differences, film by film over the same films" in said
    written = " ".join((tmp_path / "out/compare.html").read_text().split())
    assert "interval over films and the p" in written and "over patients" not in written
    assert "draws films, no two" in written
