"""One function per operation; the only door to what lies in ``kernels/``.

`implementations` says what may lie behind them, `checks` what they take. `pcamx.model` calls the
attention, `pcamx.data.feed` makes batches with it.
Shapes: B batch, K channels, C classes, h w the map, H W the image; N canvases, M lesion masks.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pcamx.kernels import reference
from pcamx.ops.checks import (
    check_device,
    check_features,
    check_fit,
    check_floating,
    check_planes,
)
from pcamx.ops.implementations import Impl, operations

__all__ = [
    "Attended",
    "Impl",
    "attend",
    "class_activation",
    "gather_affine_normalise",
    "mask_image",
]


class Attended(NamedTuple):
    """What the attention of stage 2 leaves of an image."""

    image_B1HW: Tensor  # x * M, in the image's dtype
    cam_Bhw: Tensor  # positive CAM, min-max normalised per image; float32
    area_B: Tensor  # mean of the mask; exactly 1 where the map was flat


def class_activation(
    features_BKhw: Tensor,
    weight_CK: Tensor,
    class_index_B: Tensor,
    *,
    positive: bool = True,
    impl: Impl = "auto",
) -> Tensor:
    """Return the positive CAM, eq. (2) of Lu & Tong, or without ``positive`` the plain CAM, eq.
    (1).

    Features in any floating dtype and layout; class_index int32 or int64, a class without a row in
    the weight gives zeros. Returns the maps [B, h, w] in float32 (float64 for
    float64 features), differentiable to features and weight. Autocast does not reach inside.
    ``impl`` auto is triton on CUDA tensors and reference elsewhere.

    Raises ValueError for shapes, dtypes or devices that do not fit, or triton where it cannot run.
    """
    check_features(features_BKhw, weight_CK, class_index_B)
    run = operations(impl, features_BKhw.device).class_activation
    with torch.autocast(features_BKhw.device.type, enabled=False):
        return run(features_BKhw, weight_CK, class_index_B, positive=positive)


def attend(
    features_BKhw: Tensor,
    weight_CK: Tensor,
    class_index_B: Tensor,
    image_B1HW: Tensor,
    *,
    omega: float = 10.0,
    sigma: float = 0.5,
    mask_grad: bool = True,
    impl: Impl = "auto",
) -> Attended:
    """Mask the image by the positive CAM of its class: M = sigmoid(omega (A - sigma)).

    A is the map, min-max normalised per image and upsampled bilinearly to the image. A flat map
    gives an all-ones mask. Differentiable to features, weight and image; min and max carry no
    gradient, and with ``mask_grad`` false the mask carries none. ``impl`` as `class_activation`.

    Raises ValueError for shapes, dtypes or devices that do not fit, or triton where it cannot run.
    """
    check_features(features_BKhw, weight_CK, class_index_B)
    if image_B1HW.dim() != 4 or image_B1HW.shape[:2] != (len(features_BKhw), 1):
        raise ValueError(
            f"expected image [{len(features_BKhw)}, 1, H, W], got {list(image_B1HW.shape)}"
        )
    check_floating(image_B1HW, "image")
    check_device(features_BKhw, image_B1HW)
    if not mask_grad:
        features_BKhw, weight_CK = features_BKhw.detach(), weight_CK.detach()
    run = operations(impl, features_BKhw.device).attend
    given = features_BKhw, weight_CK, class_index_B, image_B1HW, float(omega), float(sigma)
    with torch.autocast(features_BKhw.device.type, enabled=False):
        masked_B1HW, cam_Bhw, area_B = run(*given)
    if not (features_BKhw.requires_grad or weight_CK.requires_grad):
        cam_Bhw, area_B = cam_Bhw.detach(), area_B.detach()  # the image is not in them
    return Attended(masked_B1HW, cam_Bhw, area_B)


def mask_image(
    map_Bhw: Tensor, image_B1HW: Tensor, *, omega: float, sigma: float, mask_grad: bool
) -> Attended:
    """Mask the image by any map [B, h, w], float32, as `attend` does by the class's.

    In plain PyTorch on every device. Raises ValueError for shapes that do not fit.
    """
    if map_Bhw.dim() != 3 or image_B1HW.shape[:2] != (len(map_Bhw), 1):
        raise ValueError(
            f"expected map [B, h, w] and image [B, 1, H, W], got {list(map_Bhw.shape)} and "
            f"{list(image_B1HW.shape)}"
        )
    map_Bhw = map_Bhw if mask_grad else map_Bhw.detach()
    with torch.autocast(map_Bhw.device.type, enabled=False):
        return Attended(*reference.mask_image(map_Bhw, image_B1HW, omega, sigma))


def gather_affine_normalise(
    canvas_N1HW: Tensor,
    row_B: Tensor,
    theta_B23: Tensor,
    gain_B: Tensor,
    mean: float,
    std: float,
    *,
    lesion_M1HW: Tensor | None = None,
    lesion_row_B: Tensor | None = None,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor]:
    """Gather films ``row_B`` of the canvases, warped by theta, times gain, standardised; lesions
    alike.

    ``theta_B23`` takes a point of the output to the point of the canvas that it shows, in the
    coordinates of `torch.nn.functional.affine_grid`, align_corners=False; bilinear, black outside.
    Grey times gain is clipped to [0, 255], then (grey - mean) / std; a mask is lesion from 1/2 on.
    A film that is not warped keeps its greys to the bit.

    Canvases and masks are uint8 and contiguous, masks in {0, 1}; rows int64, theta and gain
    float32, all on one device. Returns image [B, 1, H, W] and lesion in {0, 1}, both float32 and
    without gradient; without masks the lesions are zeros that share one element, not to be written
    into. ``impl`` as `class_activation`. A row that does not exist is NaN from Triton, which does
    not ask the device, and PyTorch's error from the reference.

    Raises ValueError for shapes, dtypes, layouts or devices that do not fit, or triton where it
    cannot run.
    """
    check_planes(canvas_N1HW, "canvas", row_B, "row")
    if (lesion_M1HW is None) != (lesion_row_B is None):
        raise ValueError("lesion_M1HW and lesion_row_B go together; got only one of them")
    if lesion_M1HW is not None and lesion_row_B is not None:
        check_planes(lesion_M1HW, "lesion", lesion_row_B, "lesion_row")
    check_fit(canvas_N1HW, row_B, theta_B23, gain_B, lesion_M1HW, lesion_row_B)
    if not std > 0:
        raise ValueError(f"std {std}: expected a positive number of grey levels")
    given = canvas_N1HW, row_B, theta_B23, gain_B, float(mean), float(std)
    run = operations(impl, canvas_N1HW.device).gather_affine_normalise
    with torch.no_grad(), torch.autocast(canvas_N1HW.device.type, enabled=False):
        return run(*given, lesion_M1HW, lesion_row_B)
