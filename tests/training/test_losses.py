"""lambda, the running accuracy and L3, by hand and on two ranks."""

import math
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from pcamx.distributed import sum_over_ranks, telemetry_on_host
from pcamx.training.losses.paper import RunningAccuracy, confidence, lesion_loss


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize(
    ("accuracy", "lam"), [(0.0, 0.367879), (0.5, 0.606531), (0.8, 0.818731), (1.0, 1.0)]
)
def test_the_paper_s_schedule(accuracy: float, lam: float) -> None:
    assert confidence(number(accuracy), "paper").item() == pytest.approx(lam, abs=1e-6)


@pytest.mark.parametrize(
    ("accuracy", "lam"),
    [(0.2, 0.0), (0.5, 0.0), (0.75, 0.377541), (0.8, 0.478454), (0.98, 0.937970), (1.0, 1.0)],
)
def test_the_rescaled_schedule(accuracy: float, lam: float) -> None:
    assert confidence(number(accuracy), "rescaled").item() == pytest.approx(lam, abs=1e-6)


@pytest.mark.parametrize("accuracy", [0.0, 0.5, 0.9, 1.0])
def test_schedules_that_do_not_look_at_the_accuracy(accuracy: float) -> None:
    assert confidence(number(accuracy), "constant").item() == 0.5
    assert confidence(number(accuracy), "none").item() == 0


def test_running_accuracy_by_hand() -> None:
    accuracy = RunningAccuracy(window=10)
    assert accuracy.value.item() == 0.5
    accuracy.update(number(3), number(4))  # 0.5 + 4/10 (3/4 - 0.5)
    assert accuracy.value.item() == pytest.approx(0.6, abs=1e-12)
    accuracy.update(number(0), number(5))  # 0.6 + 5/10 (0 - 0.6)
    assert accuracy.value.item() == pytest.approx(0.3, abs=1e-12)
    accuracy.update(number(18), number(20))  # a batch larger than the window replaces it
    assert accuracy.value.item() == pytest.approx(0.9, abs=1e-12)


def test_running_accuracy_takes_a_batch_in() -> None:
    accuracy = RunningAccuracy(window=10)
    logits_BC = torch.tensor([[2.0, 1.0], [0.0, 3.0], [-1.0, 0.0], [1.0, 0.5]])
    accuracy.take_in(logits_BC, torch.tensor([0, 1, 0, 0]))  # 3 of 4 are right
    assert accuracy.value.item() == pytest.approx(0.5 + 4 / 10 * (3 / 4 - 0.5), abs=1e-12)


def test_figures_of_one_rank() -> None:
    told = {"l1": torch.tensor(0.25), "flat": torch.tensor(3), "lam": number(0.5)}
    assert telemetry_on_host(told) == {"l1": 0.25, "flat": 3.0, "lam": 0.5}


def test_running_accuracy_is_in_the_checkpoint() -> None:
    accuracy, other = RunningAccuracy(window=10), RunningAccuracy(window=10)
    accuracy.update(number(4), number(4))
    other.load_state_dict(accuracy.state_dict())
    assert other.value.item() == pytest.approx(0.7, abs=1e-12)
    assert other.value.dtype == torch.float64


# Two films of 2x2: lesion at one pixel of the first; the second is not marked.
ANSWER = torch.tensor([[[[0.5, 0.2], [0.0, 0.4]]], [[[0.9, 0.9], [0.9, 0.9]]]]).logit(1e-12)
LESION = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]], [[[0.0, 0.0], [0.0, 0.0]]]])
MARKED = torch.tensor([True, False])


@pytest.mark.parametrize(
    ("share", "loss"),
    [
        (0.0, (0.25 + 0.04 + 0.0 + 0.16) / 4),
        (0.5, 0.5 * 0.25 + 0.5 * (0.04 + 0.0 + 0.16) / 3),
        (0.8, 0.8 * 0.25 + 0.2 * (0.04 + 0.0 + 0.16) / 3),
    ],
)
def test_l3_by_hand(share: float, loss: float) -> None:
    ours = lesion_loss(ANSWER, LESION, MARKED, kind="mse", share=share, marked_total=number(1))
    assert ours.item() == pytest.approx(loss, rel=1e-6)
    # A second marked film halves the weight of each: the mean over marked films.
    both = torch.tensor([True, True])
    pair = lesion_loss(ANSWER, LESION, both, kind="mse", share=share, marked_total=number(2))
    clean = (1 - share) * 0.81 if share else 0.81
    assert pair.item() == pytest.approx((loss + clean) / 2, rel=1e-6)


def test_cross_entropy_and_dice_by_hand() -> None:
    """Answers 0.5, 0.2, 0, 0.4; the lesion is the first pixel."""
    entropy = [-math.log(p) for p in (0.5, 0.8, 1, 0.6)]
    dice = 1 - (2 * 0.5 + 1) / (0.25 + 0.04 + 0.16 + 1 + 1)
    for share, pixels in (
        (0.0, sum(entropy) / 4),
        (0.5, 0.5 * entropy[0] + 0.5 * sum(entropy[1:]) / 3),
    ):
        ours = lesion_loss(
            ANSWER, LESION, MARKED, kind="bce_dice", share=share, marked_total=number(1)
        )
        assert ours.item() == pytest.approx(pixels + dice, rel=1e-5)


def test_cross_entropy_teaches_a_pixel_that_is_surely_wrong() -> None:
    """Each of two pixels is wrong by 200: half of the loss and of the gradient is its."""
    logit = torch.tensor([[[[200.0, -200.0]]]], requires_grad=True)
    loss = lesion_loss(
        logit,
        torch.tensor([[[[0.0, 1.0]]]]),
        torch.tensor([True]),
        kind="bce_dice",
        share=0.0,
        marked_total=number(1),
    )
    (gradient,) = torch.autograd.grad(loss, logit)
    dice = 1 - 1 / (1 + 1 + 1)
    assert loss.item() == pytest.approx(200 + dice)
    torch.testing.assert_close(gradient, torch.tensor([[[[0.5, -0.5]]]]))


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_unmarked_films_have_no_influence(share: float) -> None:
    answer = ANSWER.clone().requires_grad_()
    other_answer, other_lesion = ANSWER.clone(), LESION.clone()
    other_answer[1], other_lesion[1] = -2.0, 1.0
    loss = lesion_loss(answer, LESION, MARKED, kind="mse", share=share, marked_total=number(1))
    other = lesion_loss(
        other_answer, other_lesion, MARKED, kind="mse", share=share, marked_total=number(1)
    )
    assert loss.item() == other.item()
    (gradient,) = torch.autograd.grad(loss, answer)
    assert gradient[0].any() and not gradient[1].any()


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_no_marked_film_is_zero_with_a_zero_gradient(share: float) -> None:
    answer = ANSWER.clone().requires_grad_()
    nobody = torch.tensor([False, False])
    loss = lesion_loss(answer, LESION, nobody, kind="mse", share=share, marked_total=number(0))
    (gradient,) = torch.autograd.grad(loss, answer)
    assert loss.item() == 0 and not gradient.any()


def test_the_share_keeps_zero_everywhere_from_being_a_good_answer() -> None:
    """Of all constant answers the plain mean likes the lesion's area best, the share itself."""
    lesion = torch.zeros(1, 1, 20, 20)
    lesion[..., 3:5, 7:9] = 1  # 1 % of the pixels
    constants = torch.linspace(0, 1, 101)

    def losses(share: float) -> Tensor:
        return torch.stack(
            [
                lesion_loss(
                    c.logit().expand(lesion.shape),
                    lesion,
                    torch.tensor([True]),
                    kind="mse",
                    share=share,
                    marked_total=number(1),
                )
                for c in constants
            ]
        )

    plain, shared = losses(0.0), losses(0.5)
    assert constants[plain.argmin()] == pytest.approx(0.01)
    assert plain[0] == pytest.approx(0.01)  # nothing to gain
    assert constants[shared.argmin()] == pytest.approx(0.5)
    assert shared[0] == pytest.approx(0.5) and shared.min() == pytest.approx(0.25)

    # And what each says to lesion pixels from an answer of a half, all of them together: the
    # slope of (a - 1)^2 is -1 there, the sigmoid's 1/4.
    for share, pull in ((0.0, -0.25 * 0.01), (0.5, -0.25 * 0.5)):
        answer = torch.zeros_like(lesion, requires_grad=True)
        loss = lesion_loss(
            answer, lesion, torch.tensor([True]), kind="mse", share=share, marked_total=number(1)
        )
        (gradient,) = torch.autograd.grad(loss, answer)
        assert (gradient * lesion).sum().item() == pytest.approx(pull)


def films() -> tuple[Tensor, Tensor, Tensor]:
    """Eight films; marked are one of the first four and three of the last."""
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(8, 1, 6, 6, generator=generator)
    lesion = (torch.rand(8, 1, 6, 6, generator=generator) > 0.8).float()
    return image, lesion, torch.tensor([0, 1, 0, 0, 1, 1, 0, 1], dtype=torch.bool)


def l3_gradient(part: slice) -> tuple[float, Tensor]:
    """L3 and its gradient to one weight per pixel, of some of the films."""
    image, lesion, marked = (t[part] for t in films())
    weight = torch.full((6, 6), 0.3, requires_grad=True)
    (total,) = sum_over_ranks(marked.sum())
    loss = lesion_loss(image * weight, lesion, marked, kind="mse", share=0.5, marked_total=total)
    return loss.item(), torch.autograd.grad(loss, weight)[0]


def one_rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.set_num_threads(1)
    accuracy = RunningAccuracy(window=20)
    trail = []
    for right in ((4, 1), (0, 3)):  # of each rank's four films, in two steps
        correct, count = sum_over_ranks(torch.tensor(right[rank]), torch.tensor(4))
        accuracy.update(correct, count)
        trail.append(accuracy.value.item())
    loss, gradient = l3_gradient(slice(4 * rank, 4 * rank + 4))
    torch.save({"trail": trail, "loss": loss, "gradient": gradient}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    processes.on_ranks(one_rank, str(folder))
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.slow
def test_both_ranks_hold_the_accuracy_of_all_films(ranks: list[dict[str, Any]]) -> None:
    first = 0.5 + 8 / 20 * (5 / 8 - 0.5)
    second = first + 8 / 20 * (3 / 8 - first)
    assert ranks[0]["trail"] == ranks[1]["trail"]
    assert ranks[0]["trail"] == pytest.approx([first, second], abs=1e-12)


@pytest.mark.slow
def test_averaged_gradient_of_l3_is_that_of_one_process(ranks: list[dict[str, Any]]) -> None:
    loss, gradient = l3_gradient(slice(0, 8))
    averaged = (ranks[0]["gradient"] + ranks[1]["gradient"]) / 2
    torch.testing.assert_close(averaged, gradient, rtol=1e-5, atol=1e-8)
    assert (ranks[0]["loss"] + ranks[1]["loss"]) / 2 == pytest.approx(loss, rel=1e-5)
    assert math.isfinite(loss) and gradient.abs().max() > 1e-3
