"""What the marks teach the classifier beside eq. (4), within stage 3's forward."""

import contextlib
import copy
import dataclasses
import math
import os
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from conftest import EQ_4
from small_stages import films, make, settings
from torch import Tensor

from pcamx import config as configs
from pcamx import engine
from pcamx.config import Config, Objective
from pcamx.config.checks import ConfigError
from pcamx.data.canvas.provider import Decoded
from pcamx.data.feed.batches import open_feed
from pcamx.data.store import read_store
from pcamx.model.batch_norm import join_ranks
from pcamx.model.network import batch_norm_by
from pcamx.training.losses import guidance
from pcamx.training.losses.erasing import erased
from pcamx.training.losses.on_map import (
    agreement_loss,
    map_loss,
    mark_cells,
    outside_share,
    reasons_loss,
)
from pcamx.training.stages import build_stage
from pcamx.types import Batch

WEIGHTS = {"outside": 0.75, "map": 0.5, "agreement": 0.25, "reasons": 0.125, "erase": 2.0}
NAMES = {"agreement": "agree"}


def objective(*names: str, **more: Any) -> Objective:
    """With some of the terms, or all of them."""
    asked = names or tuple(WEIGHTS)
    weights = {f"{name}_weight": WEIGHTS[name] * (name in asked) for name in WEIGHTS}
    return Objective(**weights, **more)  # type: ignore[arg-type]


def test_the_terms_are_added_to_eq_4_by_their_weights() -> None:
    batch = films(8)
    plain = make(3, settings(objective=Objective(**EQ_4)))(batch).telemetry
    assert not plain.keys() & {"outside", "map", "agree", "reasons", "erase"}
    told = make(3, settings(objective=objective()))(batch).telemetry
    expected = plain["loss"].double()
    for name, weight in WEIGHTS.items():
        expected = expected + weight * told[NAMES.get(name, name)]
    torch.testing.assert_close(told["loss"].double(), expected, rtol=1e-5, atol=1e-5)
    assert all(told[name] > 0 for name in ("outside", "map", "agree", "reasons", "erase"))
    assert all(not value.requires_grad for value in told.values())


@pytest.mark.parametrize("kind", ["pointing", "energy", "bce", "l1", "gain"])
def test_the_terms_are_means_over_the_films_they_are_for(kind: Any) -> None:
    """Films 1 and 5 are marked, the odd ones abnormal."""
    batch, config = films(8), settings(objective=objective(map_loss=kind))
    stage = make(3, config).eval()
    told, network = stage(batch).telemetry, stage.network
    image = batch.image_B1HW.clone().requires_grad_()
    features = network.encoder(image)
    map_Bhw = network.class_map(features[-1])
    inside = mark_cells(batch.lesion_B1HW, (4, 4))
    torch.testing.assert_close(told["map"], map_loss(map_Bhw, inside, kind)[[1, 5]].mean())
    answer = network.decoder(features, (64, 64)).sigmoid()  # type: ignore[misc]
    torch.testing.assert_close(told["agree"], agreement_loss(map_Bhw, answer)[1::2].mean())
    reasons = reasons_loss(network.head(features[-1])[0], image, 1 - batch.lesion_B1HW)
    torch.testing.assert_close(told["reasons"], reasons[[1, 5]].mean(), rtol=1e-4, atol=1e-6)
    marked = torch.tensor([1, 5])
    healed, elsewhere, free = erased(batch.image_B1HW[marked], batch.lesion_B1HW[marked])
    assert free.all()
    error = [
        F.cross_entropy(network(images), torch.tensor([label, label]))
        for label, images in enumerate((healed, elsewhere))
    ]
    torch.testing.assert_close(told["erase"], torch.stack(error).mean())
    attended = network.head(features[-1], image)[1]
    outside = outside_share(attended.cam_Bhw, omega=10, sigma=0.5)
    torch.testing.assert_close(told["outside"], outside[1::2].mean())


def test_a_mark_that_left_the_canvas_does_not_count() -> None:
    batch, config = films(8), settings(objective=objective())
    gone = batch.lesion_B1HW.clone()
    gone[1] = 0
    without = batch._replace(marked_B=batch.marked_B & (torch.arange(8) != 1), lesion_B1HW=gone)
    told = [make(3, config)(b).telemetry for b in (batch._replace(lesion_B1HW=gone), without)]
    for name in ("map", "reasons", "erase"):
        torch.testing.assert_close(told[0][name], told[1][name])


def test_the_third_pass_leaves_the_running_statistics() -> None:
    batch = films(8)
    # Not with input gradients: where the image has one the stem sums in another order.
    plain = make(3, settings(objective=Objective(**EQ_4)))
    stage = make(3, settings(objective=objective("map", "agreement", "erase")))
    for made in (plain, stage):
        made(batch)
    for name, buffer in plain.named_buffers():
        assert torch.equal(buffer, stage.get_buffer(name)), name


def test_the_third_pass_normalises_by_its_own_batch() -> None:
    batch = films(8)
    batch = batch._replace(
        marked_B=batch.marked_B.roll(1), lesion_B1HW=batch.lesion_B1HW.roll(1, 0)
    )
    stage = make(3, settings(objective=objective("erase", marked_per_batch=2)))
    other = copy.deepcopy(stage)
    told = stage(batch).telemetry["erase"]
    rows = torch.tensor([2, 6])
    healed, elsewhere, _ = erased(batch.image_B1HW[rows], batch.lesion_B1HW[rows])
    with batch_norm_by(other.network, "batch"):
        logits = other.network(torch.cat([healed, elsewhere]))
    torch.testing.assert_close(told, F.cross_entropy(logits, torch.tensor([0, 0, 1, 1])))


@pytest.mark.parametrize(("world", "rows"), [(1, 2), (2, 2), (4, 4)])
def test_the_erased_films_are_the_same_on_any_number_of_ranks(
    monkeypatch: pytest.MonkeyPatch, world: int, rows: int
) -> None:
    """Two of 16 columns are kept for marked films, 4 and 12; others may be marked as well.

    A rank without one of them takes another in vain."""
    lesion = torch.zeros(16, 1, 32, 32)
    lesion[[1, 2, 4, 9, 12], :, 5:9, 5:9] = 1
    image = torch.arange(16.0).view(16, 1, 1, 1).expand(16, 1, 32, 32)
    taken: list[float] = []
    in_pass = 0
    monkeypatch.setattr(guidance, "rank_count", lambda: world)
    monkeypatch.setattr(
        guidance,
        "batch_norm_by",
        lambda *_, counted: contextlib.nullcontext(counts.append(counted)),
    )
    counts: list[bool] = []

    def network(images: Tensor) -> Tensor:
        seen.extend(images[: len(images) // 2, 0, 0, 0].tolist())
        return torch.zeros(len(images), 2)

    def mean(loss_B: Tensor, taken_B: Tensor, total: Tensor) -> Tensor:
        kept = taken_B[: len(taken_B) // 2].tolist()
        taken.extend(film for film, is_taken in zip(seen, kept, strict=True) if is_taken)
        return loss_B.sum()

    monkeypatch.setattr(guidance, "mean_over_ranks", mean)
    for rank in range(world):
        monkeypatch.setattr(guidance, "rank_number", lambda rank=rank: rank)
        share = slice(16 // world * rank, 16 // world * (rank + 1))
        shown = lesion[share].flatten(1).any(1)
        batch = Batch(image[share], shown.long(), lesion[share], shown)
        seen: list[float] = []
        guidance.erase_loss(network, batch, shown, 2)  # type: ignore[arg-type]
        in_pass += len(seen)
    assert taken == [4, 12] and in_pass == rows
    assert sum(counts) == min(2, world)


KEPT = (1, 3)
"""Of 12 columns: of two ranks one has none, or one has two and the other one."""


def erasing(part: slice, marked: int) -> tuple[float, Tensor]:
    """The erase loss of some of 12 marked films, and its gradient to the first weights."""
    stage = make(3, settings(objective=objective("erase")))
    join_ranks(stage.network)
    network = stage.network.double()
    batch = films(12, marked_every=2)
    lesion = batch.lesion_B1HW.roll(1, 0) + batch.lesion_B1HW
    shown = torch.ones(12, dtype=torch.bool)
    image = (batch.image_B1HW * torch.linspace(0.5, 3, 12)[:, None, None, None]).double()
    batch = Batch(image[part], batch.label_B[part], lesion[part], shown[part])
    loss = guidance.erase_loss(network, batch, shown[part], marked)
    loss.backward()
    weight = next(network.parameters())
    assert weight.grad is not None
    return float(loss.detach()), weight.grad


def erasing_rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.set_num_threads(1)
    found = [erasing((slice(0, 6), slice(6, 12))[rank], marked) for marked in KEPT]
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_joined_batch_norms_take_the_erased_films_alone(tmp_path: Path) -> None:
    """Not what a rank takes in vain: two ranks have the erase loss and the gradient of one."""
    processes.on_ranks(erasing_rank, str(tmp_path))
    shares = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for marked, (one, two) in zip(KEPT, zip(*shares, strict=True), strict=True):
        loss, gradient = erasing(slice(0, 12), marked)
        assert (one[0] + two[0]) / 2 == pytest.approx(loss, rel=1e-5)
        scale = float(gradient.abs().max())
        torch.testing.assert_close((one[1] + two[1]) / 2, gradient, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("any_marked", [True, False])
def test_every_gradient_is_there_and_finite(any_marked: bool) -> None:
    batch = films()
    if not any_marked:
        nobody = torch.zeros_like(batch.marked_B)
        batch = batch._replace(marked_B=nobody, lesion_B1HW=torch.zeros_like(batch.image_B1HW))
    stage = make(3, settings(objective=objective()))
    stage(batch).loss.backward()
    for name, parameter in stage.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_stage_3_is_masked_by_its_decoder_where_asked() -> None:
    config = settings(objective=Objective(**EQ_4))
    config = dataclasses.replace(
        config, attention=dataclasses.replace(config.attention, mask_from="decoder")
    )
    stage, batch = make(3, config), films()
    seen: dict[str, Tensor] = {}
    decoder = stage.network.decoder
    assert decoder is not None
    decoder.register_forward_hook(lambda *given: seen.__setitem__("logit", given[2]))
    stage.network.register_forward_hook(lambda *given: seen.__setitem__("image", given[1][0]))
    stage(batch).loss.backward()
    answer = seen["logit"].detach().double().sigmoid()
    low, high = answer.amin((1, 2, 3), keepdim=True), answer.amax((1, 2, 3), keepdim=True)
    mask = torch.sigmoid(10 * ((answer - low) / (high - low) - 0.5))
    expected = batch.image_B1HW.double() * mask
    torch.testing.assert_close(seen["image"].double(), expected, rtol=1e-4, atol=1e-4)
    assert all(p.grad is not None for p in stage.parameters())


def test_what_lies_outside_is_refused_where_the_map_cannot_learn_from_it() -> None:
    with pytest.raises(ConfigError, match=r"objective.outside_weight: .*attention.mask_grad"):
        settings(mask_grad=False, objective=objective("outside"))


@pytest.mark.parametrize(("key", "value"), [("compile", "on"), ("zero_stage", 3)])
def test_input_gradients_are_refused_where_they_cannot_be_had(key: str, value: Any) -> None:
    config = settings()
    runtime = dataclasses.replace(config.runtime, **{key: value})
    with pytest.raises(ConfigError, match="objective.reasons_weight"):
        dataclasses.replace(config, objective=objective("reasons"), runtime=runtime)


def gradients(part: slice) -> dict[str, Tensor]:
    """Of some of 8 films, by the running statistics; of the first half no film is marked."""
    uneven = torch.tensor([0, 2, 4, 3, 6, 1, 5, 7])
    batch = Batch(*(tensor[uneven][part] for tensor in films(8)))
    stage = make(3, settings(objective=objective())).eval()
    stage(batch).loss.backward()
    return {n: p.grad for n, p in stage.named_parameters() if p.grad is not None}


def one_rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.set_num_threads(1)
    torch.save(gradients((slice(0, 4), slice(4, 8))[rank]), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_gradient_is_that_of_one(tmp_path: Path) -> None:
    processes.on_ranks(one_rank, str(tmp_path))
    shares = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for name, expected in gradients(slice(0, 8)).items():
        averaged = (shares[0][name] + shares[1][name]) / 2
        atol = 1e-4 * float(expected.abs().max()) + 1e-7
        torch.testing.assert_close(averaged, expected, rtol=2e-3, atol=atol)


def trained(config: Config, joined: engine.Ranks, folder: Path) -> list[float]:
    """The losses of three steps under the engine, one marked film in each batch of both ranks."""
    decoded = Decoded(config.data, read_store(Path(config.data.store)), joined.device)
    feed = open_feed(config, decoded, stage=3, rank=joined.rank, world=joined.world)
    torch.manual_seed(0)
    stage = build_stage(3, config, feed.images)
    model = engine.initialize(
        stage, config, configs.Stage(epochs=1, lr=1e-3), 100, folder=folder, universal=False
    )
    losses = []
    for _, batch in zip(range(3), feed.epoch(0), strict=False):
        told = engine.train_step(model, batch, clipping=config.runtime.gradient_clipping)
        total = told["loss"].double()
        dist.all_reduce(total)
        losses.append(float(total))
    return losses


def worker(rank: int, path: str, port: int) -> None:
    os.environ |= processes.environment(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    joined, folder = engine.start(), Path(path).parent
    found = {}
    for names in (("outside", "map", "agreement", "erase"), tuple(WEIGHTS)):
        for zero in (0, 1, 2) if "reasons" in names else (0, 1, 2, 3):
            config = configs.load(path)
            config = dataclasses.replace(
                config,
                objective=objective(*names, marked_per_batch=1, lesion_weight=1.0),
                runtime=dataclasses.replace(config.runtime, zero_stage=zero, precision="fp32"),
            )
            found[len(names), zero] = trained(config, joined, folder)
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()
    engine.stop()


def test_every_zero_stage_trains_alike(tmp_path: Path, write_config: Any) -> None:
    """One rank of two has no marked film; input gradients go twice backward under 0, 1 and 2."""
    path = write_config(tmp_path)
    processes.on_ranks(worker, str(path), processes.free_port())
    found = torch.load(tmp_path / "0.pt", weights_only=False)
    assert found.keys() == {(4, 0), (4, 1), (4, 2), (4, 3), (5, 0), (5, 1), (5, 2)}
    for (count, _), losses in found.items():
        assert all(map(math.isfinite, losses))
        assert losses == pytest.approx(found[count, 0], rel=1e-3)
