"""The attention path against loops in float64; shapes B batch, K channels, h w map, H W image."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcamx import ops
from pcamx.ops import attend, class_activation

Array = NDArray[np.float64]
OMEGA, SIGMA = 10.0, 0.5


def case(
    shape: tuple[int, int, int, int] = (2, 3, 3, 4), size: tuple[int, int] = (5, 7)
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Float64 features, weights of both signs, classes, image."""
    generator = torch.Generator().manual_seed(7)
    B, K = shape[:2]
    features = torch.rand(shape, generator=generator, dtype=torch.float64)
    weight = torch.randn(2, K, generator=generator, dtype=torch.float64)
    weight[:, 0], weight[:, 1] = 0.7, -0.4  # neither class has a flat map or lacks a negative
    image = torch.randn(B, 1, *size, generator=generator, dtype=torch.float64)
    return features, weight, torch.arange(B) % 2, image


def loop_cam(features: Array, weight: Array, classes: list[int], positive: bool) -> Array:
    B, K, h, w = features.shape
    cam = np.zeros((B, h, w))
    for b in range(B):
        for k in range(K):
            factor = weight[classes[b], k]
            for y in range(h):
                for x in range(w):
                    cam[b, y, x] += (max(0.0, factor) if positive else factor) * features[
                        b, k, y, x
                    ]
    return cam


def neighbours(i: int, small: int, large: int) -> tuple[int, int, float]:
    """Both source rows of output row ``i``, pixel centres at half steps, and the second's share."""
    place = max((i + 0.5) * small / large - 0.5, 0.0)
    low = int(place)
    return low, min(low + 1, small - 1), place - low


def loop_masked(cam: Array, image: Array, low: Array, span: Array) -> tuple[Array, Array, Array]:
    """Masked image, normalised map and area for a given minimum and range of each map."""
    B, _, H, W = image.shape
    a = (cam - low[:, None, None]) / span[:, None, None]
    out, area = np.zeros_like(image), np.zeros(B)
    for b in range(B):
        for i in range(H):
            y0, y1, fy = neighbours(i, cam.shape[1], H)
            for j in range(W):
                x0, x1, fx = neighbours(j, cam.shape[2], W)
                top = (1 - fx) * a[b, y0, x0] + fx * a[b, y0, x1]
                bottom = (1 - fx) * a[b, y1, x0] + fx * a[b, y1, x1]
                up = (1 - fy) * top + fy * bottom
                mask = 1 / (1 + math.exp(-OMEGA * (up - SIGMA)))
                out[b, 0, i, j] = image[b, 0, i, j] * mask
                area[b] += mask / (H * W)
    return out, a, area


@pytest.mark.parametrize("positive", [True, False])
def test_class_activation_equals_the_loop(positive: bool) -> None:
    features, weight, classes, _ = case()
    ours = class_activation(features, weight, classes, positive=positive)
    loop = loop_cam(features.numpy(), weight.numpy(), classes.tolist(), positive)
    np.testing.assert_allclose(ours.numpy(), loop, rtol=1e-12, atol=1e-14)


def test_negative_weights_are_dropped_in_eq_2_and_kept_in_eq_1_and_there_is_no_bias() -> None:
    features = torch.tensor([[[[2.0]], [[5.0]]]])
    weight = torch.tensor([[9.0, 9.0], [3.0, -4.0]])
    one = torch.tensor([1])
    assert class_activation(features, weight, one).item() == 6
    assert class_activation(features, weight, one, positive=False).item() == -14
    zero = torch.zeros_like(features)
    assert class_activation(zero, weight, one, positive=False).item() == 0


@pytest.mark.parametrize("size", [(5, 7), (6, 8), (3, 4), (2, 9)])
def test_attend_equals_the_loop(size: tuple[int, int]) -> None:
    features, weight, classes, image = case(size=size)
    cam = loop_cam(features.numpy(), weight.numpy(), classes.tolist(), True)
    low, span = cam.min((1, 2)), cam.max((1, 2)) - cam.min((1, 2))
    ours = attend(features, weight, classes, image, omega=OMEGA, sigma=SIGMA)
    for got, expected in zip(ours, loop_masked(cam, image.numpy(), low, span), strict=True):
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12, atol=1e-14)


def numeric_gradients(mask_grad: bool) -> list[Array]:
    """Central differences of sum(masked * probe) + sum(area) with minimum and range held still."""
    features, weight, classes, image = (t.numpy().copy() for t in case())
    still = loop_cam(features, weight, list(classes), True)
    low, span = still.min((1, 2)), still.max((1, 2)) - still.min((1, 2))

    def value() -> float:
        cam = loop_cam(features, weight, list(classes), True) if mask_grad else still
        masked, _, area = loop_masked(cam, image, low, span)
        return float((masked * probe(masked)).sum() + area.sum())

    gradients, step = [], 1e-5
    for array in (features, weight, image):
        gradient = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            kept = array[place]
            array[place] = kept + step
            above = value()
            array[place] = kept - step
            gradient[place] = (above - value()) / (2 * step)
            array[place] = kept
        gradients.append(gradient)
    return gradients


def probe(masked: Array) -> Array:
    return np.cos(np.arange(masked.size)).reshape(masked.shape)


@pytest.mark.parametrize("mask_grad", [True, False])
def test_gradients_with_minimum_and_maximum_held_still(mask_grad: bool) -> None:
    features, weight, classes, image = case()
    leaves = [t.requires_grad_() for t in (features, weight, image)]
    masked, _, area = attend(features, weight, classes, image, mask_grad=mask_grad)
    value = (masked * torch.from_numpy(probe(masked.detach().numpy()))).sum() + area.sum()
    grads = torch.autograd.grad(value, leaves, allow_unused=True)
    for leaf, grad, expected in zip(leaves, grads, numeric_gradients(mask_grad), strict=True):
        ours = np.zeros(leaf.shape) if grad is None else grad.numpy()
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-8)
        assert mask_grad or leaf is image or not ours.any()


@pytest.mark.parametrize("positive", [True, False])
def test_gradcheck_of_the_map(positive: bool) -> None:
    features, weight, classes, _ = case()
    leaves = features.requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f, w: class_activation(f, w, classes, positive=positive), leaves
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("autocast", [False, True])
def test_accumulates_in_float32(dtype: torch.dtype, autocast: bool) -> None:
    features, weight, classes, image = case((2, 128, 9, 9), (33, 31))
    low, weight32, image32 = features.to(dtype), weight.float(), image.float()
    exact = low.double(), weight32.double(), classes
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        cam = class_activation(low, weight32, classes)
        plain = class_activation(low, weight32, classes, positive=False)
        attended = attend(low, weight32, classes, image32)
    assert cam.dtype == plain.dtype == attended.cam_Bhw.dtype == torch.float32
    assert attended.area_B.dtype == attended.image_B1HW.dtype == torch.float32
    truth = class_activation(*exact)
    scale = truth.abs().max()
    assert (cam - truth).abs().max() < 2e-6 * scale
    assert (plain - class_activation(*exact, positive=False)).abs().max() < 2e-6 * scale
    whole = attend(*exact, image32.double())
    for ours, true in zip(attended, whole, strict=True):
        assert (ours - true).abs().max() < 1e-4  # min-max and omega widen the error; bf16: 1e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_masked_image_keeps_the_dtype_of_the_image(dtype: torch.dtype) -> None:
    features, weight, classes, image = case()
    attended = attend(features.float(), weight.float(), classes, image.to(dtype))
    assert attended.image_B1HW.dtype == dtype
    assert attended.cam_Bhw.dtype == attended.area_B.dtype == torch.float32


def test_layouts_agree() -> None:
    features, weight, classes, image = case((3, 8, 5, 6), (19, 23))
    layout = features.contiguous(memory_format=torch.channels_last)
    assert layout.stride() != features.stride()
    for one, other in zip(
        attend(features, weight, classes, image),
        attend(layout, weight, classes, image),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("feature", [0.0, 3.0])
def test_flat_map_leaves_the_image_whole_and_gives_no_gradient(feature: float) -> None:
    features = torch.full((2, 3, 4, 4), feature)
    features[1] = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    weight = torch.full((2, 3), 0.3)
    features.requires_grad_(), weight.requires_grad_()
    image = torch.randn(2, 1, 9, 9, generator=torch.Generator().manual_seed(1))
    attended = attend(features, weight, torch.tensor([1, 1]), image)
    assert torch.equal(attended.image_B1HW[0], image[0])
    assert torch.equal(attended.cam_Bhw[0], torch.ones(4, 4))
    assert attended.area_B[0] == 1 and attended.area_B[1] < 1
    flat = attended.image_B1HW[0].square().sum() + attended.area_B[0]
    of_features, of_weight = torch.autograd.grad(flat, (features, weight), retain_graph=True)
    assert not of_features.any() and not of_weight.any()
    of_features, of_weight = torch.autograd.grad(attended.area_B.sum(), (features, weight))
    assert not of_features[0].any() and of_features[1].any() and of_weight.isfinite().all()


@pytest.mark.parametrize("bump", [1e-30, 1e-3, 1e30])
def test_area_is_below_one_for_any_map_that_is_not_flat(bump: float) -> None:
    features = torch.zeros(1, 1, 20, 20)
    features[..., 1:] = bump  # one dark column, the rest at the maximum
    attended = attend(features, torch.ones(2, 1), torch.tensor([1]), torch.ones(1, 1, 320, 320))
    assert 0.9 < attended.area_B.item() < 1
    assert attended.cam_Bhw.amin() == 0 and attended.cam_Bhw.amax() == 1


@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches(batch: int) -> None:
    features, weight, _, image = (t.float() for t in case((2, 3, 3, 5), (7, 11)))
    classes = torch.ones(batch, dtype=torch.int64)
    attended = attend(features[:batch], weight, classes, image[:batch])
    assert attended.image_B1HW.shape == (batch, 1, 7, 11)
    assert attended.cam_Bhw.shape == (batch, 3, 5) and attended.area_B.shape == (batch,)
    if batch:
        both = attend(features, weight, torch.tensor([1, 0]), image)
        torch.testing.assert_close(attended.image_B1HW[0], both.image_B1HW[0])


F, W, C, X = torch.rand(2, 3, 4, 4), torch.rand(2, 3), torch.tensor([0, 1]), torch.rand(2, 1, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((F[0], W, C, X), "features"),
        ((F, W[0], C, X), "weight"),
        ((F, W, C[:, None], X), "class_index"),
        ((F, W[:, :2], C, X), "2 columns for 3 channels"),
        ((F, W, C[:1], X), "1 classes for 2 images"),
        ((F, W, C, X[:1]), "image"),
        ((F, W, C, X[:, 0]), "image"),
        ((F, W, C, X.expand(2, 3, 8, 8)), "image"),
        ((F.long(), W, C, X), "features of a floating dtype, got torch.int64"),
        ((F, W.int(), C, X), "weight of a floating dtype"),
        ((F, W, C, X.byte()), "image of a floating dtype, got torch.uint8"),
        ((F, W, C.float(), X), "class_index int32 or int64, got torch.float32"),
        ((F, W, C.bool(), X), "class_index int32 or int64"),
        ((F[:, :0], W[:, :0], C, X), "features .* but the batch may be empty"),
        ((F[..., :0], W, C, X), "features .* but the batch may be empty"),
        ((F, W, C, X[..., :0, :]), "image .* but the batch may be empty"),
        ((F, W.to("meta"), C, X), "one device, got cpu and meta"),
        ((F, W, C, X.to("meta")), "one device"),
    ],
)
def test_what_does_not_fit(arguments: tuple[Tensor, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        attend(*arguments)
    if arguments[3] is X:
        with pytest.raises(ValueError, match=words):
            class_activation(*arguments[:3])


def test_unknown_implementation() -> None:
    with pytest.raises(ValueError, match="cuda"):
        class_activation(F, W, C, impl="cuda")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cuda"):
        attend(F, W, C, X, impl="cuda")  # type: ignore[arg-type]
    assert ops.Attended._fields == ("image_B1HW", "cam_Bhw", "area_B")
