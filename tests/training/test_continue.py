"""`pcamx continue`: which marks win, what the new run is made of, mistakes, and the whole loop."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import random_runs
from PIL import Image

from pcamx import cli
from pcamx import config as configs
from pcamx.cli import continue_run
from pcamx.data.feed.order import choose_marked
from pcamx.data.store import Film, Store, read_store
from pcamx.errors import PcamxError
from pcamx.run.folder import RunFolder
from pcamx.training import preflight
from pcamx.training.continued import begin
from pcamx.training.trainer import _store_of

Files = dict[str, tuple[int, bytes]]


@pytest.fixture
def parent(tmp_path: Path, write_config: Any) -> Path:
    """An evaluated run, as far as `begin` looks at it."""
    run = random_runs.random_run(tmp_path / "one", write_config(tmp_path))
    random_runs.write_report(run)
    return run


@pytest.fixture
def store(store_folder: Path) -> Store:
    return read_store(store_folder)


def mark(folder: Path, *films: Film) -> Path:
    """Mask images of a square in the corner, as a person might draw them."""
    for film in films:
        mask_HW = np.zeros((film.height, film.width), np.uint8)
        mask_HW[2:12, 2:12] = 255
        path = folder / film.path
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask_HW).save(path)
    return folder


def files(folder: Path) -> Files:
    """All that is there, with the times of change."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in found}


def chosen(store: Store, parent: Path) -> tuple[list[Film], list[Film]]:
    """The training films that the parent's stage 3 may learn from, and the other marked ones."""
    config = configs.load(parent / "config.yaml")
    train = store.split("train")
    numbers = choose_marked(train, config.data.marked, seed=config.run.seed)
    rest = [f for i, f in enumerate(train) if f.mark and i not in numbers]
    return [train[i] for i in numbers], rest


def is_corner(store: Store, film: Film) -> bool:
    with Image.open(store.folder / film.mark) as image:
        mask_HW = np.asarray(image) > 0
    return bool(mask_HW.sum() == 100 and mask_HW[2:12, 2:12].all())


def test_newer_marks_win_film_by_film(parent: Path, store: Store, tmp_path: Path) -> None:
    learned, rest = chosen(store, parent)
    assert len(learned) == 6 and len(rest) > 2
    held_out = next(film for film in store.split("valid") if film.mark)
    normal = next(film for film in store.split("train") if not film.label)
    marks = mark(tmp_path / "marks", learned[0], rest[0], rest[1], held_out, normal)
    before = files(parent), files(store.folder)
    found = begin(parent, tmp_path / "two", [marks])
    assert before == (files(parent), files(store.folder))
    counts = found.marks.earlier, found.marks.renewed, found.marks.new
    assert counts == (5, 1, 2) and found.marks.films == 8
    assert tuple(map(len, (found.marks.tally.on_held_out, found.marks.tally.on_normal))) == (1, 1)

    new = read_store(tmp_path / "two/store")
    by_path = {film.path: film for film in new.films}
    marked = {film.path for film in new.split("train") if film.mark}
    assert marked == {film.path for film in (*learned, *rest[:2])}
    corners = {path for path in marked if is_corner(new, by_path[path])}
    assert corners == {learned[0].path, rest[0].path, rest[1].path}
    for old in (*learned[1:], *(film for film in store.split("valid") if film.mark)):
        film = by_path[old.path]
        assert (new.folder / film.mark).read_bytes() == (store.folder / old.mark).read_bytes()
        new.check_mark(film)
    assert new.root == store.root and new.root.is_absolute()
    assert (new.mean, new.std) == (store.mean, store.std)
    assert [f.path for f in new.films] == [f.path for f in store.films]

    config = RunFolder(tmp_path / "two").read_config()
    said = configs.differences(config, configs.load(parent / "config.yaml"))
    assert [line.split(":")[0] for line in said] == [
        *("run.folder", "data.store", "data.cache", "data.marked", "stages.stage3.init_from")
    ]
    assert config.data.marked == 8 and config.data.cache == str(store.folder / "cache")
    assert config.stage(3).init_from == str(parent / "stage3/weights.pt")
    assert set(choose_marked(new.split("train"), 8, seed=0)) == {
        i for i, film in enumerate(new.split("train")) if film.path in marked
    }


def test_what_the_parent_watched_is_learned_from(
    tmp_path: Path, write_config: Any, store: Store
) -> None:
    run = random_runs.random_run(tmp_path / "one", write_config(tmp_path, {"data.watched": 2}))
    random_runs.write_report(run)
    train = store.split("train")
    drawn = choose_marked(train, 100, seed=RunFolder(run).read_config().run.seed)
    assert len(drawn) > 8
    found = begin(run, tmp_path / "two", [mark(tmp_path / "marks", train[drawn[8]])])
    new = read_store(tmp_path / "two/store")
    marked = {film.path for film in new.split("train") if film.mark}
    assert marked == {train[i].path for i in drawn[:9]} and found.marks.films == 9
    data = RunFolder(tmp_path / "two").read_config().data
    assert (data.marked, data.watched) == (9, 0)


def test_it_names_its_parent_for_good(parent: Path, store: Store, tmp_path: Path) -> None:
    RunFolder(parent).write_origin(store.folder)
    run = begin(parent, tmp_path / "two", [mark(tmp_path / "m", chosen(store, parent)[1][0])]).run
    named = {"folder": str(parent.resolve()), "run": RunFolder(parent).id()}
    first = run.id()
    run.write_origin(run.store)  # as training does
    assert run.parent() == named and run.id() == first != named["run"]
    assert RunFolder(parent).parent() is None
    run.check_store(run.store)


def test_it_is_whole_or_not_there(
    parent: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = mark(tmp_path / "m", chosen(store, parent)[1][0])
    real = RunFolder.write_origin

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "write_origin", stopped)
    with pytest.raises(KeyboardInterrupt):
        begin(parent, tmp_path / "two", [marks])
    assert not (tmp_path / "two").exists()
    monkeypatch.setattr(RunFolder, "write_origin", real)
    run = begin(parent, tmp_path / "two", [marks]).run
    facts = json.loads((run.path / "origin.json").read_text())
    assert facts["store"] == str(tmp_path / "two/store") and facts["store_from_run"] == "store"
    moved = RunFolder(run.path.rename(tmp_path / "three"))
    config = configs.changed(moved.read_config(), {"run.folder": str(moved.path)})
    preflight.check(config, read_store(_store_of(config)), [3], world=1, resume=False)


def test_a_run_without_stage_3_goes_on_from_its_last(
    tmp_path: Path, write_config: Any, store: Store
) -> None:
    config = write_config(tmp_path)
    run = random_runs.random_run(tmp_path / "one", config, stages=(1, 2))
    random_runs.write_report(run, stages=(1, 2))
    marks = mark(tmp_path / "m", chosen(store, run)[1][0])
    changes = {"stages.stage3.epochs": 1}
    found = begin(run, tmp_path / "two", [marks], changes=changes)
    assert found.start == 2
    settings = found.run.read_config().stage(3)
    assert (settings.epochs, settings.init_from) == (1, str(run / "stage2/weights.pt"))


def held_out_alone(parent: Path, store: Store, tmp_path: Path) -> list[str]:
    shutil.rmtree(tmp_path / "marks")
    mark(tmp_path / "marks", *(film for film in store.split("valid") if film.mark))
    return []


def unknown_films(parent: Path, store: Store, tmp_path: Path) -> list[str]:
    path = tmp_path / "marks/nobody.png"
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    Image.fromarray(np.eye(48, dtype=np.uint8) * np.uint8(255)).save(path)
    return []


def out_exists(parent: Path, store: Store, tmp_path: Path) -> list[str]:
    (tmp_path / "two").mkdir()
    (tmp_path / "two/mine.txt").touch()
    return []


def out_was_killed(parent: Path, store: Store, tmp_path: Path) -> list[str]:
    (tmp_path / "two").mkdir()
    (tmp_path / "two/config.yaml").write_text("")
    return []


def out_is_the_parent(parent: Path, store: Store, tmp_path: Path) -> list[str]:
    shutil.rmtree(parent / "stage3")
    random_runs.write_report(parent, stages=(1, 2))
    return ["--out", str(parent)]


def out_was_finished(parent: Path, store: Store, tmp_path: Path) -> list[str]:
    shutil.copytree(parent, tmp_path / "two")
    return []


def not_evaluated(parent: Path, store: Store, tmp_path: Path) -> list[str]:
    (parent / "report.json").unlink()
    return []


def trained_since(parent: Path, store: Store, tmp_path: Path) -> list[str]:
    random_runs.retrained(parent, 3)
    return []


def no_run(parent: Path, store: Store, tmp_path: Path) -> list[str]:
    (parent / "config.yaml").unlink()
    (parent / "report.json").unlink()
    return []


def nothing_finished(parent: Path, store: Store, tmp_path: Path) -> list[str]:
    for number in (1, 2, 3):
        shutil.rmtree(parent / f"stage{number}")
    return []


def a_key_of_its_own(parent: Path, store: Store, tmp_path: Path) -> list[str]:
    return ["--set", "data.marked=5"]


def a_section_of_its_own(parent: Path, store: Store, tmp_path: Path) -> list[str]:
    return ["--set", "data={store: elsewhere}"]


def a_misspelt_key(parent: Path, store: Store, tmp_path: Path) -> list[str]:
    return ["--set", "stages.stage3.epoch=5"]


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (held_out_alone, "no mark lies on an abnormal training film"),
        (
            unknown_films,
            "images that are not films of this data set, not used: nobody.png",
        ),
        (out_exists, "two: there is something already; name a new folder with --out"),
        (out_was_killed, "two/config.yaml --stage 3 --resume, or name a new folder with --out"),
        (out_is_the_parent, "one: there is a run already; name a new folder with --out"),
        (out_was_finished, "two: there is a run already; name a new folder with --out"),
        (not_evaluated, "one: not evaluated yet; run pcamx evaluate"),
        (trained_since, "measures another training of stage 3; run pcamx evaluate"),
        (no_run, "one: not a run's folder, config.yaml is not there"),
        (nothing_finished, "none of stages 1, 2, 3 is finished"),
        (a_key_of_its_own, "--set data.marked: pcamx continue decides it; leave it out"),
        (a_section_of_its_own, "--set data: pcamx continue decides data.store in it; set other"),
        (a_misspelt_key, "--set unknown key stages.stage3.epoch; did you mean stages.stage3.epo"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    mistake: Callable[[Path, Store, Path], list[str]],
    message: str,
    parent: Path,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = "path,patient,label\n"
    (parent / "films.csv").write_text(table)
    monkeypatch.setattr("pcamx.compare.measured.read_films", lambda path: None)
    mark(tmp_path / "marks", chosen(store, parent)[1][0])
    more = mistake(parent, store, tmp_path)
    there = sorted(tmp_path.iterdir())
    words = ["continue", str(parent), "--marks", str(tmp_path / "marks")]
    monkeypatch.setattr(sys, "argv", ["pcamx", *words, "--out", str(tmp_path / "two"), *more])
    assert cli.main() == 2
    *progress, line = capsys.readouterr().err.splitlines()
    assert line.startswith("pcamx: error: ") and message in line
    assert not any("error" in earlier for earlier in progress)
    assert sorted(tmp_path.iterdir()) == there


def test_under_a_launcher_of_ones_own(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("RANK", "0")
    words = ["continue", str(parent), "--marks", "m", "--out", str(tmp_path / "two")]
    monkeypatch.setattr(sys, "argv", ["pcamx", *words])
    assert cli.main() == 2
    assert "starts the ranks itself; run it alone, with --gpus N" in capsys.readouterr().err


STOPPED = """#!/bin/sh
# In the place of the training: has its parent told to end, as a batch system does.
{begun}
trap 'exit 130' TERM
kill -TERM $PPID
while :; do read -r line < {pipe}; done
"""


@pytest.mark.parametrize("begun", [True, False])
def test_a_stop_reaches_the_training_and_says_how_to_go_on(
    begun: bool, parent: Path, store: Store, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    run = tmp_path / "two"
    found = begin(parent, run, [mark(tmp_path / "m", chosen(store, parent)[1][0])])
    os.mkfifo(tmp_path / "pipe")
    keep = os.open(tmp_path / "pipe", os.O_RDWR)
    script = tmp_path / "python"
    make = f"mkdir {run / 'stage3'}" if begun else ":"
    script.write_text(STOPPED.format(begun=make, pipe=tmp_path / "pipe"))
    script.chmod(0o755)
    monkeypatch.setattr(continue_run.sys, "executable", str(script))
    before = signal.getsignal(signal.SIGTERM)
    assert continue_run._train(found, None) == 130
    os.close(keep)
    assert signal.getsignal(signal.SIGTERM) is before
    continue_run._leave_stopped(found, parent)
    said = capsys.readouterr().err
    assert run.exists() is begun
    assert (f"pcamx evaluate {run}, then pcamx compare {parent} {run} --out" in said) is begun


def test_the_training_is_stopped_where_its_command_is_killed(tmp_path: Path) -> None:
    """In order, as by SIGTERM, which saves a checkpoint; else it would train on alone."""
    os.mkfifo(tmp_path / "pipe")
    script = tmp_path / "python"
    script.write_text(
        "#!/bin/sh\ntrap 'echo told to end; exit' TERM\n"
        f"exec 3<>{tmp_path}/pipe\nkill -9 $PPID\nread -r line <&3\n"
    )
    script.chmod(0o755)
    code = (
        "import sys; from types import SimpleNamespace as N; from pcamx.cli import continue_run\n"
        "sys.executable = sys.argv[1]; continue_run._train(N(run=N(config_file='c')), None)"
    )
    ended = processes.command(sys.executable, "-c", code, script, cwd=processes.PROJECT)
    assert (ended.code, ended.text) == (-signal.SIGKILL, "told to end\n")


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), PcamxError("a disk that is full")])
def test_a_stop_while_it_is_measured_says_how_to_go_on(
    stop: BaseException, parent: Path, store: Store, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    def measure(*_: object) -> None:
        raise stop

    def train(begun: Any, gpus: int | None) -> int:
        (begun.run.path / "stage3").mkdir()
        return 0

    monkeypatch.setattr(continue_run, "_train", train)
    monkeypatch.setattr(continue_run, "_measure", measure)
    monkeypatch.setattr("pcamx.compare.measured.read_run", lambda *_: None)
    run, film = tmp_path / "two", chosen(store, parent)[1][0]
    words = ["continue", str(parent), "--marks", str(mark(tmp_path / "m", film)), "--out", str(run)]
    monkeypatch.setattr(sys, "argv", ["pcamx", *words])
    if isinstance(stop, KeyboardInterrupt):
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 130
    else:
        assert cli.main() == 2
    assert (
        f"pcamx evaluate {run}, then pcamx compare {parent} {run} --out" in capsys.readouterr().err
    )


def test_a_stop_before_the_training_leaves_nothing(
    parent: Path, store: Store, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(continue_run, "_print", stop)
    monkeypatch.setattr("pcamx.compare.measured.read_run", lambda *_: None)
    marks, out = mark(tmp_path / "m", chosen(store, parent)[1][0]), tmp_path / "two"
    words = ["continue", str(parent), "--marks", str(marks), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["pcamx", *words])
    assert cli.main() == 130 and not out.exists()
    assert capsys.readouterr().err.endswith("pcamx: stopped; nothing was written\n")


def test_a_stop_while_the_training_is_being_started(
    parent: Path, store: Store, tmp_path: Path, monkeypatch: Any
) -> None:
    found = begin(parent, tmp_path / "two", [mark(tmp_path / "m", chosen(store, parent)[1][0])])
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nexec sleep 20\n")  # it is told to end before
    script.chmod(0o755)

    class Slow(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *words: Any, **given: Any) -> None:
            super().__init__(*words, **given)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(continue_run.sys, "executable", str(script))
    monkeypatch.setattr(continue_run.subprocess, "Popen", Slow)
    assert continue_run._train(found, None) == 128 + signal.SIGTERM


def test_the_loop(
    evaluated_run: Path,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    few_pictures: None,
) -> None:
    """From an evaluated run and new marks to a new run, measured and compared, in one command.

    Training is a process of its own, the rest is done here, where everything is imported.
    """
    shutil.copytree(evaluated_run, tmp_path / "runs/one")
    parent = tmp_path / "runs/one"
    before = files(parent)
    mark(tmp_path / "marks", *chosen(store, parent)[1][:2])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pcamx.compare.pictures.FILMS", 2)
    monkeypatch.setenv("PYTHONPATH", str(processes.PROJECT))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    words = ["continue", "runs/one", "--marks", "marks", "--out", "runs/two", "--gpus", "1"]
    monkeypatch.setattr(sys, "argv", ["pcamx", *words, "--set", "stages.stage3.epochs=1"])
    assert cli.main() == 0
    assert files(parent) == before
    run = RunFolder(tmp_path / "runs/two")
    assert run.finished() == [3] and run.load_weights(3).run == run.id()
    report = json.loads(run.report_file.read_text())
    assert report["parent"]["run"] == RunFolder(parent).id() is not None
    assert report["data"]["marked_used"] == 8
    assert "goes on from" in run.page_file.read_text()
    facts = json.loads((run.path / "compare/compare.json").read_text())
    assert list(facts["runs"]) == ["one", "two"]
    assert "miou" in facts["differences"]["two"]["stage 3, decoder"]
