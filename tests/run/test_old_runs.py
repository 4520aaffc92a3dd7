"""A run and an export of pcamx 0.1.0 as it was before runs kept origin.json; they still load.

before_rooms.tar.xz beside this file was made at commit fd7edcf: stage 3 of a run on 96 drawn films
of 64 px (seed 3), its weights rounded to a few levels so that the archive is small, evaluated,
exported, and asked for one canvas; expected.json is what that commit answered.
"""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

from pcamx import config as configs
from pcamx import from_pretrained
from pcamx.catalogue import DECODER, POSITIVE_CAM
from pcamx.compare.measured import read_run
from pcamx.errors import PcamxError
from pcamx.run.folder import RunFolder
from pcamx.run.report import read_report


@pytest.fixture(name="old")
def _old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    archive = Path(__file__).parent / "before_rooms.tar.xz"
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    (tmp_path / "store").mkdir()
    for name in ("store.json", "manifest.csv"):
        shutil.move(tmp_path / name, tmp_path / "store" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("folder", ["run", "export"])
def test_gives_what_it_gave(old: Path, folder: str) -> None:
    model = from_pretrained(folder, device="cpu")
    grey = (torch.arange(64 * 64).reshape(1, 1, 64, 64) % 251).to(torch.uint8)
    probability, maps = model.explain(grey)
    expected: dict[str, Any] = json.loads((old / "expected.json").read_text())
    assert float(probability[0]) == pytest.approx(expected["probability"], rel=1e-4)
    for kind in (POSITIVE_CAM, DECODER):
        assert float(maps[kind.key].sum()) == pytest.approx(expected[kind.key], rel=1e-4)
    assert model.thresholds[DECODER.key].tuned


def test_its_settings_and_report_are_read(old: Path) -> None:
    run = RunFolder(old / "run")
    assert configs.load(run.config_file).runtime.impl == "auto"
    assert set(read_report(run)["stages"]) == {"3"}


def test_its_films_csv_had_fewer_columns(old: Path) -> None:
    with pytest.raises(PcamxError, match="columns are not those of this version; run") as caught:
        read_run(old / "run", "run")
    assert "\n" not in str(caught.value) and f"pcamx evaluate {old / 'run'}" in str(caught.value)


def test_away_from_its_store_it_says_what_to_do(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = old / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with pytest.raises(PcamxError, match="its films is not at store; bring it back") as caught:
        from_pretrained(old / "run")
    assert "\n" not in str(caught.value)


def test_of_another_store(old: Path) -> None:
    with (old / "store" / "manifest.csv").open("a") as file:
        file.write("one,more\n")
    with pytest.raises(PcamxError, match="store was prepared anew since .*run began"):
        from_pretrained(old / "run")
