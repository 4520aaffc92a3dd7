"""bench.explain at the smallest size: its checks, its rows, and memory film by film."""

from pathlib import Path

import pytest
import torch

from bench import explain as bench
from bench.peers import GRAD_CAM, TORCH_CAM
from pcamx.errors import PcamxError

CPU = torch.device("cpu")


def test_maps_are_held_against_the_reference() -> None:
    rows, missing = bench.measure_maps(CPU, canvas=64, batch=2)
    speeds = {row.impl: row.value for row in rows if row.metric == "speed" and row.unit != "x"}
    absent = {name for name in (TORCH_CAM, GRAD_CAM) if any(name in line for line in missing)}
    ours = {bench.OURS, bench.DROP_IN, bench.DECODER}
    assert set(speeds) == ours | ({TORCH_CAM, GRAD_CAM} - absent)
    assert all(speed > 0 for speed in speeds.values())
    for rival in {TORCH_CAM, GRAD_CAM} - absent:
        (ratio,) = (row.value for row in rows if row.ratio_to == rival)
        assert ratio > 0


def test_a_wrong_map_gets_no_figure() -> None:
    truth = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0))
    bench._check("right", truth + 1e-4, truth)
    with pytest.raises(PcamxError, match="wrong: its maps are .* off; no figure was written"):
        bench._check("wrong", truth.flip(2), truth)


def test_folder(phantoms: Path, tmp_path: Path) -> None:
    films = phantoms / "MURA-v1.1" / "valid"
    rows = bench.measure_folder(films, CPU, 32, tmp_path)
    found = {row.metric: row.value for row in rows}
    assert set(found) == {"speed", "memory in the second tenth", "memory in the last tenth"}
    assert found["speed"] > 0 and all(100 < found[m] < 20_000 for m in found if m != "speed")
