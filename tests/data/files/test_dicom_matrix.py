"""Drawn DICOM films of every kind against the levels they were drawn with, grey by grey: as they
are read, as `prepare` stores them, and as `explain` and `predict` hand them to the network.
"""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import dicom_matrix
import numpy as np
import pytest
import random_runs
import torch
from numpy.typing import NDArray
from PIL import Image

from pcamx.catalogue import POSITIVE_CAM
from pcamx.data.canvas.placement import fit
from pcamx.data.files.film import read_film
from pcamx.data.files.image import white_level
from pcamx.data.prepare.store_builder import prepare
from pcamx.data.store import read_store
from pcamx.explain import maps
from pcamx.explain.inputs import find_films
from pcamx.explain.read_film import Reading, read
from pcamx.run.pretrained import Pretrained, from_pretrained

CASES = 520
SENT_ON = 40  # through the commands


@pytest.mark.parametrize("part", range(8))
def test_every_kind_of_film_shows_what_was_drawn(tmp_path: Path, part: int) -> None:
    wrong = []
    for case in dicom_matrix.cases(CASES)[part::8]:
        path = tmp_path / "a.dcm"
        expected, padded = dicom_matrix.draw(case, path)
        try:
            found = read_film(path)
        except Exception as error:
            wrong.append(f"{error!r}: {case}")
            continue
        off = np.abs(found.grey_HW.astype(float) - expected).max()
        if found.grey_HW.shape != expected.shape or off > 1 or found.padded != padded:
            wrong.append(f"{off:g} off, {found.padded} padded: {case}")
    assert not wrong, f"{len(wrong)} wrong, the first: " + "\n".join(wrong[:5])


Drawn = dict[str, NDArray[np.float64]]
"""The grey levels that must come out, by the file's name."""


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Drawn]:
    """A folder of some of the matrix's films, evenly over all of it."""
    folder, drawn = tmp_path_factory.mktemp("matrix") / "films", {}
    folder.mkdir()
    for case in dicom_matrix.cases(CASES)[:: CASES // SENT_ON]:
        name = f"{case['seed']:03}.dcm"
        drawn[name] = dicom_matrix.draw(case, folder / name)[0]
    return folder, drawn


def white(expected_HW: NDArray[np.float64]) -> int:
    return white_level(expected_HW.astype(np.uint8 if expected_HW.max() < 256 else np.uint16))


def canvas_of(expected_HW: NDArray[np.float64]) -> NDArray[np.float64]:
    """Levels 0..255 on a canvas of a film's longer side, where nothing is resized."""
    height, width = expected_HW.shape
    place, canvas_HW = fit(width, height, dicom_matrix.HEIGHT), np.zeros((height, height))
    canvas_HW[:, place.left : place.left + width] = expected_HW * (255 / white(expected_HW))
    return canvas_HW


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, write_config: Any) -> Pretrained:
    folder = tmp_path_factory.mktemp("matrix_run")
    made = random_runs.random_run(folder / "run", write_config(folder))
    return replace(from_pretrained(made, device="cpu"), canvas=dicom_matrix.HEIGHT)


def test_prepare_stores_what_was_drawn(films: tuple[Path, Drawn], tmp_path: Path) -> None:
    folder, drawn = films
    rows = [(name, n % 2, "valid" if n % 4 > 1 else "train") for n, name in enumerate(drawn)]
    with (tmp_path / "labels.csv").open("w", newline="") as table:
        csv.writer(table).writerows([("path", "label", "split"), *rows])
    summary = prepare(folder, tmp_path / "store", table=tmp_path / "labels.csv", workers=1)
    assert (summary.dicoms, summary.quarantined) == (len(drawn), 0)
    store = read_store(tmp_path / "store")
    for film in store.films:
        expected = drawn[Path(film.path).with_suffix(".dcm").name]
        stored = np.asarray(Image.open(store.root / film.path)).astype(float)
        assert stored.shape == expected.shape and np.abs(stored - expected).max() <= 1, film.path
        assert film.white == white(expected), film.path


def test_explain_and_predict_hand_over_what_was_drawn(
    films: tuple[Path, Drawn], model: Pretrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, drawn = films
    given: list[torch.Tensor] = []
    real = maps.explain

    def explain(network: Any, image_B1HW: torch.Tensor, kinds: Any) -> Any:
        given.extend(image_B1HW[:, 0] * model.std + model.mean)
        return real(network, image_B1HW, kinds)

    monkeypatch.setattr(maps, "explain", explain)
    model.predict([folder / name for name in drawn])
    readings = [read(film) for film in find_films([folder])]  # as explain's processes do
    assert [reading.name for reading in readings if isinstance(reading, Reading)] == list(drawn)
    maps.answer(model, [r for r in readings if isinstance(r, Reading)], POSITIVE_CAM)
    for found_HW, name in zip(given, [*drawn] * 2, strict=True):
        assert np.abs(found_HW.numpy() - canvas_of(drawn[name])).max() <= 1, name
