"""Runs that look evaluated, of figures given by hand."""

import json
from pathlib import Path

from pcamx.evaluation.film_table import columns


def write_run(
    folder: Path,
    pointing: list[float],
    probability: list[float] | None = None,
    first: int = 0,
    basis: dict[str, list[float | None]] | None = None,
    stages: tuple[int, ...] = (1,),
) -> Path:
    """An evaluated run of ``stages`` on films f0, f1, ..., every other of them normal."""
    folder.mkdir()
    lines = [",".join(columns())]
    for k, hit, number in [(k, hit, n) for n in stages for k, hit in enumerate(pointing, first)]:
        cells = {"path": f"f{k}", "patient": f"p{k // 2}", "label": str(1 - k % 2)}
        cells |= {"network": f"stage {number}", "map": "positive_cam", "pointing": str(hit)}
        if probability:
            cells["probability"] = str(probability[k - first])
        for column, values in (basis or {}).items():
            value = values[k - first]
            cells[column] = "" if value is None else str(value)
        lines.append(",".join(cells.get(column, "") for column in columns()))
    (folder / "films.csv").write_text("\n".join(lines) + "\n")
    figure = {"value": sum(pointing) / len(pointing), "low": 0.0, "high": 1.0, "n": len(pointing)}
    stage = {"localization": {"positive_cam": {"pointing": figure, "threshold": 0.5}}}
    measured = {str(number): stage for number in stages}
    report = {"format": 1, "stages": measured, "baselines": {}, "data": {}, "config": {}}
    (folder / "report.json").write_text(json.dumps(report))
    return folder
