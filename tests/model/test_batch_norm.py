"""Batch norm over the ranks: two ranks compute what one computes with all their films."""

import dataclasses
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from conftest import EQ_4_KEYS
from small_stages import settings
from torch import Tensor, nn

from pcamx import config as configs
from pcamx import engine
from pcamx.config import Config
from pcamx.data.canvas.provider import Decoded
from pcamx.data.feed.batches import open_feed
from pcamx.data.store import read_store
from pcamx.errors import PcamxError
from pcamx.model import batch_norm
from pcamx.model.batch_norm import BatchNorm, join_ranks
from pcamx.model.network import Network, batch_norm_by
from pcamx.training.stages import build_stage

HALVES = (slice(0, 4), slice(4, 8))
STEPS = 3
ZERO = (0, 2, 3)


def gradients(part: slice) -> dict[str, Tensor]:
    """Float64, of two passes as stage 2 makes them, and what the running statistics became."""
    torch.manual_seed(0)
    network = Network(settings(), decoder=True)
    join_ranks(network)
    network = network.double().train()
    generator = torch.Generator().manual_seed(1)
    # Ranks whose films differ in brightness and contrast.
    image = torch.randn(8, 1, 32, 32, generator=generator, dtype=torch.float64)
    scale = torch.linspace(0.5, 3, 8, dtype=torch.float64)[:, None, None, None]
    image = (scale * image + 2 * scale)[part]
    label = (torch.arange(8) % 2)[part]
    features = network.encoder(image)
    logits = network.head(features[-1])[0]
    assert network.decoder is not None
    answer = network.decoder(features, (32, 32))
    with batch_norm_by(network, "batch"):
        masked = network(image * torch.sigmoid(answer.double()))
    weights = torch.linspace(1, 2, 8, dtype=torch.float64)[part]
    losses = F.cross_entropy(logits, label, reduction="none")
    losses = losses + F.cross_entropy(masked, label, reduction="none")
    ((losses + answer.square().mean((1, 2, 3))) * weights).mean().backward()
    found = {f"gradient of {n}": p.grad for n, p in network.named_parameters()}
    return {n: g for n, g in found.items() if g is not None} | dict(network.named_buffers())


def steps(config: Config, ranks: engine.Ranks, folder: str) -> list[float]:
    """Losses of this rank in a few steps of stage 3.

    Without oneDNN, which on some processors convolves 8 films by another algorithm than 4: Adam's
    first updates make a thousandth of the loss of the rounding.
    """
    decoded = Decoded(config.data, read_store(Path(config.data.store)), ranks.device)
    feed = open_feed(config, decoded, stage=3, rank=ranks.rank, world=ranks.world)
    torch.manual_seed(0)
    stage = build_stage(3, config, feed.images)
    model = engine.initialize(
        stage, config, configs.Stage(epochs=1, lr=1e-3), 100, folder=Path(folder), universal=False
    )
    with torch.backends.mkldnn.flags(enabled=False):  # type: ignore[no-untyped-call]
        return [
            float(engine.train_step(model, batch, clipping=1.0)["loss"])
            for _, batch in zip(range(STEPS), feed.epoch(0), strict=False)
        ]


def one_rank(rank: int, world: int, config: Config, port: int, folder: str) -> None:
    import os

    os.environ |= processes.environment(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    joined = engine.start()
    norm = BatchNorm(1).train()
    shown = norm(torch.tensor([5.0, 9.0])[[rank] if world == 2 else [0, 1]].reshape(-1, 1, 1, 1))
    found: dict[str, Any] = {
        "by hand": [shown[0].item(), norm.running_mean.item(), norm.running_var.item()],  # type: ignore[union-attr]
        "network": gradients(HALVES[rank] if world == 2 else slice(0, 8)),
    }
    for zero in ZERO:
        for sync in (True, False) if zero == 0 else (True,):
            runtime = dataclasses.replace(config.runtime, zero_stage=zero, sync_batch_norm=sync)
            changed = dataclasses.replace(config, runtime=runtime)
            found[f"{zero} {sync}"] = steps(changed, joined, folder)
    torch.save(found, f"{folder}/{world}-{rank}.pt")
    dist.barrier()
    engine.stop()


@pytest.fixture(scope="module")
def ranks(
    tmp_path_factory: pytest.TempPathFactory, write_config: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What two ranks found, and what one found with all their films."""
    out = tmp_path_factory.mktemp("sync")
    config = configs.load(write_config(out, {"runtime.precision": "fp32"} | EQ_4_KEYS))
    for world in (1, 2):
        given = world, config, processes.free_port(), str(out)
        processes.on_ranks(one_rank, *given, world=world)
    one, *two = (torch.load(out / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    return two, one


@pytest.mark.slow
def test_two_films_by_hand(ranks: tuple[list[dict[str, Any]], dict[str, Any]]) -> None:
    """5 and 9: mean 7, variance 4, without bias 8; momentum 0.1 from 0 and 1."""
    two, _ = ranks
    for found, expected in zip(two, (-1, 1), strict=True):
        assert found["by hand"] == pytest.approx([expected, 0.7, 1.7], abs=1e-5)


@pytest.mark.slow
def test_the_gradient_is_that_of_one_rank(
    ranks: tuple[list[dict[str, Any]], dict[str, Any]],
) -> None:
    two, one = ranks
    for name, expected in one["network"].items():
        mean = (two[0]["network"][name] + two[1]["network"][name]) / 2
        if not name.startswith("gradient"):  # running statistics: the same on both
            torch.testing.assert_close(two[0]["network"][name], two[1]["network"][name])
        if expected.is_floating_point():
            scale = float(expected.abs().max())
            torch.testing.assert_close(mean, expected, rtol=1e-8, atol=1e-10 * scale + 1e-13)
    assert int(one["network"]["encoder.stem.0.1.num_batches_tracked"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("zero", ZERO)
def test_a_training_is_that_of_one_rank(
    ranks: tuple[list[dict[str, Any]], dict[str, Any]], zero: int
) -> None:
    two, one = ranks

    def mean(case: str) -> list[float]:
        return [sum(pair) / 2 for pair in zip(*(found[case] for found in two), strict=True)]

    expected = one[f"{zero} True"]
    assert len(expected) == STEPS
    assert mean(f"{zero} True") == pytest.approx(expected, rel=1e-5)
    # By each rank's own part it is another training.
    assert mean("0 False") != pytest.approx(expected, rel=1e-2)
    assert one["0 True"] == one["0 False"]


def test_on_one_rank_and_in_evaluation_it_is_torchs() -> None:
    torch.manual_seed(0)
    ours, theirs = BatchNorm(3), nn.BatchNorm2d(3)
    for _ in range(2):
        x = torch.randn(4, 3, 5, 5) * 2 + 1
        assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
    assert all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values()))
    assert ours.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_its_own_sums_give_torchs_batch_norm(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """Values, gradients and running statistics, of films far from 0 as well."""
    monkeypatch.setattr(batch_norm, "rank_count", lambda: 2)  # sums of this rank alone
    torch.manual_seed(0)
    ours, theirs = BatchNorm(3), nn.BatchNorm2d(3)
    for norm in (ours, theirs):
        norm.weight.data.copy_(torch.tensor([0.5, 1.0, 2.0]))
    x = (torch.randn(4, 3, 5, 5) * 2 + torch.tensor([0.0, 1.0, 50.0]).view(3, 1, 1)).to(dtype)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    shown = [norm(i) for norm, i in zip((ours, theirs), inputs, strict=True)]
    assert shown[0].dtype == dtype
    for out in shown:
        (out.float() * torch.linspace(-1, 2, 300).view(4, 3, 5, 5)).sum().backward()
    near = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.02}
    torch.testing.assert_close(*shown, **near)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, **near)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, **near)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_every_batch_norm_of_a_stage_is_joined_where_the_config_asks() -> None:
    config = settings()
    for asked in (False, True):
        runtime = dataclasses.replace(config.runtime, sync_batch_norm=asked)
        stage = build_stage(3, dataclasses.replace(config, runtime=runtime), 8)
        norms = [m for m in stage.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        assert len(norms) > 20
        assert all(isinstance(norm, BatchNorm) == asked for norm in norms)


def test_names_and_values_stay_and_another_kind_is_refused() -> None:
    torch.manual_seed(0)
    network = Network(settings(), decoder=True)
    for buffer in network.buffers():
        buffer.add_(1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    join_ranks(network)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    other = nn.Sequential(nn.Sequential(nn.BatchNorm1d(2)))
    with pytest.raises(PcamxError, match=r"^runtime.sync_batch_norm: .* BatchNorm1d"):
        join_ranks(other)
