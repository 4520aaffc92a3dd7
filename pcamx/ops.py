"""One function per operation of the paper; the only door to what lies in ``kernels/``.

Shapes: B batch, K channels, C classes, h w the map, H W the image.
"""

from types import ModuleType
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pcamx.kernels import reference

Impl = Literal["auto", "triton", "reference"]


class Attended(NamedTuple):
    """What the attention of stage 2 leaves of an image."""

    image_B1HW: Tensor  # x * M, in the image's dtype
    cam_Bhw: Tensor  # positive CAM, min-max normalised per image; float32
    area_B: Tensor  # mean of the mask; exactly 1 where the map was flat


def _check(features_BKhw: Tensor, weight_CK: Tensor, class_index_B: Tensor, impl: Impl) -> None:
    if impl not in ("auto", "triton", "reference"):
        raise ValueError(f"impl {impl!r}: there are 'auto', 'triton' and 'reference'")
    if features_BKhw.dim() != 4 or weight_CK.dim() != 2 or class_index_B.dim() != 1:
        raise ValueError(
            "expected features [B, K, h, w], weight [C, K], class_index [B]; got "
            f"{list(features_BKhw.shape)}, {list(weight_CK.shape)}, {list(class_index_B.shape)}"
        )
    if weight_CK.shape[1] != features_BKhw.shape[1]:
        raise ValueError(
            f"weight has {weight_CK.shape[1]} columns for {features_BKhw.shape[1]} channels"
        )
    if len(class_index_B) != len(features_BKhw):
        raise ValueError(f"{len(class_index_B)} classes for {len(features_BKhw)} images")


def _kernels(impl: Impl, tensor: Tensor) -> tuple[ModuleType, ModuleType] | None:
    """The modules whose kernels run on ``tensor``, or None for the reference.

    Triton is imported here and no earlier, so that the reference also works without it.
    """
    if impl == "reference" or (impl == "auto" and not tensor.is_cuda):
        return None
    try:
        from pcamx.kernels import attend, class_activation, launch
    except ImportError as error:
        raise ValueError(f"Triton: {error}; impl 'reference' does without") from error
    if not launch.runs_on(tensor.device):
        raise ValueError(
            f"impl 'triton' needs CUDA tensors, got {tensor.device.type}; on a CPU only Triton's "
            "interpreter runs it (TRITON_INTERPRET=1 before the start)"
        )
    return class_activation, attend


def class_activation(
    features_BKhw: Tensor,
    weight_CK: Tensor,
    class_index_B: Tensor,
    *,
    positive: bool = True,
    impl: Impl = "auto",
) -> Tensor:
    """Positive CAM, eq. (2) of Lu & Tong, or the plain CAM, eq. (1), where ``positive`` is false.

    Features in any floating dtype and layout; returns the maps [B, h, w] in float32 (float64 for
    float64 features), differentiable to features and weight. Autocast does not reach inside.
    ``impl`` auto is triton on CUDA tensors and reference elsewhere.

    Raises ValueError for shapes that do not fit, or triton where it cannot run.
    """
    _check(features_BKhw, weight_CK, class_index_B, impl)
    kernels = _kernels(impl, features_BKhw)
    with torch.autocast(features_BKhw.device.type, enabled=False):
        if kernels is not None:
            cam_Bhw: Tensor = kernels[0].class_activation(
                features_BKhw, weight_CK, class_index_B, positive
            )
            return cam_Bhw
        return reference.class_activation(
            features_BKhw, weight_CK, class_index_B, positive=positive
        )


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

    Raises ValueError for shapes that do not fit, or triton where it cannot run.
    """
    _check(features_BKhw, weight_CK, class_index_B, impl)
    if image_B1HW.dim() != 4 or image_B1HW.shape[:2] != (len(features_BKhw), 1):
        raise ValueError(
            f"expected image [{len(features_BKhw)}, 1, H, W], got {list(image_B1HW.shape)}"
        )
    kernels = _kernels(impl, features_BKhw)
    with torch.autocast(features_BKhw.device.type, enabled=False):
        if kernels is not None:
            tensors = features_BKhw, weight_CK, class_index_B, image_B1HW
            return Attended(*kernels[1].attend(*tensors, omega, sigma, mask_grad)[:3])
        return Attended(
            *reference.attend(
                features_BKhw,
                weight_CK,
                class_index_B,
                image_B1HW,
                omega=omega,
                sigma=sigma,
                mask_grad=mask_grad,
            )
        )
