"""A timm encoder's run is measured by the scale it was trained with, whatever timm expects now."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import random_runs
import toy_timm

from pcamx import config as configs
from pcamx.compare import pictures
from pcamx.compare.measured import Measured
from pcamx.data.store import Store
from pcamx.errors import PcamxError
from pcamx.evaluation.measured_run import open_run
from pcamx.model.receptive_field import centres
from pcamx.progress import silent
from pcamx.run.films import read_films
from pcamx.run.folder import RunFolder
from pcamx.run.weights import load_start, load_weights, save_weights

ENCODER = "timm:even_32"
TRAINED = (255 * 0.45, 255 * 0.25)
"""Not what the stand-in expects, 255 times 0.4 and 0.2."""


def _trained_by(run: RunFolder, stage: int, scale: tuple[float, float]) -> None:
    path = run.weights(stage)
    weights = dataclasses.replace(load_weights(path), mean=scale[0], std=scale[1])
    save_weights(path, weights)


@pytest.fixture(name="run")
def _run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, write_config: Any) -> Iterator[RunFolder]:
    monkeypatch.setitem(sys.modules, "timm", toy_timm.stand_in())
    centres.cache_clear()
    config = write_config(tmp_path, {"model.encoder": ENCODER})
    made = RunFolder(random_runs.random_run(tmp_path / "run", config, stages=(1, 2)))
    for stage in made.finished():
        _trained_by(made, stage, TRAINED)
    yield made
    centres.cache_clear()


def test_films_are_measured_by_the_scale_of_the_weights(run: RunFolder) -> None:
    config = run.read_config()
    # What is trained anew takes what timm expects now.
    films = read_films(run.find_store(config), config.model)
    assert (films.mean, films.std) == pytest.approx((255 * 0.4, 255 * 0.2))
    measured = open_run(run.path, None, "valid", silent, print)
    assert (measured.own.mean, measured.own.std) == TRAINED
    assert (measured.store.mean, measured.store.std) == TRAINED


def test_compared_pictures_too(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(data: object, store: Store, *_: object) -> None:
        raise PcamxError(f"{store.mean} {store.std}")

    monkeypatch.setattr(pictures, "stream", stream)
    found: Any = SimpleNamespace(folder=run.path, name="one", report={"stages": {"1": {}}})
    runs: list[Measured] = [found]
    film = open_run(run.path, None, "valid", silent, print).own.split("valid")[0].path
    _, (remark,) = pictures.draw(runs, [film])
    assert f"{TRAINED[0]} {TRAINED[1]}" in remark


def test_stages_of_two_scales_are_refused(run: RunFolder) -> None:
    _trained_by(run, 2, (1.0, 2.0))
    said = r"stage2/weights.pt: trained by another mean and deviation of films than .*stage1"
    with pytest.raises(PcamxError, match=said):
        open_run(run.path, None, "valid", silent, print)


def test_a_stage_starts_from_weights_of_the_scale_it_is_to_take(run: RunFolder) -> None:
    config, path = run.read_config(), run.weights(1)
    with pytest.raises(PcamxError, match="weights.pt: trained by another mean and deviation"):
        load_start(path, config, 2)
    films = read_films(run.find_store(config), config.model)
    _trained_by(run, 1, (films.mean, films.std))
    assert load_start(path, config, 2).stage == 1
    other = configs.changed(config, {"model.encoder": "bottleneck"})
    with pytest.raises(PcamxError, match="weights of the encoder timm:even_32"):
        load_start(path, other, 2)
