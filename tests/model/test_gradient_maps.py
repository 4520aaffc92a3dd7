"""Grad-CAM and LayerCAM: by hand, at the last features, and beside torch-cam's.

Shapes: B batch, K channels, h w a map, H W the image.
"""

from typing import Literal

import pytest
import torch
from small_networks import gradient_field, images, settings
from torch import Tensor, nn

from pcamx import metrics
from pcamx.catalogue import GRADCAM, LAYERCAM, STAGE_3, maps_of
from pcamx.model.encoder import Encoder
from pcamx.model.gradient_maps import gradcam, layercam, to_image
from pcamx.model.maps import explain
from pcamx.model.network import Network

Layout = Literal["bottleneck", "basic", "bottleneck_stride8"]


def made(layout: Layout = "bottleneck") -> Network:
    torch.manual_seed(0)
    network = Network(settings(layout), decoder=True).double().eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return network


def films(count: int = 3) -> Tensor:
    return images(count, 1, 64, 64).double()


def test_by_hand() -> None:
    features = torch.tensor([[[[1.0, 2.0], [0.0, 3.0]], [[4.0, 0.0], [1.0, 1.0]]]])
    grad = torch.tensor([[[[2.0, -1.0], [0.0, 3.0]], [[-4.0, 0.0], [0.0, 2.0]]]])
    # Means of the gradient: 1 and -1/2.
    assert gradcam(features, grad).tolist() == [[[0.0, 2.0], [0.0, 2.5]]]
    assert layercam(features, grad).tolist() == [[[2.0, 0.0], [0.0, 11.0]]]


@pytest.mark.parametrize("layout", ["bottleneck", "basic"])
def test_at_the_last_features_they_are_cam_and_positive_cam(layout: Layout) -> None:
    network, image = made(layout), films()
    features = network.encoder(image)[-1].detach().requires_grad_()
    (grad,) = torch.autograd.grad(network.head(features)[0][:, 1].sum(), features)
    features = features.detach()
    weight, cells = network.head.weight[1].detach(), features[0, 0].numel()
    cam = torch.einsum("k,bkhw->bhw", weight, features)
    positive_cam = torch.einsum("k,bkhw->bhw", weight.relu(), features)
    torch.testing.assert_close(gradcam(features, grad), cam.relu() / cells)
    torch.testing.assert_close(layercam(features, grad), positive_cam / cells)
    assert (cam.amax((1, 2)) > 0).all()
    lesion = torch.zeros_like(cam)
    lesion[:, :2] = 1
    one, other = (metrics.pointing(m, lesion) for m in (gradcam(features, grad), cam))
    assert torch.equal(one, other)


@pytest.mark.parametrize("layout", ["bottleneck", "basic"])
@pytest.mark.parametrize("group", [1, 2])
def test_agree_with_torchcam(layout: Layout, group: int) -> None:
    """At stride 8, where they are measured, and at the last features."""
    methods = pytest.importorskip("torchcam.methods")
    network, image = made(layout), films()
    for name, ours in (("GradCAM", gradcam), ("LayerCAM", layercam)):
        with getattr(methods, name)(network, f"encoder.groups.{group}") as theirs:
            expected = theirs(1, network(image), normalized=False)[0]
        features = network.encoder(image)[group].detach().requires_grad_()
        deeper = network.encoder.deepest(features) if group == 1 else features
        (grad,) = torch.autograd.grad(network.head(deeper)[0][:, 1].sum(), features)
        found = ours(features.detach(), grad)
        torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-9)
        assert found.amax() > 0
        if group == 1:
            kind = GRADCAM if name == "GradCAM" else LAYERCAM
            placed = explain(network, image, [kind])[1][kind.key]
            at_cells = placed[:, ::8, ::8]
            atol = 1e-6 * float(expected.detach().amax())
            torch.testing.assert_close(at_cells, expected.detach().float(), rtol=1e-5, atol=atol)


def test_beside_the_maps_without_gradients() -> None:
    network, image = made().float(), films().float()
    gradients = [GRADCAM, LAYERCAM]
    logits, maps = explain(network, image, maps_of(STAGE_3))
    expected_logits, expected = explain(network, image, maps_of(STAGE_3, gradient=False))
    assert logits is not None and expected_logits is not None
    assert torch.equal(logits, expected_logits)
    assert all(torch.equal(maps[key], found) for key, found in expected.items())
    for found in (maps[kind.key] for kind in gradients):
        assert found.shape == (3, 64, 64) and found.dtype == torch.float32
        assert not found.requires_grad and found.amin() >= 0
    # No film's map depends on the films beside it, and no gradient stays behind.
    alone = explain(network, image[1:2], gradients)[1]
    for key, one in alone.items():
        many = maps[key]
        torch.testing.assert_close(one[0], many[1], rtol=1e-4, atol=1e-6 * float(many.amax()))
    assert all(parameter.grad is None for parameter in network.parameters())


class Earlier(Encoder):
    """The maps at stride 8 in the place of the last."""

    def forward(self, image_B1HW: Tensor) -> list[Tensor]:
        return self.shallow(image_B1HW)


@pytest.mark.parametrize(
    ("layout", "canvas"), [("bottleneck", 128), ("basic", 224), ("bottleneck_stride8", 128)]
)
def test_a_cell_is_painted_around_the_pixels_it_sees(layout: Layout, canvas: int) -> None:
    seen = gradient_field(Earlier(layout).eval(), canvas)
    cell, centred = canvas // 16, layout == "bottleneck_stride8"
    hot = torch.zeros(1, canvas // 8, canvas // 8)
    hot[0, cell, cell] = 1
    painted = to_image(hot, canvas, centred)[0]
    assert painted.shape == (canvas, canvas)
    for axis in (0, 1):
        middle = float(seen.any(axis).nonzero().double().mean())
        weight = painted.sum(axis).double()
        painted_at = float((weight * torch.arange(canvas)).sum() / weight.sum())
        # An even stride cannot be halved: up to half a pixel is left where cells are centred.
        assert abs(middle - painted_at) <= (0.5 if centred else 1e-6)


def test_maps_that_the_encoder_has_centred_are_painted_as_those_of_explain() -> None:
    network, image = made("bottleneck_stride8"), films()
    features = network.encoder.shallow(image)[-1].detach().requires_grad_()
    logits = network.head(network.encoder.deepest(features))[0]
    (grad,) = torch.autograd.grad(logits[:, 1].sum(), features)
    small = layercam(features.detach(), grad).float()[:, None]
    expected = nn.functional.interpolate(small, size=(64, 64), mode="bilinear")[:, 0]
    found = explain(network, image, [LAYERCAM])[1][LAYERCAM.key]
    torch.testing.assert_close(found, expected)
