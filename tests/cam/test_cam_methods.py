"""PositiveCAM's other methods, names of classes, upsampling, and images with maps on top."""

from types import SimpleNamespace
from typing import Any

import classifiers
import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from classifiers import CLASSES, build, images
from PIL import Image
from torch import Tensor, nn

from pcamx import PositiveCAM

NAMES = [f"finding {i}" for i in range(CLASSES)]


def test_on_the_averaged_maps_gradients_give_the_weights() -> None:
    """There the gradient is w / hw in every cell: LayerCAM is positive CAM / hw, Grad-CAM
    relu(CAM) / hw."""
    model, x = build(classifiers.ResNet), images()
    cam, cells = PositiveCAM(model), 1
    positive, plain = cam(x, 2), PositiveCAM(model, positive=False)(x, 2)
    cells = positive[0].numel()
    torch.testing.assert_close(cam(x, 2, method="layer-cam"), positive.relu() / cells)
    torch.testing.assert_close(cam(x, 2, method="grad-cam"), plain.relu() / cells)
    assert cam.class_idx is not None and cam.class_idx.tolist() == [2] * len(x)


class GeM(nn.Module):
    """Generalised mean pooling and a head of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = classifiers.conv(3, 6, 2)
        self.head = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, CLASSES))

    def maps(self, x: Tensor) -> Tensor:
        return self.body(x)

    def top(self, maps: Tensor) -> Tensor:
        pooled: Tensor = self.head(maps.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3))
        return pooled

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.maps(x))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_head_of_any_kind_against_its_own_gradient(frozen: bool) -> None:
    torch.manual_seed(1)
    model, x = GeM().double().eval().requires_grad_(not frozen), images().double()
    for method, weigh in (
        ("layer-cam", lambda g: g.relu()),
        ("grad-cam", lambda g: g.mean((2, 3), keepdim=True)),
    ):
        maps = model.maps(x).detach().requires_grad_()
        predicted = model.top(maps).argmax(1)
        score = model.top(maps).gather(1, predicted[:, None]).sum()
        (grad,) = torch.autograd.grad(score, maps)
        expected = (weigh(grad) * maps).sum(1).relu().detach()
        with torch.inference_mode():  # the caller's
            found = PositiveCAM(model)(x, method=method)
        torch.testing.assert_close(found, expected)
        assert found.dtype == torch.float64 and not found.requires_grad
        large = PositiveCAM(model, target_layer="body")(x, method=method, upsample=True)
        enlarged = F.interpolate(expected[:, None], x.shape[-2:], mode="bilinear")[:, 0]
        torch.testing.assert_close(large, enlarged)


@pytest.mark.parametrize("make", [GeM, classifiers.MaxPooled, classifiers.vgg])
def test_what_is_refused_is_told_what_to_use_instead(make: Any) -> None:
    torch.manual_seed(0)
    cam, x = PositiveCAM(make()), images()
    with pytest.raises(ValueError, match="call with method='layer-cam' or 'grad-cam'") as caught:
        cam(x, 0)
    assert "\n" not in str(caught.value)
    assert cam(x, 0, method="layer-cam").ndim == 3


def test_channels_last_maps() -> None:
    model, x = build(classifiers.Swin), images()
    found = PositiveCAM(model)(x, 1, method="layer-cam")
    assert found.shape == PositiveCAM(model)(x, 1).shape


def test_refuses() -> None:
    model, x = build(classifiers.ResNet), images()
    for message, call in (
        ("one of cam, layer-cam, grad-cam", {"method": "cam++"}),
        ("class_idx 'lesion': name the classes, PositiveCAM", {"class_idx": "lesion"}),
    ):
        with pytest.raises(ValueError, match=message):
            PositiveCAM(model)(x, **call)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\[1, 3, 8, 32, 32\].*not volumes: slices of one"):
        PositiveCAM(model)(torch.zeros(1, 3, 8, 32, 32))
    with pytest.raises(ValueError, match="did you mean 'finding 2'"):
        PositiveCAM(model, classes=NAMES)(x, "findings 2")
    with pytest.raises(ValueError, match="2 names for the 5 classes"):
        PositiveCAM(model, classes=["a", "b"])(x, "a")
    with pytest.raises(ValueError, match="given twice"):
        PositiveCAM(model, classes=["a", "a"])
    with pytest.raises(ValueError, match=r"target_layer gives \[4, \d+\], not maps"):
        PositiveCAM(model, target_layer="fc")(x, method="grad-cam")
    with pytest.raises(ValueError, match="no layer gives maps"):
        PositiveCAM(nn.Sequential(nn.Flatten(), nn.LazyLinear(2)))(x, 0, method="grad-cam")


def test_classes_by_name() -> None:
    model, x = build(classifiers.ResNet), images()
    cam = PositiveCAM(model, classes=NAMES)
    assert torch.equal(cam(x, "finding 3"), cam(x, 3))
    mixed = ["finding 3", 0, "finding 1", "finding 0"]
    assert torch.equal(cam(x, mixed), cam(x, [3, 0, 1, 0]))
    assert torch.equal(cam(x, np.array(NAMES[:4])), cam(x, [0, 1, 2, 3]))  # type: ignore[arg-type]
    assert torch.equal(cam(x, "finding 3", method="grad-cam"), cam(x, 3, method="grad-cam"))
    model.config = SimpleNamespace(id2label=dict(enumerate(NAMES)))
    assert torch.equal(PositiveCAM(model)(x, "finding 4"), cam(x, 4))  # Hugging Face's names


def test_upsampling_keeps_the_graph_and_takes_no_image_too() -> None:
    model, x = build(classifiers.ResNet), images()
    cam = PositiveCAM(model)
    large = cam(x, 1, upsample=True)
    assert large.shape == (len(x), *x.shape[-2:]) and large.requires_grad
    expected = F.interpolate(cam(x, 1)[:, None], x.shape[-2:], mode="bilinear")[:, 0]
    torch.testing.assert_close(large, expected)


class ChannelsLast(nn.Module):
    """As Swin: [B, h, w, K] maps, the average over its middle axes."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 96, 4, 4)
        self.norm = nn.LayerNorm(96)
        self.fc = nn.Linear(96, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        averaged: Tensor = self.fc(self.norm(self.patch(x).permute(0, 2, 3, 1)).mean((1, 2)))
        return averaged


@pytest.mark.parametrize(("height", "width"), [(32, 24), (24, 32), (32, 32)])
def test_the_axes_of_maps_whose_channels_are_last(height: int, width: int) -> None:
    torch.manual_seed(0)
    model, x = ChannelsLast().eval(), torch.randn(2, 3, height, width)
    cam = PositiveCAM(model)
    positive, plain = cam(x, 1), PositiveCAM(model, positive=False)(x, 1)
    assert positive.shape == (2, height // 4, width // 4)
    cells = positive[0].numel()
    layer, grad = (cam(x, 1, method=name) for name in ("layer-cam", "grad-cam"))
    # The gradient is w / hw in every cell; LayerCAM rectifies the features as well.
    assert layer.shape == positive.shape
    torch.testing.assert_close(grad, plain.relu() / cells, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(256, 192), (192, 256), (256, 256)])
def test_as_many_channels_as_rows_are_still_channels(height: int, width: int) -> None:
    """64 channels of stride 4: of 256 x 192 pixels [64, 64, 48], of 256 x 256 [64, 64, 64]."""
    torch.manual_seed(0)
    stem = nn.Conv2d(1, 64, 4, 4)
    model = nn.Sequential(stem, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2)).eval()
    x = torch.randn(1, 1, height, width)
    plain = PositiveCAM(model, positive=False)(x, 1)
    found = PositiveCAM(model, target_layer="0")(x, 1, method="grad-cam")
    cells = plain[0].numel()
    torch.testing.assert_close(found, plain.relu() / cells, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_overlay_scales_deep_images(mode: str) -> None:
    """Pillow would clip at 255."""
    grey_HW = np.linspace(0, 4095, 64).reshape(8, 8)
    kinds = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
    image = Image.fromarray(grey_HW.astype(kinds[mode]))
    assert image.mode == mode
    found = np.asarray(PositiveCAM.overlay(image, torch.zeros(4, 4)))
    expected = np.rint(grey_HW.astype(kinds[mode]).astype(float) * 255 / 4095)
    assert np.abs(found[..., 0] - expected).max() <= 1


def test_names_that_a_model_has_of_itself() -> None:
    """One given twice, as ImageNet's crane, or too few for the head, is for who asks by name."""
    model, x = build(classifiers.ResNet), images()
    model.config = SimpleNamespace(id2label={0: "crane", 1: "dog", 2: "crane", 3: "a", 4: "b"})
    cam = PositiveCAM(model)
    assert torch.equal(cam(x, "dog"), cam(x, 1))
    with pytest.raises(ValueError, match="'crane' is the name of the classes 0, 2; give a number"):
        cam(x, "crane")
    model.config = SimpleNamespace(id2label={0: "LABEL_0", 1: "LABEL_1"})
    cam = PositiveCAM(model)
    assert torch.equal(cam(x, 3), PositiveCAM(build(classifiers.ResNet))(x, 3))
    with pytest.raises(ValueError, match="2 names for the 5 classes"):
        cam(x, "LABEL_1")
    model.config = SimpleNamespace(id2label={str(i): f"name{i}" for i in (10, 11, *range(10))})
    assert PositiveCAM(model).names == [f"name{i}" for i in range(12)]


def test_overlay_by_hand() -> None:
    """A map of two cells over a grey image: as it was where the map is 0, 0.65 of yellow at 1."""
    cam = torch.tensor([[-3.0, 5.0]])
    grey_HW = np.full((2, 8), 100, np.uint8)
    found = np.asarray(PositiveCAM.overlay(grey_HW, cam))
    assert found.shape == (2, 8, 3) and (found[:, :2] == 100).all()
    yellow = 255 * np.array(matplotlib.colormaps["inferno"](1.0)[:3])
    assert found[0, -1] == pytest.approx((0.35 * 100 + 0.65 * yellow).tolist(), abs=1)
    # Between the two centres, at 2 and 6 of 8 pixels: pixel 4, at 4.5, is 5/8 of the way.
    colour = 255 * np.array(matplotlib.colormaps["inferno"](5 / 8)[:3])
    alpha = 0.65 * 5 / 8
    expected = (1 - alpha) * 100 + alpha * colour
    assert found[0, 4] == pytest.approx(expected.tolist(), abs=4)


def test_overlay_takes_images_of_any_kind() -> None:
    rng = np.random.default_rng(0)
    rgb_HW3 = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
    flat = torch.full((2, 2), 0.3)  # says nothing: the image stays as it is
    tensor_3HW = torch.from_numpy(rgb_HW3).permute(2, 0, 1)
    for image in (rgb_HW3, Image.fromarray(rgb_HW3), tensor_3HW):
        assert np.array_equal(np.asarray(PositiveCAM.overlay(image, flat)), rgb_HW3)
    standardised = torch.tensor([[[-1.0, 0.0, 3.0]]])
    found = np.asarray(PositiveCAM.overlay(standardised, flat))
    assert found[0, :, 0].tolist() == [0, 64, 255]
    with pytest.raises(ValueError, match=r"the map of one image, \[h, w\]; maps\[0\], say"):
        PositiveCAM.overlay(rgb_HW3, flat[None])
    with pytest.raises(ValueError, match="overlay takes one image"):
        PositiveCAM.overlay(torch.zeros(4, 3, 8, 8), flat)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("image", "cam", "opacity", "message"),
    [
        (np.zeros((4, 4), np.uint8), [[0.0, NAN]], 0.5, "the map holds NaN or infinite values"),
        (np.zeros((4, 4), np.uint8), [[0.0, INF]], 0.5, "the map holds NaN or infinite values"),
        (np.array([[0.0, NAN]]), [[0.0, 1.0]], 0.5, "the image holds NaN or infinite values"),
        (np.zeros((4, 4), np.uint8), [[0.0, 1.0]], 2, r"opacity 2 is outside 0 \.\.\. 1"),
        (np.zeros((4, 4), np.uint8), [[0.0, 1.0]], NAN, r"opacity nan is outside 0 \.\.\. 1"),
        (np.zeros((4, 4), np.uint8), [[]], 0.5, "the map of one image"),
        (np.zeros((0, 4), np.uint8), [[0.0, 1.0]], 0.5, "overlay takes one image"),
    ],
)
def test_overlay_refuses_what_it_would_draw_as_something_else(
    image: Any, cam: list[list[float]], opacity: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PositiveCAM.overlay(image, torch.tensor(cam), opacity=opacity)
