"""A run that was trained without `model.mirrored`, and the same with it in its config.yaml: one
answer to a film, whoever asks.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import random_runs
import torch
from measured_runs import write_run
from PIL import Image
from small_networks import images
from torch import Tensor

from pcamx import config as configs
from pcamx.compare.measured import read_runs
from pcamx.errors import PcamxError
from pcamx.evaluation.erasing import erase_lesions
from pcamx.evaluation.measured_run import open_run
from pcamx.evaluation.scoring import probabilities, score
from pcamx.evaluation.twins import margins
from pcamx.explain.folder import explain
from pcamx.marking.suggest import opened
from pcamx.marking.wrong_attention import measure
from pcamx.progress import mute, silent
from pcamx.run.folder import RunFolder
from pcamx.run.pretrained import Pretrained, from_pretrained
from pcamx.run.report import read_report, read_report_of, write_report
from pcamx.types import ABNORMAL, NORMAL


@pytest.fixture(name="run", scope="module")
def _run(tmp_path_factory: pytest.TempPathFactory, write_config: Any) -> Path:
    folder = tmp_path_factory.mktemp("mirrored")
    return random_runs.random_run(folder / "run", write_config(folder))


@pytest.fixture(name="switch")
def _switch(run: Path) -> Callable[[bool], Path]:
    def to(mirrored: bool) -> Path:
        here = RunFolder(run)
        changed = configs.changed(here.read_config(), {"model.mirrored": mirrored})
        here.config_file.write_text(configs.dump(changed))
        return run

    return to


Switch = Callable[[bool], Path]


def mean_of(model: Pretrained, grey: Tensor) -> tuple[Tensor, Tensor]:
    """Probability and decoder's map by the network's parts, told nothing of mirror images."""
    network, size = model.network, (32, 32)
    assert network.decoder is not None
    logits, lesions = [], []
    for image in (model.standardise(grey), model.standardise(grey).flip(-1)):
        features = network.encoder(image)
        logits.append(network.head(features[-1])[0])
        lesions.append(torch.sigmoid(network.decoder(features, size))[:, 0])
    margin_B = (logits[0] + logits[1])[:, ABNORMAL] / 2 - (logits[0] + logits[1])[:, NORMAL] / 2
    return torch.sigmoid(margin_B), (lesions[0] + lesions[1].flip(-1)) / 2


@torch.no_grad()
def test_evaluate_and_explain_give_the_same_numbers(switch: Switch) -> None:
    """Scores, decisions on twins and on erased films, and what predict's network says."""
    measured = open_run(switch(True), None, "valid", silent, print)
    networks = {"stage 3": measured.networks()["stage 3"]}
    films = measured.store.split("valid")
    model = from_pretrained(measured.run.path, device="cpu")
    assert model.mirrored
    greys = [
        batch.image_B1HW * model.std + model.mean for batch in measured.some(measured.store, films)
    ]
    probability_B, lesion_BHW = mean_of(model, torch.cat(greys))
    said_B, maps = model.explain(torch.cat(greys))
    torch.testing.assert_close(said_B, probability_B, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(maps["decoder"], lesion_BHW, rtol=1e-4, atol=1e-5)

    def batches() -> Any:
        return measured.some(measured.store, films)

    explainers = measured.explainers(measured.networks(), measured.untrained())
    scores = score({"stage 3": explainers["stage 3"]}, batches(), films)["stage 3"]
    assert scores.probability_N is not None
    torch.testing.assert_close(scores.probability_N, said_B, rtol=1e-4, atol=1e-5)
    found = probabilities(networks, batches())["stage 3"]  # type: ignore[arg-type]
    torch.testing.assert_close(found, said_B, rtol=1e-4, atol=1e-5)
    margin_N = margins(networks, batches())["stage 3"]  # type: ignore[arg-type]
    np.testing.assert_allclose(1 / (1 + np.exp(-margin_N)), said_B.numpy(), atol=1e-5)
    erased = erase_lesions(networks, batches())["stage 3"]  # type: ignore[arg-type]
    marked = [i for i, film in enumerate(films) if film.mark]
    np.testing.assert_allclose(
        next(iter(erased.by_fill.values())).film_M,
        margin_N[[marked[i] for i in erased.films]],
        atol=1e-4,
    )
    plain = from_pretrained(switch(False), device="cpu")
    assert not plain.mirrored
    assert not torch.allclose(plain.explain(torch.cat(greys))[0], said_B, atol=1e-4)


@torch.no_grad()
def test_predict_and_explain_a_film_and_its_mirror_image(switch: Switch, tmp_path: Path) -> None:
    """Of the canvas's size: nothing is resized, so the numbers are the same to the bit."""
    grey = images(1, 1, 32, 32)[0, 0]
    pixels = ((grey - grey.min()) / (grey.max() - grey.min()) * 255).to(torch.uint8).numpy()
    paths = [tmp_path / "film.png", tmp_path / "turned.png"]
    Image.fromarray(pixels).save(paths[0])
    Image.fromarray(np.ascontiguousarray(pixels[:, ::-1])).save(paths[1])
    run = switch(True)
    model = from_pretrained(run, device="cpu")
    film, turned = model.predict(paths)
    assert film.probability == turned.probability
    for key in film.maps:
        assert np.array_equal(film.maps[key], turned.maps[key][:, ::-1])
    probability, lesion = mean_of(model, torch.from_numpy(pixels)[None, None])
    assert film.probability == pytest.approx(float(probability), abs=1e-5)
    np.testing.assert_allclose(film.maps["decoder"], lesion[0].detach(), atol=1e-5)
    explain(run, paths, out=tmp_path / "out", workers=1)
    assert np.array_equal(np.load(tmp_path / "out/films/film.png.npy"), film.maps["decoder"])
    assert '"mirrored": true' in (tmp_path / "out/films/film.png.json").read_text()


def test_suggest_still_tells_an_unsteady_map(switch: Switch) -> None:
    """The mean's map is the same on both, so the sign is of the film and its image alone."""
    found = []
    for mirrored in (False, True):
        model, store = opened(switch(mirrored), None, mute)
        found.append(measure(model, store, store.split("train")[:6]))
    alone, mean = ([signs.unsteady for signs in one] for one in found)
    assert alone == pytest.approx(mean) and max(alone) > 0
    assert [s.probability for s in found[0]] != [s.probability for s in found[1]]


def test_what_was_measured_of_other_answers_is_refused(switch: Switch, tmp_path: Path) -> None:
    """A report of before the key, and one that says it was on: thresholds, and a comparison."""
    run = RunFolder(switch(False))
    random_runs.write_report(run.path)
    weights = run.load_weights(3)
    assert read_report_of(run, weights) is not None
    switch(True)
    with pytest.raises(PcamxError, match="before model.mirrored became true; run pcamx evaluate"):
        from_pretrained(run.path)
    shutil.copy(write_run(tmp_path / "films", [0, 1]) / "films.csv", run.films_file)
    other = write_run(tmp_path / "other", [0, 1])
    with pytest.raises(PcamxError, match="before model.mirrored became true; run pcamx evaluate"):
        read_runs([run.path, other])
    report = read_report(run)
    report["config"] = configs.as_tree(run.read_config())
    write_report(run, report)
    assert from_pretrained(run.path, device="cpu").thresholds["decoder"].value == 0.55
    switch(False)
    with pytest.raises(PcamxError, match="before model.mirrored became false; run pcamx evaluate"):
        from_pretrained(run.path)
    run.report_file.unlink()
