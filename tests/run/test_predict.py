"""Predictions in Python: the numbers of `pcamx explain`, with and without what training needs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dicoms
import numpy as np
import pytest
import random_runs
import torch
from PIL import Image

from pcamx.data.canvas.decode_pixels import decode_pixels
from pcamx.data.canvas.without_dali import lay_pixels
from pcamx.errors import PcamxError
from pcamx.explain.folder import explain
from pcamx.run.pretrained import from_pretrained

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, write_config: Any) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    made = random_runs.random_run(folder / "run", write_config(folder))
    random_runs.write_report(made)
    return made


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An upright and a turned film of 8 bits, one of 16, and a DICOM."""
    folder = tmp_path_factory.mktemp("films")
    pixels = dicoms.ramp(60, 40)
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = [folder / name for name in ("a.png", "turned.jpg", "deep.png", "film.dcm")]
    Image.fromarray((pixels >> 4).astype(np.uint8)).save(paths[0])
    Image.fromarray((pixels >> 4).astype(np.uint8)).save(paths[1], exif=exif)
    Image.fromarray(pixels).save(paths[2])
    dicoms.save(dicoms.dataset(pixels, WindowCenter=2000, WindowWidth=3000), paths[3])
    return paths


def test_same_numbers_as_explain(run: Path, films: list[Path], tmp_path: Path) -> None:
    explain(run, films, out=tmp_path / "out")
    model = from_pretrained(run, device="cpu")
    found = model.predict([str(film) for film in films])
    assert [one.path for one in found] == films
    for one in found:
        stem = tmp_path / "out/films" / one.path.name
        facts = json.loads(stem.with_name(stem.name + ".json").read_text())
        assert one.probability == facts["probability"]["abnormal"]
        assert (one.width, one.height) == (facts["width"], facts["height"])
        assert one.map == facts["map"]["of"] and set(one.maps) == set(model.thresholds)
        assert np.array_equal(one.maps[one.map], np.load(stem.with_name(stem.name + ".npy")))
        assert [scored.score for scored in one.candidates] == [
            candidate["score"] for candidate in facts["candidates"]
        ]
        assert one.candidates and facts["candidates"][0]["box"] == pytest.approx(
            one.candidates[0].candidate.box, abs=0.006
        )
        shown_hw = one.on_film("decoder")
        assert shown_hw.shape == (one.height, one.width) and np.isfinite(shown_hw).all()


def test_map_on_the_film(run: Path, films: list[Path]) -> None:
    """A film as large as the canvas has the map as it is; a reduced one its film's part alone."""
    one = from_pretrained(run, device="cpu").predict(films[0])
    place, whole = one.place, np.zeros((32, 32), np.float32)
    whole[place.top : place.top + place.height, place.left : place.left + place.width] = 3
    one.maps["cam"][:] = whole
    assert (one.on_film("cam") == 3).all()


def test_refusals_name_the_film(run: Path, tmp_path: Path) -> None:
    model = from_pretrained(run, device="cpu")
    (tmp_path / "text.png").write_text("not a film")
    for name in ("text.png", "missing.png"):
        with pytest.raises(PcamxError, match=name):
            model.predict(tmp_path / name)


@pytest.mark.parametrize(
    "wrong", [Image.new("L", (9, 9)), np.zeros((9, 9)), torch.zeros(9, 9), 3, [np.zeros((9, 9))]]
)
def test_what_is_no_path_is_refused(run: Path, wrong: Any) -> None:
    with pytest.raises(PcamxError, match="predict takes paths of films; this is a "):
        from_pretrained(run, device="cpu").predict(wrong)


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 4095)])
def test_canvas_without_dali(dtype: type, white: int) -> None:
    """A film of the canvas's size is the same to the bit; a smooth one within 2 grey levels."""
    y, x = np.mgrid[:500, :403] / 500
    smooth = (white * (0.5 + 0.4 * np.sin(9 * x) * np.cos(7 * y))).astype(dtype)
    for grey, most in ((np.ascontiguousarray(smooth[:64, :64]), 0), (smooth, 2)):
        ours = lay_pixels([grey], [white], 64).int()
        theirs = decode_pixels([grey], [white], 64, device=CPU, threads=1).int()
        assert (ours - theirs).abs().max() <= most


BLOCKED = """
import importlib.abc, sys
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("nvidia.dali", "deepspeed", "rich", "matplotlib", "torchmetrics",
                            "triton", "jinja2", "cv2")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
import pcamx
assert pcamx.PositiveCAM
model = pcamx.from_pretrained(sys.argv[1], device="cpu")
print([one.probability for one in model.predict(sys.argv[2:])])
"""


def test_without_what_training_needs(run: Path, films: list[Path]) -> None:
    """As `pip install pcamx` leaves it: no DALI, DeepSpeed, Triton, rich, matplotlib."""
    shown = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(run), *map(str, films)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stderr
    expected = [one.probability for one in from_pretrained(run, device="cpu").predict(films)]
    assert json.loads(shown.stdout) == pytest.approx(expected, abs=1e-3)
