"""The kernels' operations as a user of PyTorch writes them, for eager and for torch.compile.

In the dtype of the features and the image, as under autocast; the weight is float32. They do not
look for flat maps, which saves them work. Shapes: B batch, K channels, C classes, N M canvases
and lesion masks, h w the map, H W the image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pcamx.config import Attention

OMEGA, SIGMA = Attention().omega, Attention().sigma


def class_activation(
    features_BKhw: Tensor, weight_CK: Tensor, class_index_B: Tensor, *, positive: bool = True
) -> Tensor:
    """Return maps [B, h, w] in the features' dtype, by one batched matrix product."""
    weight_CK = weight_CK.relu() if positive else weight_CK
    weight_BK = weight_CK[class_index_B].to(features_BKhw.dtype)
    return torch.einsum("bk,bkhw->bhw", weight_BK, features_BKhw)


def attend(
    features_BKhw: Tensor, weight_CK: Tensor, class_index_B: Tensor, image_B1HW: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return masked image, normalised map, mean of the mask: as `reference.attend`."""
    map_Bhw = normalise(class_activation(features_BKhw, weight_CK, class_index_B))
    up_B1HW = F.interpolate(
        map_Bhw[:, None], size=image_B1HW.shape[2:], mode="bilinear", align_corners=False
    )
    mask_B1HW = torch.sigmoid(OMEGA * (up_B1HW - SIGMA))
    return image_B1HW * mask_B1HW, map_Bhw, mask_B1HW.mean((1, 2, 3))


def attend_two_matmuls(
    features_BKhw: Tensor,
    weight_CK: Tensor,
    class_index_B: Tensor,
    image_B1HW: Tensor,
    *,
    up_Hh: Tensor,
    up_wW: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attend as `attend`, for torch.compile: no atomics backward, the toughest fair rival.

    Upsampling is a product with fixed weights from either side, and so is its gradient. The map
    is a sum, which the compiler fuses, where a batched product of one row would stand alone.
    """
    weight_BK = weight_CK.relu()[class_index_B].to(features_BKhw.dtype)
    map_Bhw = normalise((weight_BK[:, :, None, None] * features_BKhw).sum(1))
    mask_BHW = torch.sigmoid(OMEGA * (up_Hh @ (map_Bhw @ up_wW) - SIGMA))
    return image_B1HW * mask_BHW[:, None], map_Bhw, mask_BHW.mean((1, 2))


def upsampling(cells: int, pixels: int) -> Tensor:
    """Return weights [pixels, cells] of linear upsampling, align_corners=False; float64, on the
    CPU.
    """
    eye = torch.eye(cells, dtype=torch.float64)
    return F.interpolate(eye[None], size=pixels, mode="linear", align_corners=False)[0].T


def normalise(map_Bhw: Tensor) -> Tensor:
    """Scale each map to [0, 1], without gradient through min and max."""
    low_B11 = map_Bhw.detach().amin((1, 2), keepdim=True)
    high_B11 = map_Bhw.detach().amax((1, 2), keepdim=True)
    return (map_Bhw - low_B11) / (high_B11 - low_B11)


def gather_affine_normalise(
    canvas_N1HW: Tensor,
    row_B: Tensor,
    theta_B23: Tensor,
    gain_B: Tensor,
    mean: float,
    std: float,
    *,
    lesion_M1HW: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gather as `ops.gather_affine_normalise` where film and mask share their row; in theta's
    dtype.
    """
    planes_B2HW = torch.cat([canvas_N1HW[row_B], lesion_M1HW[row_B]], 1).to(theta_B23.dtype)
    grid_BHW2 = F.affine_grid(theta_B23, list(planes_B2HW.shape), align_corners=False)
    planes_B2HW = F.grid_sample(planes_B2HW, grid_BHW2, align_corners=False)
    grey_B1HW = (planes_B2HW[:, :1] * gain_B[:, None, None, None]).clamp(0, 255)
    return (grey_B1HW - mean) / std, (planes_B2HW[:, 1:] >= 0.5).to(theta_B23.dtype)
