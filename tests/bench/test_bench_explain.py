"""bench.explain at the smallest size: its checks, its rows, and memory film by film."""

import sys
from pathlib import Path

import pytest
import torch

from bench import explain as bench
from bench.lib import map_calls
from bench.lib.operations import peers
from bench.lib.operations.peers import GRAD_CAM, TORCH_CAM
from pcamx.errors import PcamxError

CPU = torch.device("cpu")


def test_maps_are_held_against_the_reference() -> None:
    rows, notes = bench.measure_maps(CPU, canvas=64, batch=2)
    missing = [line for line in notes if line.startswith("not run: ")]
    speeds = {row.impl: row.value for row in rows if row.metric == "speed" and row.unit != "x"}
    absent = {name for name in (TORCH_CAM, GRAD_CAM) if any(name in line for line in missing)}
    ours = {map_calls.OURS, map_calls.DROP_IN, bench.DECODER}
    assert set(speeds) == ours | ({TORCH_CAM, GRAD_CAM} - absent)
    assert all(speed > 0 for speed in speeds.values())
    for rival in {TORCH_CAM, GRAD_CAM} - absent:
        (ratio,) = (row.value for row in rows if row.ratio_to == rival)
        assert ratio > 0


def test_a_wrong_map_gets_no_figure() -> None:
    truth = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0))
    map_calls.check_maps("right", truth + 1e-4, truth)
    with pytest.raises(PcamxError, match="wrong: its maps are .* off; no figure was written"):
        map_calls.check_maps("wrong", truth.flip(2), truth)


def test_the_decoders_answer_is_held_against_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = map_calls.decoder_answer
    monkeypatch.setattr(bench, "decoder_answer", lambda *given: 1 - answer(*given))
    with pytest.raises(PcamxError, match="with the decoder: its maps are"):
        bench.measure_maps(CPU, 32, 2)


def test_folder(phantoms: Path, tmp_path: Path) -> None:
    films = phantoms / "MURA-v1.1" / "valid"
    rows = bench.measure_folder(films, CPU, 32, tmp_path)
    found = {row.metric: row.value for row in rows}
    assert set(found) == {"speed", "memory in the second tenth", "memory in the last tenth"}
    assert found["speed"] > 0 and all(100 < found[m] < 20_000 for m in found if m != "speed")


def test_grad_cam_comes_without_what_it_does_not_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its package imports torchvision, which this PyTorch may have no build of."""
    package = tmp_path / "pytorch_grad_cam"
    (package / "utils").mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from torchvision.transforms import Compose\nfrom sklearn.decomposition import NMF\n"
        "class GradCAM: pass\n"
    )
    (package / "utils/__init__.py").write_text("")
    target = "import torchvision\nclass ClassifierOutputTarget: pass\n"
    (package / "utils/model_targets.py").write_text(target)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [n for n in sys.modules if n.partition(".")[0] == "pytorch_grad_cam"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("torchvision", "sklearn"):
        monkeypatch.setitem(sys.modules, name, None)  # no import finds it
    cam, _, absent = peers.import_grad_cam.__wrapped__()
    assert cam.__module__ == "pytorch_grad_cam" and absent == ["torchvision", "sklearn"]
