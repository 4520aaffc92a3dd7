"""What would have gone wrong in the first hour on a GPU, as far as a CPU can show it."""

import os
import resource
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import conftest
import pytest
import torch

from pcamx import engine
from pcamx.engine import checkpoint_files, ranks
from pcamx.errors import PcamxError
from pcamx.output import refused, replacing_file
from pcamx.run import checkpoints
from pcamx.run.checkpoints import Progress

CUDA = engine.Ranks(0, 1, torch.device("cuda", 0))
CPU = engine.Ranks(0, 1, torch.device("cpu"))


def test_each_parameter_has_a_step_count_beside_it() -> None:
    """As a universal checkpoint leaves it: one tensor of the CPU for all."""
    there, here = torch.empty(3, device="meta"), torch.ones(3)
    optimizer = torch.optim.AdamW([there, here])
    step = torch.tensor(7.0)
    for parameter in (there, here):
        optimizer.state[parameter] = {"step": step}
    checkpoint_files._place_steps(optimizer)
    assert optimizer.state[there]["step"].device.type == "meta"
    assert optimizer.state[here]["step"] == 7 and optimizer.state[here]["step"] is not step


@pytest.mark.parametrize("begun_on_a_gpu", [True, False])
def test_a_run_may_go_on_where_it_has_not_begun(tmp_path: Path, begun_on_a_gpu: bool) -> None:
    state: dict[str, Any] = {"buffers": {}, "rng": torch.get_rng_state()}
    if begun_on_a_gpu:
        state["cuda_rng"] = torch.zeros(16, dtype=torch.uint8)
    torch.save(state, tmp_path / "rank_0.pt")
    model = SimpleNamespace(module=torch.nn.Linear(1, 1), zero_optimization_stage=lambda: 0)
    with mock.patch.object(torch.cuda, "set_rng_state") as restored:
        checkpoints._restore_rank(model, tmp_path, CUDA, universal=False)
        assert restored.called == begun_on_a_gpu
        checkpoints._restore_rank(model, tmp_path, CPU, universal=False)
        assert restored.call_count == begun_on_a_gpu


def _full_disk() -> None:
    torch.save({"a": torch.zeros(1000)}, "/dev/full")


def _no_folder() -> None:
    torch.save({"a": torch.zeros(1000)}, "/nowhere/at/all.pt")


@pytest.mark.parametrize("write", [_full_disk, _no_folder])
def test_what_torch_says_of_a_disk(write: Any) -> None:
    with pytest.raises(RuntimeError) as error:
        write()
    assert refused(error.value)


def test_whatever_torch_says_of_a_full_disk(tmp_path: Path) -> None:
    """Its writer raises another error where only the last bytes do not fit."""
    state, path = {"a": torch.zeros(20_000)}, tmp_path / "x.pt"
    torch.save(state, path)
    size, (soft, hard) = path.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    said = set()
    for room in (*range(0, size - 1000, 9973), *range(size - 1000, size, 111)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            with pytest.raises((OSError, RuntimeError)) as raised:
                torch.save(state, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert refused(raised.value), raised.value
        said.add(str(raised.value)[:20])
    assert len(said) > 1


FAULTS = (RuntimeError("CUDA error: an illegal memory access was encountered"),)
FAULTS += (torch.OutOfMemoryError("CUDA out of memory"),)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_fault_while_saving_is_not_called_a_full_disk(tmp_path: Path, fault: Exception) -> None:
    root = tmp_path / "checkpoints"
    (root / "step00000002").mkdir(parents=True)

    def save_checkpoint(folder: str, tag: str, save_latest: bool) -> None:
        (Path(folder) / tag).mkdir()
        raise fault

    broken = SimpleNamespace(save_checkpoint=save_checkpoint)
    with mock.patch.object(checkpoints.dist, "barrier"):
        with pytest.raises(type(fault), match="CUDA"):
            checkpoints.save(broken, tmp_path, Progress(done=3), CPU, "")
        assert (root / "step00000003").is_dir()
        fault = OSError(28, "No space left on device")
        with pytest.raises(PcamxError, match="No space left on device; make room"):
            checkpoints.save(broken, tmp_path, Progress(done=3), CPU, "")
    assert [path.name for path in root.iterdir()] == ["step00000002"]


def test_a_fault_while_a_file_is_written_is_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="CUDA"), replacing_file(tmp_path / "file"):
        raise RuntimeError("CUDA error: out of memory")
    assert list(tmp_path.iterdir()) == []


def test_each_rank_compiles_into_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first, second = ranks._kernel_cache(0), ranks._kernel_cache(1)
    assert first != second and ranks._kernel_cache(0) == first
    assert stat.S_IMODE(first.stat().st_mode) == 0o700
    # What others may write into, or have put there, is not taken: compiled code is run.
    first.chmod(0o777)
    assert ranks._kernel_cache(0) not in (first, second)
    second.rmdir()
    second.symlink_to(tmp_path)
    assert ranks._kernel_cache(1) != second


@pytest.mark.parametrize(
    ("expression", "asks"),
    [("not gpu", False), ("not gpu and not slow", False), ("", False), ("slow", False)]
    + [("gpu", True), ("gpu and not slow", True)],
)
def test_gpus_are_hidden_from_tests_that_are_not_about_them(expression: str, asks: bool) -> None:
    assert conftest.asks_for_gpu(expression) == asks


def test_no_gpu_is_seen_here(request: pytest.FixtureRequest) -> None:
    if not conftest.asks_for_gpu(request.config.getoption("markexpr")):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "" and not torch.cuda.is_available()
