"""What each stage's forward promises, on films of 64 px."""

import copy
import dataclasses
from pathlib import Path
from typing import Literal

import processes
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from conftest import EQ_4
from small_stages import films, make, settings
from torch import Tensor, nn

from pcamx import ops
from pcamx.catalogue import maps_of, trainable
from pcamx.config import Objective
from pcamx.model.maps import explain
from pcamx.model.network import batch_norm_by
from pcamx.training.stages import Stage
from pcamx.types import Batch


class Masked:
    """Images and logits of the masked pass, the only one that calls the network whole."""

    def __init__(self, stage: Stage) -> None:
        self.images: list[Tensor] = []
        self.logits: list[Tensor] = []
        stage.network.register_forward_hook(self._note)

    def _note(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.images.append(inputs[0])
        self.logits.append(output)


@pytest.mark.parametrize("mask_class", ["abnormal", "predicted", "label"])
def test_the_mask_knows_the_label_only_where_it_is_asked_to(
    mask_class: Literal["abnormal", "predicted", "label"],
) -> None:
    stage, batch = make(2, settings(mask_class=mask_class)), films()
    seen = Masked(stage)
    flipped = batch._replace(label_B=1 - batch.label_B)
    area, other_area = (stage(b).telemetry["area"] for b in (batch, flipped))
    same = [torch.equal(*seen.images), torch.equal(*seen.logits), torch.equal(area, other_area)]
    assert same == [mask_class != "label"] * 3


def test_the_second_pass_sees_the_film_outside_the_attended_area_where_asked() -> None:
    """The first map of six is flat: it attends to nothing, so its film stays whole."""
    config = settings()
    outside = dataclasses.replace(config.attention, shown="outside")
    stage, batch = make(2, dataclasses.replace(config, attention=outside)), films()
    empty = batch.image_B1HW.index_fill(0, torch.tensor([0]), 0)
    batch, seen = batch._replace(image_B1HW=empty), Masked(stage.eval())
    features = [map_BKhw.detach() for map_BKhw in stage.network.encoder(batch.image_B1HW)]
    features[-1][0] = 1
    stage.network.encoder.register_forward_hook(lambda *_: features)
    stage(batch)
    cam_Bhw = ops.class_activation(
        features[-1].double(), stage.network.head.weight.double(), torch.ones(6, dtype=torch.int64)
    )
    low, high = (getattr(cam_Bhw, end)((1, 2), keepdim=True) for end in ("amin", "amax"))
    up = F.interpolate(((cam_Bhw - low) / (high - low))[1:, None], size=64, mode="bilinear")
    rest = batch.image_B1HW[1:].double() * (1 - torch.sigmoid(10 * (up - 0.5)))
    expected = torch.cat([batch.image_B1HW[:1].double(), rest])
    torch.testing.assert_close(seen.images[0].double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("number", [2, 3])
def test_the_masked_pass_leaves_the_running_statistics(number: int) -> None:
    stage, batch = make(number), films()
    other = copy.deepcopy(stage)
    stage(batch)
    other.network(batch.image_B1HW)  # the first pass alone
    ours = {n: b for n, b in stage.network.named_buffers() if not n.startswith("decoder.")}
    assert len(ours) > 60
    for name, buffer in ours.items():
        assert torch.equal(buffer, other.network.get_buffer(name)), name


@pytest.mark.parametrize("schedule", ["none", "constant"])
def test_a_schedule_that_does_not_look_at_p(schedule: Literal["none", "constant"]) -> None:
    """With none stage 2 is stage 1 trained on: the same loss and the same gradients."""
    batch, objective = films(), Objective(schedule=schedule)
    stage, plain = make(2, settings(objective=objective), p=0.9), make(1)
    output, other = stage(batch), plain(batch)
    told = output.telemetry
    expected = (told["l1"] + told["l2"]) / 2 if schedule == "constant" else other.loss
    torch.testing.assert_close(output.loss, expected)
    same = all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-6)
        for a, b in zip(gradients(stage, output.loss), gradients(plain, other.loss), strict=True)
    )
    assert same == (schedule == "none")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_loss_is_put_together_as_printed(number: int) -> None:
    config = settings(objective=Objective(schedule="rescaled", lesion_weight=0.3, **EQ_4))
    stage, batch = make(number, config, p=0.8), films()
    seen = Masked(stage)
    output = stage(batch)
    told = {name: value.double() for name, value in output.telemetry.items()}
    l1 = F.cross_entropy(output.logits_BC, batch.label_B)
    torch.testing.assert_close(told["l1"], l1.double())
    expected = told["l1"]
    if number > 1:
        l2 = F.cross_entropy(seen.logits[0], batch.label_B)
        torch.testing.assert_close(told["l2"], l2.double())
        assert told["lam"].item() == pytest.approx(0.478454, abs=1e-6)  # of P = 0.8
        expected = (1 - told["lam"]) * told["l1"] + told["lam"] * told["l2"]
    if number > 2:
        assert told["l3"] > 0
        expected = expected + 0.3 * told["l3"]
    torch.testing.assert_close(output.loss.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(told["loss"], output.loss.double())
    assert not any(value.requires_grad for value in output.telemetry.values())


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_forward_leaves_p_to_the_loop(number: int) -> None:
    stage, batch = make(number, p=0.8), films()
    output = stage(batch)
    assert stage.accuracy.value == 0.8 and "p" not in output.telemetry
    assert number == 1 or output.telemetry["lam"].item() == pytest.approx(0.478454, abs=1e-6)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_evaluation_leaves_p_and_running_statistics(number: int) -> None:
    stage, batch = make(number, p=0.8).eval(), films()
    before = [b.clone() for b in stage.buffers()]
    with torch.no_grad():
        stage.network(batch.image_B1HW)
        explain(stage.network, batch.image_B1HW, maps_of(trainable(number), gradient=False))
        stage(batch)
    assert stage.accuracy.value == 0.8
    assert all(map(torch.equal, stage.buffers(), before))


def gradients(stage: Stage, loss: Tensor) -> tuple[Tensor, Tensor]:
    """Of the head's weight and of the first convolution."""
    stem = stage.network.encoder.stem[0]
    assert isinstance(stem, nn.Sequential)
    kernel = stem[0].weight
    assert isinstance(kernel, Tensor)
    return torch.autograd.grad(loss, [stage.network.head.weight, kernel])  # type: ignore[return-value]


@pytest.mark.parametrize("mask_grad", [True, False])
def test_gradients_flow_through_the_mask_where_asked(mask_grad: bool) -> None:
    """At lambda = 1 only L2 speaks: from the mask held still, and through it."""
    stage, batch = make(2, settings(mask_grad=mask_grad), p=1.0), films()
    network = stage.network
    with torch.no_grad(), batch_norm_by(network, "batch"):
        features = network.encoder(batch.image_B1HW)[-1]
        abnormal = torch.ones(len(features), dtype=torch.int64)
        image = ops.attend(features, network.head.weight, abnormal, batch.image_B1HW).image_B1HW
    with batch_norm_by(network, "batch"):
        still = gradients(stage, F.cross_entropy(network(image), batch.label_B))
    head, stem = (
        (ours - fixed).abs()
        for ours, fixed in zip(gradients(stage, stage(batch).loss), still, strict=True)
    )
    noise = 1e-5 * still[0].abs().max()
    assert head[0].max() < noise  # the normal class's weights make no mask
    assert head[1, network.head.weight[1] < 0].max() < noise  # nor do negative ones
    if mask_grad:
        assert head[1].max() > 100 * noise and stem.max() > 1e-3 * still[1].abs().max()
    else:
        assert head.max() < noise and stem.max() < 1e-4 * still[1].abs().max()


def test_flat_maps_are_counted_and_leave_the_image() -> None:
    stage, batch = make(2), films()
    stage.network.head.weight.data[1] = -1  # no positive weight: every map is zero
    seen = Masked(stage)
    output = stage(batch)
    assert output.telemetry["flat"] == len(batch.label_B) and output.telemetry["area"] == 1
    assert torch.equal(seen.images[0], batch.image_B1HW)
    assert make(2)(batch).telemetry["flat"] == 0


@pytest.mark.parametrize("layout", ["bottleneck", "basic"])
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("any_marked", [True, False])
def test_every_parameter_has_a_finite_gradient(
    number: int, layout: Literal["bottleneck", "basic"], any_marked: bool
) -> None:
    """A rank without marked films too: one rank's missing gradient would hang the others."""
    stage, batch = make(number, settings(layout=layout)), films()
    if not any_marked:
        nobody = torch.zeros_like(batch.marked_B)
        batch = batch._replace(marked_B=nobody, lesion_B1HW=torch.zeros_like(batch.image_B1HW))
    stage(batch).loss.backward()
    assert (stage.network.decoder is None) == (number < 3)
    for name, parameter in stage.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if any_marked or "decoder" not in name:
            assert parameter.grad.any(), name
        else:
            assert not parameter.grad.any(), name


def test_normal_films_take_half_of_l3_where_asked_to() -> None:
    """Films 1 and 5 are marked, 0, 2 and 4 are normal, 3 is abnormal and not marked."""
    batch, answers = films(), []
    for normal_films in (False, True):
        stage = make(3, settings(objective=Objective(lesion_loss="mse", normal_films=normal_films)))
        assert stage.network.decoder is not None
        stage.network.decoder.register_forward_hook(
            lambda *given: answers.append(given[2].sigmoid())
        )
        told = stage(batch).telemetry["l3"]
        error_B = (answers[-1] - batch.lesion_B1HW).square().mean((1, 2, 3))
        marked, normal = error_B[[1, 5]].mean(), error_B[[0, 2, 4]].mean()
        torch.testing.assert_close(told, (marked + normal) / 2 if normal_films else marked)
    assert torch.equal(*answers)


def test_without_normal_films_in_a_batch_all_of_l3_is_the_marks() -> None:
    batch = films()
    batch = batch._replace(label_B=torch.ones_like(batch.label_B))
    told = [
        make(3, settings(objective=Objective(normal_films=normal)))(batch).telemetry["l3"]
        for normal in (False, True)
    ]
    assert told[0] > 0 and torch.equal(*told)


def stage_3_gradients(part: slice) -> dict[str, Tensor]:
    """Of some of 8 films, by the running statistics, so that each stands alone.

    Of the first half three are normal and none marked, of the second one normal and two marked.
    """
    uneven = torch.tensor([0, 2, 4, 3, 6, 1, 5, 7])
    batch = Batch(*(tensor[uneven][part] for tensor in films(8)))
    stage = make(3, settings(objective=Objective(normal_films=True))).eval()
    stage(batch).loss.backward()
    return {n: p.grad for n, p in stage.named_parameters() if p.grad is not None}


def one_rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.set_num_threads(1)
    torch.save(stage_3_gradients((slice(0, 4), slice(4, 8))[rank]), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_gradient_with_normal_films_is_that_of_one(tmp_path: Path) -> None:
    processes.on_ranks(one_rank, str(tmp_path))
    shares = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for name, expected in stage_3_gradients(slice(0, 8)).items():
        averaged = (shares[0][name] + shares[1][name]) / 2
        atol = 1e-4 * float(expected.abs().max()) + 1e-7
        torch.testing.assert_close(averaged, expected, rtol=1e-3, atol=atol)
        if "decoder" in name:
            assert shares[0][name].any() and shares[1][name].any()


@pytest.mark.slow
@pytest.mark.parametrize("lesion_loss", ["mse", "bce_dice"])
def test_stage_3_learns_the_marks_and_does_not_collapse_to_zero(
    lesion_loss: Literal["mse", "bce_dice"],
) -> None:
    batch = films(8, marked_every=2)
    stage = make(3, settings(objective=Objective(lesion_loss=lesion_loss)), p=0.5)
    optimizer = torch.optim.AdamW(stage.parameters(), lr=3e-3)
    for _ in range(40):
        output = stage(batch)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        stage.accuracy.take_in(output.logits_BC, batch.label_B)
    told = stage(batch).telemetry
    assert told["lesion_answer"] > 0.6
    assert told["other_answer"] < 0.25
