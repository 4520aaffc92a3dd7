"""Losses on the classifier's map: against values worked out by hand and float64, and gradients."""

import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcamx import config as configs
from pcamx.catalogue import classifiers
from pcamx.model.network import Network
from pcamx.training.losses.on_map import (
    MapLoss,
    agreement_loss,
    map_loss,
    mark_cells,
    outside_share,
    reasons_loss,
)

KINDS: tuple[MapLoss, ...] = get_args(MapLoss)
MAP = [[3.0, 1.0], [-1.0, -3.0]]
"""Mean 0, standard deviation sqrt(5)."""


def maps(*, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three maps of 4 x 5 cells, float64, with marks of 1, 6 and no cells."""
    map_Bhw = 2 * torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(seed)).double()
    inside_Bhw = torch.zeros(3, 4, 5, dtype=torch.bool)
    inside_Bhw[0, 1, 2] = True
    inside_Bhw[1, 1:3, 1:4] = True
    return map_Bhw, inside_Bhw


S = 5**0.5
BY_HAND: dict[MapLoss, float] = {
    # Over tau 0.5 the cells stand at 6 / S, 2 / S, -2 / S, -6 / S.
    "pointing": math.log(1 + math.exp(-4 / S) + math.exp(-8 / S) + math.exp(-12 / S)),
    "energy": 1 / 4,
    # Right by 3, wrong by 1, right by 1, right by 3.
    "bce": sum(math.log1p(math.exp(-by)) for by in (3, -1, 1, 3)) / 4,
    "l1": (0 + 1 / 3) / 4,
    "gain": (0 + 1 / 9) / 4,
}


@pytest.mark.parametrize(("kind", "expected"), BY_HAND.items())
def test_by_hand(kind: MapLoss, expected: float) -> None:
    inside = torch.tensor([[[True, False], [False, False]]])
    found = map_loss(torch.tensor([MAP], dtype=torch.float64), inside, kind)
    assert found.tolist() == pytest.approx([expected], rel=1e-6)
    single = map_loss(torch.tensor([MAP]), inside, kind)
    assert single.dtype == torch.float32 and single.tolist() == pytest.approx([expected], rel=1e-5)


def test_l1_divides_by_the_largest_of_either_sign_and_gain_by_the_largest() -> None:
    """By hand: 1 / 4 against a mark of 1 is 3 / 4; 1 / 1 is 0."""
    map_Bhw, inside = torch.tensor([[[1.0, -4.0]]]), torch.tensor([[[True, False]]])
    assert map_loss(map_Bhw, inside, "l1").item() == pytest.approx(0.75 / 2)
    assert map_loss(map_Bhw, inside, "gain").item() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: MapLoss) -> None:
    map_Bhw, inside_Bhw = maps()
    leaf = map_Bhw.requires_grad_()
    assert torch.autograd.gradcheck(lambda m: map_loss(m, inside_Bhw, kind), (leaf,))


@pytest.mark.parametrize("kind", KINDS)
def test_flat_negative_and_unmarked_maps_stay_finite(kind: MapLoss) -> None:
    """A flat map, one without a positive cell, and one without a mark."""
    map_Bhw, inside_Bhw = maps()
    flat_Bhw = torch.cat([torch.zeros(1, 4, 5), -map_Bhw[1:2].abs() - 1, map_Bhw[2:]]).float()
    leaf = flat_Bhw.requires_grad_()
    loss_B = map_loss(leaf, inside_Bhw, kind)
    (grad,) = torch.autograd.grad(loss_B.sum(), leaf)
    assert loss_B.isfinite().all() and grad.isfinite().all()
    if kind == "pointing":
        assert loss_B[0].item() == pytest.approx(math.log(20), rel=1e-5)  # a flat map's mass
        assert loss_B[2] == 0 and not grad[2].any()
        assert grad[1].any(), "no rectifier: a map that has collapsed still learns"


def test_pointing_is_blind_to_scale_and_shift() -> None:
    map_Bhw, inside_Bhw = maps()
    losses = [map_loss(m, inside_Bhw, "pointing") for m in (map_Bhw, 7 * map_Bhw - 100)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)


def test_the_share_outside_the_mask_by_hand() -> None:
    """M of 1, 1/2 and 0 is s(5), 1/2 and s(-5); a map of one cell peaks inside its mask."""
    map_Bhw = torch.tensor([[[1.0, 0.5], [0, 0]]], dtype=torch.float64, requires_grad=True)
    share_B = outside_share(map_Bhw, omega=10, sigma=0.5)
    low, high = 1 / (1 + math.exp(5)), 1 / (1 + math.exp(-5))
    assert share_B.tolist() == pytest.approx([(low + 0.25) / 1.5], rel=1e-12)
    (grad_Bhw,) = torch.autograd.grad(share_B.sum(), map_Bhw)
    by_cell = [(out - share_B.item()) / 1.5 for out in (low, 0.5, high, high)]
    assert grad_Bhw.flatten().tolist() == pytest.approx(by_cell, rel=1e-12)
    nothing = outside_share(torch.zeros(1, 2, 2, requires_grad=True), omega=10, sigma=0.5)
    assert nothing.item() == 0


def test_a_lesion_of_one_pixel_is_a_cell() -> None:
    lesion = torch.zeros(2, 1, 64, 64)
    lesion[0, 0, 15, 16] = 1
    cells = mark_cells(lesion, (4, 4))
    assert cells.nonzero().tolist() == [[0, 0, 1]]


def test_agreement_by_hand() -> None:
    """Distributions that share nothing are log 2 apart, equal ones nothing."""
    map_Bhw = torch.tensor([MAP], dtype=torch.float64)
    mass = (map_Bhw / 5**0.5 / 0.5).flatten().softmax(0).reshape(1, 1, 2, 2)
    answer = 0.3 * mass.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert agreement_loss(map_Bhw, answer).item() == pytest.approx(0, abs=1e-9)
    one = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    one[:, :, 4:, 4:] = 0.01  # all of it where the map has mass p
    p = mass.flatten()
    middle = [*(p[:3] / 2), (p[3] + 1) / 2]
    expected = sum(float(a * (a / m).log()) for a, m in zip(p, middle, strict=True)) / 2
    expected += float((1 / middle[3]).log()) / 2
    assert agreement_loss(map_Bhw, one).item() == pytest.approx(expected, rel=1e-5)


def test_agreement_moves_the_map_alone() -> None:
    map_Bhw = maps()[0].requires_grad_()
    answer = torch.rand(3, 1, 16, 20, dtype=torch.float64, requires_grad=True)
    agreement_loss(map_Bhw, answer).sum().backward()
    assert answer.grad is None and map_Bhw.grad is not None and map_Bhw.grad.any()
    still = answer.detach()
    assert torch.autograd.gradcheck(lambda m: agreement_loss(m, still), (map_Bhw,))
    empty = agreement_loss(map_Bhw, torch.zeros_like(still))
    assert empty.isfinite().all()


def test_agreement_of_a_spike_keeps_its_gradient() -> None:
    """Of 4,096 cells one alone has mass, in float32 exactly."""
    spike = torch.zeros(1, 64, 64)
    spike[0, 10, 10] = 50
    answer = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    grads = []
    for dtype in (torch.float32, torch.float64):
        map_Bhw = spike.to(dtype).requires_grad_()
        loss = agreement_loss(map_Bhw, answer.to(dtype)).sum()
        grads.append(torch.autograd.grad(loss, map_Bhw)[0].double())
    assert grads[1].isfinite().all()
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-3, atol=1e-8)


def test_reasons_of_a_linear_classifier_by_hand() -> None:
    """sum_c log p_c has the gradient sum_c (w_c - sum_j p_j w_j), which is linear in p."""
    weight_CN = torch.tensor([[1.0, -2.0, 0.5, 0.0], [3.0, 1.0, -1.0, 2.0]], dtype=torch.float64)
    image = torch.tensor([0.1, -0.2, 0.3, 0.4], dtype=torch.float64).reshape(1, 1, 2, 2)
    outside = torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64).reshape(1, 1, 2, 2)
    leaf = image.requires_grad_()
    p = (weight_CN @ image.detach().flatten()).softmax(0)
    grad = weight_CN.sum(0) - 2 * (p @ weight_CN)
    expected = float((grad[[0, 1, 3]] ** 2).sum())
    found = reasons_loss(F.linear(leaf.flatten(1), weight_CN), leaf, outside)
    assert found.tolist() == pytest.approx([expected], rel=1e-5)


def network() -> Network:
    stage = configs.Stage(epochs=1)
    config = configs.Config(
        run=configs.Run(folder="run"),
        data=configs.Data(store="store"),
        stages={entry.section: stage for entry in classifiers()},
        runtime=configs.Runtime(batch_size=8),
    )
    torch.manual_seed(0)
    made = Network(config, decoder=True)
    nn.init.normal_(made.head.bias)
    return made


def test_the_class_map_is_the_weighted_sum_and_the_margin_its_mean() -> None:
    made = network()
    features = torch.rand(2, 128, 3, 4)
    found = made.class_map(features)
    weight_K = (made.head.weight[1] - made.head.weight[0]).double()
    expected = torch.einsum("k,bkhw->bhw", weight_K, features.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    logits, bias = made.head(features)[0], made.head.bias
    margin = logits[:, 1] - logits[:, 0] - (bias[1] - bias[0])
    torch.testing.assert_close(found.mean((1, 2)), margin, rtol=1e-4, atol=1e-5)


def test_reasons_gradient_through_the_whole_network_is_its_difference() -> None:
    """Twice backward through stem, norms and pooling, against a difference in float64."""
    made = network().double().eval()
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 1, 32, 32, generator=generator, dtype=torch.float64)
    outside = (torch.rand(2, 1, 32, 32, generator=generator) > 0.2).double()

    def loss() -> Tensor:
        leaf = image.clone().requires_grad_()
        return reasons_loss(made(leaf), leaf, outside).sum()

    stem = made.encoder.stem[0][0].weight  # type: ignore[index]
    (grad,) = torch.autograd.grad(loss(), stem)
    way = torch.randn(stem.shape, generator=generator, dtype=torch.float64)
    step = 1e-7
    with torch.no_grad():
        stem.add_(step * way)
    up = loss().detach()
    with torch.no_grad():
        stem.sub_(2 * step * way)
    slope = float((up - loss().detach()) / (2 * step))
    assert slope and float((grad * way).sum()) == pytest.approx(slope, rel=1e-3)
