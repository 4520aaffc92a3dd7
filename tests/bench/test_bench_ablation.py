"""`bench.ablation`: its grid, runs that fail, stop and are shared, and its tables by hand."""

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import processes
import pytest
import yaml
from fake_project import write_project

from bench.ablation import __main__ as ablation
from bench.ablation import runs as ablation_runs
from bench.ablation.grid import Cell, Job, absolute, jobs, read_grid, refuse_changed
from bench.ablation.runs import finished, run_jobs
from bench.ablation.table import LEVELS, NOTES, Gain
from pcamx import config as configs
from pcamx.catalogue import ON_MARKER, ON_MARKER_ABNORMAL
from pcamx.config import ConfigError
from pcamx.metrics import bootstrap

PAPER = {
    "name": "Paper's schedule",
    "group": "schedule",
    "train": [2],
    "set": {"objective.schedule": "paper"},
}
# Pointing of four films, by cell and seed.
FILMS = {
    "base": {"seed0": [0, 0, 0, 1], "seed1": [0, 0, 1, 1], "seed2": [0, 0, 0, 0]},
    "paper-s-schedule": {"seed0": [1, 1, 1, 1], "seed1": [1, 1, 1, 1], "seed2": [1, 1, 1, 0]},
}


@pytest.fixture(name="grid")
def _grid(tmp_path: Path, write_config: Any) -> Path:
    """A grid of the base and one cell."""
    base = write_config(tmp_path / "there")
    return write(tmp_path, {"base": str(base), "seeds": [0, 1, 2], "cells": [PAPER]})


def write(folder: Path, tree: Any) -> Path:
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def runs(grid: Path) -> list[Job]:
    return jobs(read_grid(grid), grid.parent / "out")


def test_paths_of_a_job_are_absolute(grid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its trainings run from the project's folder."""
    monkeypatch.chdir(grid.parent)
    model = configs.Model(encoder="timm:resnet18", weights="w18.safetensors")
    config = dataclasses.replace(runs(grid)[0].config, model=model)
    assert absolute(config).model.weights == str(grid.parent / "w18.safetensors")
    own = dataclasses.replace(config, model=dataclasses.replace(model, weights="timm"))
    assert absolute(own).model.weights == "timm"


@pytest.fixture(name="project")
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``project(fail=[...])`` puts the fake project in the real one's place; calls it got."""

    def make(**plan: object) -> Any:
        root = write_project(tmp_path / "project", films=FILMS, **plan)
        monkeypatch.setattr(ablation_runs, "ROOT", root)
        return lambda: (root / "calls.txt").read_text().splitlines()

    return make


def change(tree: dict[str, Any], path: tuple[Any, ...], value: Any) -> None:
    *above, last = path
    for key in above:
        tree = tree[key]
    if value is None:
        del tree[last]
    else:
        tree[last] = value


def test_a_grid_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No such file.*; expected a grid such as bench"):
        read_grid(tmp_path / "gone.yaml")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("seed",), [0], "the file: unknown key seed"),
        (("cells",), None, "the file: missing key cells"),
        (("cells",), [], "cells: expected a list of cells"),
        (("base",), "gone.yaml", "gone.yaml: No such file"),
        (("seeds",), [0, 1], r"seeds: expected 3 or more different whole numbers, found \[0, 1\]"),
        (("seeds",), [0, 1, 1], "seeds: expected 3 or more different"),
        (("seeds",), [True, 1, 2], "seeds: expected 3 or more different"),
        (("train",), [2, 1], r"grid.yaml: train: \[2, 1\] is not a list of 1, 2, 3, segmenter"),
        (("cells", 0, "group"), None, r"cell 1 \(Paper's schedule\): missing key group"),
        (("cells", 0, "train"), [2, 1], "train: .* not a list of 1, 2, 3, segmenter, in that"),
        (("cells", 0, "train"), [4], "train: .* not a list of 1, 2, 3, segmenter, in that"),
        (("cells", 0, "set"), {}, "set: expected dotted keys"),
        (("cells", 0, "set"), {"run.seed": 3}, "run.seed is not a key that a cell may set"),
        (
            ("cells", 0, "set"),
            {"objective.shedule": "paper"},
            'cell "Paper\'s schedule": unknown key objective.shedule; did you mean objective.sch',
        ),
        (("cells", 0, "set"), {"objective": "paper"}, "objective: expected keys below it"),
        (("cells", 0, "set"), {"objective.schedule": "papers"}, "did you mean paper"),
        (("cells", 0, "set"), {"data.marked.few": 3}, "unknown key data.marked.few"),
        (("cells", 0, "name"), "Base", "cells 'base' and 'Base' share the folder base"),
        (("cells", 0, "name"), "λ", "a name needs a letter or digit"),
    ],
)
def test_a_grid_that_cannot_be_used(grid: Path, path: Any, value: Any, message: str) -> None:
    tree = yaml.safe_load(grid.read_text())
    change(tree, path, value)
    with pytest.raises(ConfigError, match=message) as caught:
        read_grid(write(grid.parent, tree))
    assert str(caught.value).startswith(f"{grid}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "least"), [("grid", 20), ("tempting", 15), ("fracatlas", 8)])
def test_the_grids_of_the_project_can_be_used(
    name: str, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bench").symlink_to(processes.PROJECT / "bench")
    (tmp_path / "stores/tempting_twins").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    grid = read_grid(Path(f"bench/ablation/{name}.yaml"))
    assert len(grid.cells) > least and grid.seeds == (0, 1, 2)
    changed = [job for job in jobs(grid, Path("out")) if job.cell.slug != "base"]
    base = grid.base
    for job in changed:  # no cell says what the base says
        for key in job.cell.changes:
            lines = configs.differences(job.config, base)
            assert any(line.startswith(f"{key}:") for line in lines), job.name


def test_what_the_base_trains(grid: Path) -> None:
    assert read_grid(grid).cells[0].train == (1, 2, 3)
    tree = yaml.safe_load(grid.read_text()) | {"train": [1]}
    base, cell = read_grid(write(grid.parent, tree)).cells
    assert base.train == (1,) and cell.train == (2,)


def test_what_a_run_is(grid: Path) -> None:
    every = runs(grid)
    assert [(job.cell.slug, job.seed) for job in every[:3]] == [
        ("base", 0),
        ("paper-s-schedule", 0),
        ("base", 1),
    ]
    out = grid.parent / "out"
    config = every[3].config
    assert config.run.folder == str(out / "paper-s-schedule/seed1") and config.run.seed == 1
    assert config.objective.schedule == "paper"
    assert config.stage(2).init_from == str(out / "base/seed1/stage1/weights.pt")
    assert every[2].config.stage(2).init_from == "stage1"


def test_own_earlier_stages_are_started_from(grid: Path) -> None:
    tree = yaml.safe_load(grid.read_text())
    tree["cells"][0] |= {"train": [1, 2], "set": {"model.encoder": "basic"}}
    config = runs(write(grid.parent, tree))[1].config
    assert config.stage(2).init_from == "stage1"
    tree["cells"][0] |= {"train": [2, 3], "set": {"stages.stage2.init_from": "scratch"}}
    config = runs(write(grid.parent, tree))[1].config
    assert (config.stage(2).init_from, config.stage(3).init_from) == ("scratch", "stage2")


def test_every_run_once_and_the_table_by_hand(
    grid: Path, project: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(bootstrap, "FEWEST", 2)  # there are few films
    calls = project()
    out = grid.parent / "out"
    assert main(monkeypatch, grid, out) == 0
    per_seed = ["stage1", "stage2", "stage3", "evaluate"]
    assert calls()[:6] == [
        *(f"base seed0 {step}" for step in per_seed),
        *(f"paper-s-schedule seed0 {step}" for step in ("stage2", "evaluate")),
    ]
    assert len(calls()) == 18
    text = (out / "ablation.md").read_text()
    # Seeds' means: base 1/4, 2/4, 0; cell 1, 1, 3/4. By film: 0, 0, 1/3, 2/3 and 1, 1, 1, 2/3.
    assert "| base, stage 2 | 3 | 0.750 | 0.250 (0.000 to 0.500) | 0.125 (0.000 to 0.250) |" in text
    assert "| Paper's schedule, stage 2 | 3 | 0.750 | 0.917 (0.750 to 1.000) |" in text
    row = next(line for line in text.splitlines() if "schedule, stage 2 | **" in line)
    assert "| **+0.667** [" in row and "(+0.500 to +0.750)" in row and "**+0.333**" in row
    rows = json.loads((out / "ablation.json").read_text())["rows"]
    found = {(r["case"], r["impl"], r["metric"]): r["value"] for r in rows}
    mine = ("schedule", "Paper's schedule, stage 2")
    assert found[*mine, "seeds"] == 3
    assert found[*mine, "pointing"] == pytest.approx(11 / 12)
    assert found[*mine, "pointing, minus base"] == pytest.approx(2 / 3)
    assert found[*mine, "pointing, minus base, largest seed"] == 0.75
    assert 0 <= found[*mine, "pointing, minus base, low"] <= 2 / 3
    assert "Not finished" not in text
    assert main(monkeypatch, grid, out) == 0
    assert len(calls()) == 18  # nothing is done twice
    assert "6 of 6 runs" in capsys.readouterr().out


def test_runs_are_measured_on_the_twins_of_the_grid(
    grid: Path, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fake one's decisions flip with the lesion where its map points at it."""
    calls, out, tree = project(), grid.parent / "out", yaml.safe_load(grid.read_text())
    assert main(monkeypatch, grid, out) == 0
    assert "lesion away: flips" not in (out / "ablation.md").read_text().split("\n## ", 1)[1]
    tree["twins"] = str(grid.parent / "twins")
    with pytest.raises(ConfigError, match="twins: '.*twins' is not the folder of a store"):
        read_grid(write(grid.parent, tree))
    (grid.parent / "twins").mkdir()
    write(grid.parent, tree)
    monkeypatch.setattr("bench.ablation.runs.fingerprint", str)  # of a folder, which holds nothing
    # Only measured anew: what was measured without twins is not finished.
    assert not any(map(finished, runs(grid)))
    assert main(monkeypatch, grid, out) == 0
    assert calls()[18:] == [
        f"{cell} seed{seed} evaluate" for seed in (0, 1, 2) for cell in ("base", "paper-s-schedule")
    ]
    text = (out / "ablation.md").read_text().split("\n## ", 1)[1]
    assert "| lesion away: flips | AUROC |" in text
    assert "| base, stage 2 | 3 | 0.250 (0.000 to 0.500) | 0.750 |" in text
    plain = text.replace("**", "")  # what is clear depends on how many are compared
    row = next(line for line in plain.splitlines() if "schedule, stage 2 | +" in line)
    assert row.count("+0.667 [") == 2  # flips as pointing
    (grid.parent / "others").mkdir()
    tree["twins"] = str(grid.parent / "others")
    write(grid.parent, tree)
    assert not any(map(finished, runs(grid)))  # measured, on other twins


def test_a_cell_may_train_the_segmenter_too(
    grid: Path, project: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The fake one points at the first of four films alone, with every seed."""
    calls, out, tree = project(), grid.parent / "out", yaml.safe_load(grid.read_text())
    tree["cells"][0]["train"] = [3, "segmenter"]
    write(grid.parent, tree)
    assert main(monkeypatch, grid, out) == 2
    assert 'schedule": train: the base has no stages.segmenter' in capsys.readouterr().err
    base = yaml.safe_load(Path(tree["base"]).read_text())
    base["stages"]["segmenter"] = {"epochs": 1, "lr": 1.0e-3}
    Path(tree["base"]).write_text(yaml.safe_dump(base))
    assert main(monkeypatch, grid, out) == 0
    assert (
        calls()[4:8]
        == [
            "base seed0 evaluate",
            *(f"paper-s-schedule seed0 {step}" for step in ("stage3", "segmenter", "evaluate")),
        ]
        and calls()[3] == "base seed0 segmenter"
    )
    text = (out / "ablation.md").read_text().split("same marks alone\n\n")[1].splitlines()
    # By film, over the seeds: base -1, 0, 1/3, 2/3; cell 0, 1, 1, 2/3.
    assert text[2].startswith("| base | 0.250 (0.000 to 0.500) | 0.250 | +0.000 [")
    # Not bold: one film of four gains nothing, so that p is about 2 (1/4)^4, and there are others.
    assert text[3].startswith("| Paper's schedule | 0.917 (0.750 to 1.000) | 0.250 | +0.667 [")
    rows = json.loads((out / "ablation.json").read_text())["rows"]
    found = {(r["case"], r["impl"], r["metric"]): r["value"] for r in rows}
    mine = ("stage 3 against the segmenter", "Paper's schedule")
    assert found[*mine, "segmenter: mIoU"] == pytest.approx(0.125)
    assert found[*mine, "mIoU, difference"] == pytest.approx(1 / 3)
    # Trained, but not yet measured: the report before it does not count.
    report = json.loads((out / "base/seed0/report.json").read_text())
    del report["baselines"]["segmenter"]
    (out / "base/seed0/report.json").write_text(json.dumps(report))
    assert not finished(runs(grid)[0])


def main(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    grid, out, *more = map(str, words)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["ablation", grid, "--folder", out, *more])
    return ablation.main()


def test_the_tables_alone(
    grid: Path, project: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    calls = project()
    out = grid.parent / "out"
    assert main(monkeypatch, grid, out, "--table") == 2
    assert "holds no finished run" in capsys.readouterr().err
    assert main(monkeypatch, grid, out, "--seeds", "3") == 2
    assert "--seeds 3: not among the grid's, [0, 1, 2]" in capsys.readouterr().err
    assert main(monkeypatch, grid, out, "--seeds", "1") == 0
    assert len(calls()) == 6
    assert main(monkeypatch, grid, out, "--table") == 0
    text = (out / "ablation.md").read_text()
    assert "Not finished, and not in these tables: base (seed 0, seed 2), Paper's" in text
    assert "**+" not in text  # one seed shows nothing
    assert "| Paper's schedule, stage 2 | +0.500 [" in text and "cannot fall below" not in text
    monkeypatch.setattr(bootstrap, "FEWEST", 2)  # there are few films
    monkeypatch.setattr("pcamx.compare.differences.REPLICATES", 30)
    assert main(monkeypatch, grid, out, "--table") == 0
    assert "differences cannot fall below" in (out / "ablation.md").read_text()
    assert len(calls()) == 6


def test_a_failed_run_is_told_and_the_rest_goes_on(
    grid: Path, project: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    calls = project(fail=["base seed1 stage1", "paper-s-schedule seed0 stage2"])
    out = grid.parent / "out"
    assert main(monkeypatch, grid, out) == 1
    lines = [li for li in capsys.readouterr().err.splitlines() if ": failed: " in li]
    log = out / "paper-s-schedule/seed0.log"
    assert lines[0].endswith(
        f"Paper's schedule, seed 0: stage 2 ended with exit code 2: the loss is nan; see {log}"
    )
    assert "base, seed 1: stage 1 ended with exit code 2" in lines[1]
    missing = out / "base/seed1/stage1/weights.pt"
    assert lines[2].endswith(f"Paper's schedule, seed 1: not begun, {missing} is missing")
    assert len(lines) == 3 and log.read_text().startswith("epoch 1\n")
    assert "base seed2 evaluate" in calls()
    # The cause is gone: what was begun continues.
    assert main(monkeypatch, grid, out) == 0
    assert calls().count("base seed1 stage1 resumed") == 1
    assert "base seed1 stage2" in calls()


def test_a_changed_entry_is_refused(grid: Path, project: Any) -> None:
    project()
    assert run_jobs(runs(grid)[:2], 1, print) == []
    refuse_changed(runs(grid))
    tree = yaml.safe_load(grid.read_text())
    tree["cells"][0]["set"]["attention.omega"] = 5.0
    with pytest.raises(ConfigError) as caught:
        refuse_changed(runs(write(grid.parent, tree)))
    assert 'cell "Paper\'s schedule": ' in str(caught.value)
    assert "attention.omega: 5.0 here, 10.0 there" in str(caught.value)


def test_ctrl_c_reaches_the_training_once(grid: Path, project: Any) -> None:
    calls = project(interrupt=["base seed0 stage2"])
    # A shell that starts its jobs in the background has them ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_jobs(runs(grid), 1, print)
    finally:
        signal.signal(signal.SIGINT, before)
    assert calls() == ["base seed0 stage1", "base seed0 stage2", "base seed0 stage2 stopped"]


@pytest.fixture(name="runner")
def _runner() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_killed_runner_and_its_heir(
    grid: Path, project: Any, tmp_path: Path, runner: list[subprocess.Popen[bytes]]
) -> None:
    calls = project(hold=["base seed0 stage2"])
    hold = tmp_path / "project/hold"
    os.mkfifo(hold)
    code = (
        "import sys; from pathlib import Path; from bench.ablation import runs as r\n"
        "from bench.ablation.grid import jobs, read_grid\n"
        f"r.ROOT = Path({str(tmp_path / 'project')!r})\n"
        f"grid, out = Path({str(grid)!r}), Path({str(tmp_path / 'out')!r})\n"
        "r.run_jobs(jobs(read_grid(grid), out), 1, print)"
    )
    env = processes.environment(PYTHONPATH=str(processes.PROJECT))
    runner.append(subprocess.Popen([sys.executable, "-c", code], env=env))
    with hold.open("w") as held:  # opens when the training of stage 2 reads it
        runner[0].kill()
        runner[0].wait()
        said: list[str] = []

        def say(text: str) -> None:
            said.append(text)
            if "waiting" in text:
                held.close()

        assert run_jobs(runs(grid)[:2], 1, say) == []
    holder = f"{runner[0].pid} on {socket.gethostname()}"
    waiting = f"base, seed 0: in work by process {holder}; waiting for it"
    assert waiting in said
    # The orphan's stage is neither begun again nor resumed beside it.
    assert sorted(calls()) == sorted(
        [*(f"base seed0 {step}" for step in ("stage1", "stage2", "stage3", "evaluate"))]
        + [f"paper-s-schedule seed0 {step}" for step in ("stage2", "evaluate")]
    )


def test_the_real_commands(
    grid: Path, evaluated_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base that was trained elsewhere, and stage 3 from its weights."""
    tree = yaml.safe_load(grid.read_text())
    tree["cells"] = [{"name": "4 marks", "group": "marks", "train": [3], "set": {"data.marked": 4}}]
    base = yaml.safe_load((evaluated_run / "config.yaml").read_text())
    base["stages"]["stage3"]["epochs"] = 1
    Path(tree["base"]).write_text(yaml.safe_dump(base))
    every = runs(write(grid.parent, tree))[:2]
    shutil.copytree(evaluated_run, every[0].folder)
    with pytest.raises(ConfigError, match=r"stages.stage3.epochs: 1 here, 2 there"):
        refuse_changed(every)
    (every[0].folder / "config.yaml").write_text(configs.dump(every[0].config))
    refuse_changed(every)
    assert finished(every[0])
    assert run_jobs(every, 1, print) == []
    report = json.loads((every[1].folder / "report.json").read_text())
    assert list(report["stages"]) == ["3"] and report["data"]["marked_used"] == 4


def test_where_maps_peak_on_what_tempts_stands_in_the_tables() -> None:
    """Of abnormal films as well, which is what was asked for; normal ones have nothing to show."""
    assert LEVELS.keys() >= {ON_MARKER.title, ON_MARKER_ABNORMAL.title}
    assert ON_MARKER.title in NOTES[0] and "letter or a plate" in NOTES[0]


def test_what_is_clear() -> None:
    assert Gain(0.2, (0.1, 0.3), (0.1, 0.3), 3, 0.05).clear
    assert Gain(-0.2, (-0.3, -0.1), (-0.3, -0.1), 3, 0.01).clear
    assert not Gain(0.2, (0.0, 0.3), (0.1, 0.3), 3, 0.06).clear
    assert not Gain(0.2, (0.1, 0.3), (-0.1, 0.3), 3, 0.01).clear
    assert not Gain(0.2, None, (0.1, 0.3), 3, None).clear
    assert not Gain(0.2, (0.1, 0.3), (0.1, 0.3), 2, 0.01).clear
    assert (
        Gain(0.2, (0.1, 0.3), (0.1, 0.3), 3, 0.01).text()
        == "**+0.200** [+0.100, +0.300] (+0.100 to +0.300)"
    )
    assert Cell("λ' 10, more", "g", (1,)).slug == "10-more"
