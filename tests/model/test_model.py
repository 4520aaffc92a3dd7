"""Layers, sizes and receptive field of the network, and batch norm's running statistics."""

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from small_networks import gradient_field, images, settings
from torch import Tensor, nn

from pcamx import config as configs
from pcamx.catalogue import (
    CAM,
    DECODER,
    POSITIVE_CAM,
    STAGE_2,
    STAGE_3,
    Trainable,
    best_map,
    maps_of,
)
from pcamx.model.decoder import Decoder
from pcamx.model.encoder import CHANNELS, Encoder, Layout, _Stem
from pcamx.model.head import Head
from pcamx.model.maps import explain
from pcamx.model.network import Network, batch_norm_by, build_network

LAYOUTS: list[Layout] = ["bottleneck", "basic", "bottleneck_stride8"]
STRIDE = {"bottleneck": 16, "basic": 16, "bottleneck_stride8": 8}


def main_path(encoder: Encoder) -> list[nn.Module]:
    """Convolutions and pools in the order of the forward, without the shortcuts."""
    kinds = (nn.Conv2d, nn.MaxPool2d)
    named = encoder.named_modules()
    return [m for name, m in named if isinstance(m, kinds) and "shortcut" not in name]


def side(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else value[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_23_weighted_layers_and_the_last_has_128_filters(layout: Layout) -> None:
    network = Network(settings(layout), decoder=False)
    convolutions = [m for m in main_path(network.encoder) if isinstance(m, nn.Conv2d)]
    assert network.head.weight.shape == (2, 128)
    assert len(convolutions) + 1 == 23
    assert convolutions[-1].out_channels == 128


@pytest.mark.parametrize(
    ("layout", "count"),
    [("bottleneck", 659_042), ("basic", 1_305_954), ("bottleneck_stride8", 659_042)],
)
def test_number_of_weights(layout: Layout, count: int) -> None:
    network = Network(settings(layout), decoder=False)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize("size", [(64, 64), (50, 36), (2, 2)])
def test_an_image_that_learns_is_convolved_alike(size: tuple[int, int]) -> None:
    """The stem by phases against PyTorch's own 7x7, its gradients too."""
    conv = _Stem(8).double()
    image = images(3, 1, *size).double().requires_grad_()
    found = conv(image)
    expected = F.conv2d(image, conv.weight, stride=2, padding=3)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert found.is_contiguous(memory_format=torch.channels_last)
    back = images(*found.shape, seed=1).double()
    for ours, theirs in zip(
        torch.autograd.grad(found, (image, conv.weight), back),
        torch.autograd.grad(expected, (image, conv.weight), back),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert torch.equal(conv(image.detach()), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_feature_maps(layout: Layout) -> None:
    encoder = Encoder(layout)
    features = encoder(images(2, 1, 320, 320))
    assert [tuple(f.shape) for f in features] == [
        (2, K, 320 // stride, 320 // stride)
        for K, stride in zip(CHANNELS, (4, 8, STRIDE[layout]), strict=True)
    ]
    for feature in features:
        assert feature.amin() >= 0 and feature.amax() > 0
        assert feature.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("layout", "expected"), [("bottleneck", 131), ("basic", 387), ("bottleneck_stride8", 99)]
)
def test_receptive_field(layout: Layout, expected: int) -> None:
    encoder = Encoder(layout).eval()
    field, step = 1, 1
    for layer in main_path(encoder):
        assert isinstance(layer, nn.Conv2d | nn.MaxPool2d)
        field += (side(layer.kernel_size) - 1) * step
        step *= side(layer.stride)
    assert (field, step) == (expected, STRIDE[layout])
    assert f"{expected} px" in (Encoder.__doc__ or "")
    seen = gradient_field(encoder, canvas=160 if expected < 160 else 416)
    assert [int(seen.any(axis).sum()) for axis in (0, 1)] == [expected, expected]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_cell_sees_the_pixels_around_where_upsampling_paints_it(layout: Layout) -> None:
    canvas, stride = 416 if layout == "basic" else 160, STRIDE[layout]
    seen = gradient_field(Encoder(layout).eval(), canvas)
    for axis in (0, 1):
        centre = float(seen.any(axis).nonzero().double().mean())
        # Cell i of stride 16 is painted over pixels 16 i to 16 i + 15.
        assert abs(centre - (stride * (canvas // stride // 2) + (stride - 1) / 2)) <= 0.5


@pytest.mark.parametrize("size", [(64, 64), (50, 66)])
@pytest.mark.parametrize("autocast", [False, True])
def test_decoder_gives_a_float32_logit_at_the_size_of_the_image(
    size: tuple[int, int], autocast: bool
) -> None:
    encoder, decoder = Encoder("bottleneck"), Decoder(CHANNELS)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logit = decoder(encoder(images(2, 1, *size)), size)
    assert logit.shape == (2, 1, *size) and logit.dtype == torch.float32
    assert logit.std() > 0


@pytest.mark.parametrize("entry", [STAGE_2, STAGE_3])
def test_the_best_map_alone_is_the_same(entry: Trainable) -> None:
    network = build_network(entry, settings()).eval()
    image = images(2, 1, 64, 64)
    logits, maps = explain(network, image, maps_of(entry))
    kind = best_map(entry)
    alone_logits, alone = explain(network, image, [kind])
    assert logits is not None and alone_logits is not None and list(alone) == [kind.key]
    assert torch.equal(alone[kind.key], maps[kind.key]) and torch.equal(alone_logits, logits)


def test_explain_gives_both_maps_of_the_abnormal_class() -> None:
    network = Network(settings(), decoder=True).eval()
    network.head.bias.data.fill_(5)  # no map has a bias
    image = images(2, 1, 64, 64)
    logits, maps = explain(network, image, [CAM, POSITIVE_CAM, DECODER])
    features = network.encoder(image)[-1]
    weight = network.head.weight[1]
    for kind, factors in ((CAM, weight), (POSITIVE_CAM, weight.relu())):
        small = (features * factors[:, None, None]).sum(1, keepdim=True)
        expected = nn.functional.interpolate(small, size=(64, 64), mode="bilinear")[:, 0]
        torch.testing.assert_close(maps[kind.key], expected, rtol=1e-4, atol=1e-5)
    assert maps[DECODER.key].shape == (2, 64, 64)
    assert not maps[CAM.key].requires_grad
    assert logits is not None
    torch.testing.assert_close(logits, network(image))


@pytest.mark.parametrize("mask_class", ["abnormal", "predicted", "label"])
def test_class_whose_map_masks_the_image(mask_class: Literal["abnormal", "predicted"]) -> None:
    head = Head(configs.Attention(mask_class=mask_class), "auto")
    logits, labels = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]]), torch.tensor([0, 0, 1])
    expected = {"abnormal": [1, 1, 1], "predicted": [0, 1, 0], "label": [0, 0, 1]}
    assert head._mask_class(logits, labels).tolist() == expected[mask_class]


def test_label_mask_needs_labels() -> None:
    head = Head(configs.Attention(mask_class="label"), "auto")
    with pytest.raises(ValueError, match="label"):
        head(images(1, 128, 4, 4).relu(), images(1, 1, 64, 64))


def buffers(module: nn.Module) -> list[Tensor]:
    return [b.clone() for b in module.buffers()]


def test_running_statistics_stay_exactly_as_they_are() -> None:
    network = Network(settings(), decoder=True).train()
    network(images(4, 1, 64, 64))
    before = buffers(network)
    with batch_norm_by(network, "batch"):
        network(images(4, 1, 64, 64, seed=1) + 3)
    assert all(map(torch.equal, buffers(network), before))
    network(images(4, 1, 64, 64, seed=1) + 3)
    assert not all(map(torch.equal, buffers(network), before))


def test_running_statistics_are_restored_after_an_exception() -> None:
    norm = nn.BatchNorm2d(3)
    with pytest.raises(RuntimeError, match="inside"), batch_norm_by(norm, "batch"):
        raise RuntimeError("inside")
    norm(images(4, 3, 5, 5))
    assert norm.num_batches_tracked == 1 and norm.running_mean.any()  # type: ignore[union-attr]


def test_the_batch_normalises_inside_in_training_and_running_statistics_in_evaluation() -> None:
    norm, x = nn.BatchNorm2d(3), images(4, 3, 5, 5) * 2 + 7
    with batch_norm_by(norm, "batch"):
        out = norm(x)
        torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(norm.eval()(x), x / (1 + norm.eps) ** 0.5)


@pytest.mark.parametrize("statistics", ["batch", "running", "updated"])
def test_batch_norm_by_each_statistics(statistics: Literal["batch", "running", "updated"]) -> None:
    """mean 7, std 2 against running ones of 0 and 1, momentum 0.1."""
    norm, x = nn.BatchNorm1d(1), torch.tensor([[5.0], [9.0]])
    with batch_norm_by(norm, statistics):
        out = norm(x)
    expected = [5.0, 9.0] if statistics == "running" else [-1.0, 1.0]
    torch.testing.assert_close(out.flatten(), torch.tensor(expected), atol=1e-4, rtol=0)
    assert norm.running_mean is not None
    mean = 0.7 if statistics == "updated" else 0.0
    assert norm.running_mean.item() == pytest.approx(mean)
    assert norm.training and norm.track_running_stats
