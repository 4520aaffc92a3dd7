"""A run's folder and its store: moved, renamed, read from another working directory."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import random_runs

from pcamx import config as configs
from pcamx import from_pretrained
from pcamx.data.store import read_store
from pcamx.errors import PcamxError
from pcamx.evaluation.evaluate import _refuse_another
from pcamx.run.folder import RunFolder
from pcamx.training import preflight
from pcamx.training.trainer import _store_of


@pytest.fixture(name="place")
def _place(
    tmp_path: Path, store_folder: Path, write_config: Any, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with a run and its store, which the run's config names by a relative path."""
    place = tmp_path / "place"
    shutil.copytree(store_folder, place / "store")
    monkeypatch.chdir(place)
    config = write_config(place, {"data.store": "store"})
    random_runs.random_run(place / "runs" / "one", config)
    RunFolder(place / "runs" / "one").write_origin(Path("store"))
    return place


def store_of(run: Path) -> Path:
    folder = RunFolder(run)
    return folder.find_store(folder.read_config()).resolve()


def test_from_the_working_directory_of_the_training(place: Path) -> None:
    assert RunFolder(Path("runs/one")).find_store(
        RunFolder(Path("runs/one")).read_config()
    ) == Path("store")


def test_run_and_store_moved_together(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = place.rename(place.parent / "moved")
    monkeypatch.chdir("/")
    assert store_of(moved / "runs" / "one") == moved / "store"
    from_pretrained(moved / "runs" / "one")


def test_run_moved_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = Path(shutil.move(place / "runs" / "one", place.parent / "renamed"))
    monkeypatch.chdir("/")
    assert store_of(moved) == place / "store"


def test_another_store_in_its_place_is_passed_by(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one of the fingerprint counts, not the first of the name."""
    elsewhere = place.parent / "elsewhere"
    shutil.copytree(place / "store", elsewhere / "store")
    manifest = elsewhere / "store" / "manifest.csv"
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-1]))
    monkeypatch.chdir(elsewhere)
    assert store_of(place / "runs" / "one") == place / "store"


def test_training_goes_on_after_the_store_has_moved(place: Path) -> None:
    run = place / "runs" / "one"
    config = configs.changed(configs.load(run / "config.yaml"), {"run.folder": str(run)})
    assert _store_of(config) == Path("store")
    gone = configs.changed(config, {"data.store": "spelt/otherwise"})
    assert _store_of(gone).resolve() == place / "store"
    # Another store is not passed by where the config names it: what would be trained on?
    shutil.copytree(place / "store", place / "other")
    assert _store_of(configs.changed(config, {"data.store": "other"})) == Path("other")
    with pytest.raises(PcamxError, match="nowhere: no such folder; make one with: pcamx prepare"):
        new = {"data.store": "nowhere", "run.folder": "runs/new"}
        read_store(_store_of(configs.changed(config, new)))


def test_store_gone(place: Path) -> None:
    shutil.rmtree(place / "store")
    with pytest.raises(PcamxError, match="its films is not at store nor ") as caught:
        store_of(Path("runs/one"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{", '{"format": 2}', "[]", '{"format": 1}'])
def test_damaged_origin(place: Path, content: str) -> None:
    Path("runs/one/origin.json").write_text(content)
    with pytest.raises(PcamxError, match=r"origin\.json: damaged or of another version; restore"):
        store_of(Path("runs/one"))


def test_the_run_keeps_its_id(place: Path) -> None:
    run = RunFolder(Path("runs/one"))
    first = run.id()
    run.write_origin(Path("store"))
    assert first and run.id() == first


def test_weights_of_another_run(place: Path) -> None:
    run = RunFolder(Path("runs/one"))
    weights = json.loads((run.path / "origin.json").read_text())["run"]
    random_runs.sign(run, "f" * 32)
    with pytest.raises(PcamxError, match=r"weights\.pt: weights of another run; restore"):
        run.load_weights(1)
    random_runs.sign(run, weights)
    assert run.load_weights(1).run == weights


@pytest.mark.parametrize("name", ["config.yaml", "films.csv", "films", "figure2.png"])
def test_what_a_run_would_replace_is_not_its_own(place: Path, name: str) -> None:
    """A folder of somebody's films and table is no run's folder."""
    mine = place / "mine"
    assert RunFolder(mine).foreign() is None
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    assert RunFolder(mine).foreign() is None
    (mine / name).mkdir() if name == "films" else (mine / name).write_text("mine")
    assert RunFolder(mine).foreign() == mine / name
    config = configs.changed(configs.load(place / "run.yaml"), {"run.folder": str(mine)})
    with pytest.raises(PcamxError, match=f"mine/{name} is of no run and would be replaced"):
        preflight.check(config, read_store(place / "store"), [1], world=1, resume=False)
    RunFolder(mine).write_origin(place / "store")
    assert RunFolder(mine).foreign() is None


def test_reports_on_two_stores_of_one_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, here = RunFolder(place / "runs/one/on_store"), place / "store"
    _refuse_another(out, place / "other/store")  # no report yet
    monkeypatch.setattr(
        "pcamx.evaluation.evaluate.read_report", lambda run: {"data": {"store": str(here)}}
    )
    _refuse_another(out, here)
    with pytest.raises(PcamxError, match="on_store holds the report on .*place/store, a store of"):
        _refuse_another(out, place / "other/store")
    shutil.rmtree(here)
    _refuse_another(out, place / "other/store")
