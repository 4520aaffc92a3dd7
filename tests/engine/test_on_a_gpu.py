"""What only a GPU can show of training: `python -m pytest -m gpu tests/engine/test_on_a_gpu.py`.

Written where none was at hand; allowances are for cuDNN's rounding and its order of sums.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import torch
from film_files import CPU, film, make_store, texture
from PIL import Image
from run_files import losses_of, steps_of
from small_stages import films, make
from torch import Tensor

from pcamx import config as configs
from pcamx.data.canvas.decode import decode_batches
from pcamx.data.canvas.provider import Decoded
from pcamx.data.feed.batches import open_feed
from pcamx.data.store import read_store
from pcamx.devices import whole_float32
from pcamx.training.stages import Stage
from pcamx.types import Batch

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
GPU = torch.device("cuda", 0)
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


def _train(world: int, config: Path, *words: str, stop: str = "", **env: str) -> processes.Ended:
    given = ("--stage", 1, "--config", config.name, *words)
    return processes.ranks(world, *given, cwd=config.parent, stop=stop, **env)


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_a_stopped_run_goes_on(tmp_path: Path, write_config: Any, zero: int) -> None:
    runs = []
    for name, stop in (("straight", ""), ("stopped", "0 0 1 SIGTERM")):
        config = write_config(tmp_path / name, {"runtime.zero_stage": zero})
        ended = _train(1, config, stop=stop)
        assert ended.code == (130 if stop else 0), ended.text
        if stop:
            ended = _train(1, config, "--resume").ok()
            assert "continues in epoch 1 after step 2" in ended.text
        runs.append(config.parent / "run")
    assert steps_of(runs[0], 1) == steps_of(runs[1], 1)
    # Two and a half steps alike; what cuDNN sums in another order grows from there.
    assert losses_of(runs[1], 1)[:3] == pytest.approx(losses_of(runs[0], 1)[:3], rel=1e-2)


@pytest.mark.parametrize("zero", [1, 2, 3])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_begun_on_cpus_goes_on(
    tmp_path: Path, write_config: Any, zero: int, ranks: int
) -> None:
    """From two ranks by a universal checkpoint, after which fused AdamW takes its steps."""
    changes = {"runtime.zero_stage": zero, "runtime.precision": "fp32"}
    config = write_config(tmp_path, changes)
    assert _train(ranks, config, stop="0 0 1 SIGTERM", **NO_GPU).code == 130
    ended = _train(1, config, "--resume").ok()
    assert ("now on 1 ranks instead of 2" in ended.text) == (ranks == 2)
    run = config.parent / "run"
    assert steps_of(run, 1) == list(range(1, 9))
    straight = write_config(tmp_path / "straight", changes)
    _train(ranks, straight, **NO_GPU).ok()
    expected = losses_of(straight.parent / "run", 1)
    assert losses_of(run, 1)[:3] == pytest.approx(expected[:3], rel=1e-3)


@pytest.mark.parametrize("how", ["on", "reduce-overhead"])
def test_compiled_zero_1_trains_alike(tmp_path: Path, write_config: Any, how: str) -> None:
    losses = []
    for name in ("off", how):
        changes = {"runtime.compile": name, "runtime.precision": "fp32", "runtime.zero_stage": 1}
        config = write_config(tmp_path / name, changes)
        _train(1, config).ok()
        losses.append(losses_of(config.parent / "run", 1))
    assert losses[1][:2] == pytest.approx(losses[0][:2], rel=1e-3)


def test_streamed_films_are_resident_ones_and_take_no_more_memory(
    tmp_path: Path, write_config: Any
) -> None:
    found: dict[str, list[Tensor]] = {}
    free = []
    for kind in ("resident", "stream"):
        config = configs.load(write_config(tmp_path / kind, {"data.feed": kind}))
        decoded = Decoded(config.data, read_store(Path(config.data.store)), GPU)
        feed = open_feed(config, decoded, stage=1)
        found[kind] = []
        for epoch in range(3):
            found[kind] += [batch.image_B1HW.cpu() for batch in feed.epoch(epoch)]
            torch.cuda.synchronize()
            free.append(torch.cuda.mem_get_info(GPU)[0])
    assert all(torch.equal(a, b) for a, b in zip(*found.values(), strict=True))
    # The last of three streamed epochs takes no more than the first: 64 MB for what else goes on.
    assert free[-1] > free[-3] - 64 * 2**20


def _on(batch: Batch, device: torch.device) -> Batch:
    return Batch(*(t.to(device) for t in batch))


def _gradients(stage: Stage, batch: Batch) -> Tensor:
    output = stage(batch)
    output.loss.backward()
    gradients = [p.grad.flatten() for p in stage.parameters() if p.grad is not None]
    return torch.cat([output.loss.detach().view(1), *gradients]).double().cpu()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_float32_is_float32(number: int) -> None:
    """Against float64 on the CPU; TF32 would err a hundred times as much."""
    whole_float32()
    batch = films(8, 64)
    exact = _gradients(
        make(number).double(), Batch(*(t.double() if t.is_floating_point() else t for t in batch))
    )
    here = _gradients(make(number), batch)
    there = _gradients(make(number).to(GPU), _on(batch, GPU))
    allowed = 10 * (here - exact).norm() + 1e-5 * exact.norm()
    assert (there - exact).norm() < allowed


@pytest.mark.parametrize(("suffix", "most", "mean"), [
    (".png", 1, 0.05), (".jpg", 6, 0.5), (".j2c", 1, 0.05), (".jp2", 1, 0.05),
])  # fmt: skip
def test_films_decoded_there_are_those_decoded_here(
    tmp_path: Path, suffix: str, most: int, mean: float
) -> None:
    """Reduced by DALI's own kernels: by rounding, another grey level at most; JPEG's may differ."""
    imagecodecs = pytest.importorskip("imagecodecs")
    sizes = [(150, 100), (97, 131), (64, 64)]
    listed = []
    for i, size in enumerate(sizes):
        grey, buffer = texture(*size, seed=i), io.BytesIO()
        kind = {".png": "PNG", ".jpg": "JPEG"}.get(suffix)
        if kind:
            Image.fromarray(grey).save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
        coded = {".j2c": imagecodecs.htj2k_encode, ".jp2": imagecodecs.jpeg2k_encode}.get(suffix)
        content = buffer.getvalue() if coded is None else bytes(coded(grey, reversible=True))
        (tmp_path / f"{i}{suffix}").write_bytes(content)
        listed.append(film(f"{i}{suffix}", *size))
    store = make_store(tmp_path, listed)
    here, there = (
        next(decode_batches(store.root, store.films, [range(3)], 64, device=d, threads=1)).cpu()
        for d in (CPU, GPU)
    )
    difference = np.abs(here.numpy().astype(int) - there.numpy().astype(int))
    assert difference.max() <= most and difference.mean() <= mean


def test_no_tf32_in_a_run(tmp_path: Path, write_config: Any) -> None:
    """The first loss of a run in fp32 is the CPU's."""
    losses = []
    for name, env in (("here", NO_GPU), ("there", {})):
        config = write_config(tmp_path / name, {"runtime.precision": "fp32"})
        _train(1, config, **env).ok()
        losses.append(losses_of(config.parent / "run", 1)[0])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
