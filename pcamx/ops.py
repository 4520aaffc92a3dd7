"""One function per operation; the only door to what lies in ``kernels/``.

Shapes: B batch, K channels, C classes, h w the map, H W the image; N canvases, M lesion masks.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from pcamx.kernels import reference

Impl = Literal["auto", "triton", "reference"]


class Attended(NamedTuple):
    """What the attention of stage 2 leaves of an image."""

    image_B1HW: Tensor  # x * M, in the image's dtype
    cam_Bhw: Tensor  # positive CAM, min-max normalised per image; float32
    area_B: Tensor  # mean of the mask; exactly 1 where the map was flat


def _check(features_BKhw: Tensor, weight_CK: Tensor, class_index_B: Tensor) -> None:
    """Raise ValueError unless these are features, weight and classes of one batch."""
    if features_BKhw.dim() != 4 or weight_CK.dim() != 2 or class_index_B.dim() != 1:
        raise ValueError(
            "expected features [B, K, h, w], weight [C, K], class_index [B]; got "
            f"{list(features_BKhw.shape)}, {list(weight_CK.shape)}, {list(class_index_B.shape)}"
        )
    _check_floating(features_BKhw, "features")
    _check_floating(weight_CK, "weight")
    if class_index_B.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"expected class_index int32 or int64, got {class_index_B.dtype}")
    if weight_CK.shape[1] != features_BKhw.shape[1]:
        raise ValueError(
            f"weight has {weight_CK.shape[1]} columns for {features_BKhw.shape[1]} channels"
        )
    # shape[0], because len() would fix the batch of an exported graph.
    if class_index_B.shape[0] != features_BKhw.shape[0]:
        raise ValueError(f"{class_index_B.shape[0]} classes for {features_BKhw.shape[0]} images")
    _check_device(features_BKhw, weight_CK, class_index_B)


def _check_floating(tensor: Tensor, name: str) -> None:
    if not tensor.is_floating_point():
        raise ValueError(f"expected {name} of a floating dtype, got {tensor.dtype}")
    if 0 in tensor.shape[1:]:
        raise ValueError(f"{name} {list(tensor.shape)}: nothing but the batch may be empty")


def _check_device(first: Tensor, *others: Tensor | None) -> None:
    for other in others:
        if other is not None and other.device != first.device:
            raise ValueError(
                f"expected all tensors on one device, got {first.device} and {other.device}"
            )


class Operations(Protocol):
    """What an implementation holds: each operation, for inputs that are known to fit."""

    def class_activation(
        self, features_BKhw: Tensor, weight_CK: Tensor, class_index_B: Tensor, *, positive: bool
    ) -> Tensor:
        """See `reference.class_activation`."""
        ...

    def attend(
        self,
        features_BKhw: Tensor,
        weight_CK: Tensor,
        class_index_B: Tensor,
        image_B1HW: Tensor,
        omega: float,
        sigma: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `reference.attend`."""
        ...

    def gather_affine_normalise(
        self,
        canvas_N1HW: Tensor,
        row_B: Tensor,
        theta_B23: Tensor,
        gain_B: Tensor,
        mean: float,
        std: float,
        lesion_M1HW: Tensor | None,
        lesion_row_B: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """See `reference.gather_affine_normalise`."""
        ...


def _reference(device: torch.device) -> Operations:
    return reference


def _triton(device: torch.device) -> Operations:
    """Triton is imported here and no earlier, so that the reference also works without it."""
    try:
        from pcamx.kernels import fused
    except ImportError as error:
        raise ValueError(f"Triton: {error}; impl 'reference' does without") from error
    if not fused.runs_on(device):
        raise ValueError(
            f"impl 'triton' needs CUDA tensors, got {device.type}; on a CPU only Triton's "
            "interpreter runs it (TRITON_INTERPRET=1 before the start)"
        )
    return fused


IMPLEMENTATIONS: dict[str, Callable[[torch.device], Operations]] = {
    "triton": _triton,
    "reference": _reference,
}
"""How to come by each; raises ValueError where it cannot run on the device."""


def _operations(impl: Impl, device: torch.device) -> Operations:
    if impl == "auto":
        impl = "triton" if device.type == "cuda" else "reference"
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl {impl!r}: there are 'auto', 'triton' and 'reference'")
    return IMPLEMENTATIONS[impl](device)


def class_activation(
    features_BKhw: Tensor,
    weight_CK: Tensor,
    class_index_B: Tensor,
    *,
    positive: bool = True,
    impl: Impl = "auto",
) -> Tensor:
    """Positive CAM, eq. (2) of Lu & Tong, or the plain CAM, eq. (1), where ``positive`` is false.

    Features in any floating dtype and layout; class_index int32 or int64, a class without a row in
    the weight gives zeros. Returns the maps [B, h, w] in float32 (float64 for
    float64 features), differentiable to features and weight. Autocast does not reach inside.
    ``impl`` auto is triton on CUDA tensors and reference elsewhere.

    Raises ValueError for shapes, dtypes or devices that do not fit, or triton where it cannot run.
    """
    _check(features_BKhw, weight_CK, class_index_B)
    run = _operations(impl, features_BKhw.device).class_activation
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
    _check(features_BKhw, weight_CK, class_index_B)
    if image_B1HW.dim() != 4 or image_B1HW.shape[:2] != (len(features_BKhw), 1):
        raise ValueError(
            f"expected image [{len(features_BKhw)}, 1, H, W], got {list(image_B1HW.shape)}"
        )
    _check_floating(image_B1HW, "image")
    _check_device(features_BKhw, image_B1HW)
    if not mask_grad:
        features_BKhw, weight_CK = features_BKhw.detach(), weight_CK.detach()
    run = _operations(impl, features_BKhw.device).attend
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
    """Films ``row_B`` of the canvases, warped by theta, times gain, standardised; lesions alike.

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
    _check_planes(canvas_N1HW, "canvas", row_B, "row")
    if (lesion_M1HW is None) != (lesion_row_B is None):
        raise ValueError("lesion_M1HW and lesion_row_B go together; got only one of them")
    if lesion_M1HW is not None and lesion_row_B is not None:
        _check_planes(lesion_M1HW, "lesion", lesion_row_B, "lesion_row")
    _check_fit(canvas_N1HW, row_B, theta_B23, gain_B, lesion_M1HW, lesion_row_B)
    if not std > 0:
        raise ValueError(f"std {std}: expected a positive number of grey levels")
    given = canvas_N1HW, row_B, theta_B23, gain_B, float(mean), float(std)
    run = _operations(impl, canvas_N1HW.device).gather_affine_normalise
    with torch.no_grad(), torch.autocast(canvas_N1HW.device.type, enabled=False):
        return run(*given, lesion_M1HW, lesion_row_B)


def _check_planes(planes: Tensor, name: str, row_B: Tensor, row: str) -> None:
    """Raise ValueError unless ``planes`` are uint8 [*, 1, H, W] and the rows int64 [B]."""
    if planes.dim() != 4 or planes.shape[1] != 1 or planes.dtype != torch.uint8:
        raise ValueError(
            f"expected {name} uint8 [*, 1, H, W], got {planes.dtype} {list(planes.shape)}"
        )
    if not planes.is_contiguous():
        raise ValueError(f"expected {name} contiguous, got strides {planes.stride()}")
    if planes.shape[2] * planes.shape[3] >= 2**31:
        raise ValueError(f"expected {name} under 2^31 pixels each, got {list(planes.shape)}")
    if row_B.dim() != 1 or row_B.dtype != torch.int64:
        raise ValueError(f"expected {row} int64 [B], got {row_B.dtype} {list(row_B.shape)}")
    if planes.shape[0] == 0 and row_B.shape[0] > 0:
        raise ValueError(f"{row} asks for {row_B.shape[0]} of no {name}")


def _check_fit(
    canvas_N1HW: Tensor,
    row_B: Tensor,
    theta_B23: Tensor,
    gain_B: Tensor,
    lesion_M1HW: Tensor | None,
    lesion_row_B: Tensor | None,
) -> None:
    """Raise ValueError unless all are of one batch, canvas and device."""
    B = len(row_B)
    for name, tensor, shape in (("theta", theta_B23, [B, 2, 3]), ("gain", gain_B, [B])):
        if list(tensor.shape) != shape or tensor.dtype != torch.float32:
            raise ValueError(
                f"expected {name} float32 {shape}, got {tensor.dtype} {list(tensor.shape)}"
            )
    if lesion_M1HW is not None and lesion_M1HW.shape[1:] != canvas_N1HW.shape[1:]:
        raise ValueError(f"lesions {list(lesion_M1HW.shape)} on canvases {list(canvas_N1HW.shape)}")
    if lesion_row_B is not None and len(lesion_row_B) != B:
        raise ValueError(f"expected lesion_row [{B}], got {list(lesion_row_B.shape)}")
    _check_device(canvas_N1HW, row_B, theta_B23, gain_B, lesion_M1HW, lesion_row_B)
