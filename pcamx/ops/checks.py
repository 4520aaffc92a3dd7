"""Raise ValueError for tensors that do not fit an operation. Shapes as in `pcamx.ops`."""

import torch
from torch import Tensor


def check_features(features_BKhw: Tensor, weight_CK: Tensor, class_index_B: Tensor) -> None:
    """Raise ValueError unless these are features, weight and classes of one batch."""
    if features_BKhw.dim() != 4 or weight_CK.dim() != 2 or class_index_B.dim() != 1:
        raise ValueError(
            "expected features [B, K, h, w], weight [C, K], class_index [B]; got "
            f"{list(features_BKhw.shape)}, {list(weight_CK.shape)}, {list(class_index_B.shape)}"
        )
    check_floating(features_BKhw, "features")
    check_floating(weight_CK, "weight")
    if class_index_B.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"expected class_index int32 or int64, got {class_index_B.dtype}")
    if weight_CK.shape[1] != features_BKhw.shape[1]:
        raise ValueError(
            f"weight has {weight_CK.shape[1]} columns for {features_BKhw.shape[1]} channels"
        )
    # shape[0], because len() would fix the batch of an exported graph.
    if class_index_B.shape[0] != features_BKhw.shape[0]:
        raise ValueError(f"{class_index_B.shape[0]} classes for {features_BKhw.shape[0]} images")
    check_device(features_BKhw, weight_CK, class_index_B)


def check_floating(tensor: Tensor, name: str) -> None:
    """Raise ValueError unless it is of a floating dtype, and empty in nothing but the batch."""
    if not tensor.is_floating_point():
        raise ValueError(f"expected {name} of a floating dtype, got {tensor.dtype}")
    if 0 in tensor.shape[1:]:
        raise ValueError(f"{name} {list(tensor.shape)}: nothing but the batch may be empty")


def check_device(first: Tensor, *others: Tensor | None) -> None:
    """Raise ValueError unless all of them lie on one device."""
    for other in others:
        if other is not None and other.device != first.device:
            raise ValueError(
                f"expected all tensors on one device, got {first.device} and {other.device}"
            )


def check_planes(planes: Tensor, name: str, row_B: Tensor, row: str) -> None:
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


def check_fit(
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
    check_device(canvas_N1HW, row_B, theta_B23, gain_B, lesion_M1HW, lesion_row_B)
