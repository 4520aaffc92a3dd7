"""The operations in plain PyTorch: the truth that every kernel is measured against.

Shapes: B batch, K channels, C classes, h w the map, H W the image; N canvases, M lesion masks,
P planes (film and mask).
Maps are float32, or float64 where the features are (for gradient checks).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def class_activation(
    features_BKhw: Tensor, weight_CK: Tensor, class_index_B: Tensor, *, positive: bool
) -> Tensor:
    """Return the class activation map of each image's class, without bias.

    Eq. (2), H'_c = sum_k max(0, w_ck) h_k, or eq. (1), the plain map, where ``positive`` is
    false. Accumulated in float32 whatever the features' dtype.
    """
    dtype = torch.promote_types(features_BKhw.dtype, torch.float32)
    weight_CK = weight_CK.to(dtype)
    if positive:
        weight_CK = weight_CK.relu()
    # A product with the one-hot classes instead of an index: its gradient needs no atomics.
    classes_C = torch.arange(weight_CK.shape[0], device=weight_CK.device)
    one_hot_BC = (class_index_B[:, None] == classes_C).to(dtype)
    return torch.einsum("bk,bkhw->bhw", one_hot_BC @ weight_CK, features_BKhw.to(dtype))


def normalise(map_Bhw: Tensor) -> tuple[Tensor, Tensor]:
    """Scale each map to [0, 1] without gradient through min and max; say which are flat.

    A flat map becomes all ones. Returns the maps [B, h, w] and the flags [B].
    """
    low_B = map_Bhw.detach().amin((1, 2))
    span_B = map_Bhw.detach().amax((1, 2)) - low_B
    flat_B = span_B <= 0
    scaled_Bhw = (map_Bhw - low_B[:, None, None]) / span_B.masked_fill(flat_B, 1)[:, None, None]
    return torch.where(flat_B[:, None, None], torch.ones_like(scaled_Bhw), scaled_Bhw), flat_B


def attend(
    features_BKhw: Tensor,
    weight_CK: Tensor,
    class_index_B: Tensor,
    image_B1HW: Tensor,
    omega: float,
    sigma: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Apply positive CAM > min-max > bilinear upsampling > M = sigmoid(omega (A - sigma)) > x * M.

    A flat map gives an all-ones mask. Returns the masked image in the image's dtype, the
    normalised map and the mask's mean [B] (exactly 1 only for a flat map).
    """
    map_Bhw = class_activation(features_BKhw, weight_CK, class_index_B, positive=True)
    return mask_image(map_Bhw, image_B1HW, omega, sigma)


def mask_image(
    map_Bhw: Tensor, image_B1HW: Tensor, omega: float, sigma: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Mask as `attend`, from a map on; the map as it is, not normalised."""
    map_Bhw, flat_B = normalise(map_Bhw)
    up_B1HW = F.interpolate(
        map_Bhw[:, None], size=image_B1HW.shape[-2:], mode="bilinear", align_corners=False
    )
    mask_B1HW = torch.sigmoid(omega * (up_B1HW - sigma))
    mask_B1HW = torch.where(flat_B[:, None, None, None], torch.ones_like(mask_B1HW), mask_B1HW)
    masked_B1HW = (image_B1HW.to(mask_B1HW.dtype) * mask_B1HW).to(image_B1HW.dtype)
    return masked_B1HW, map_Bhw, mask_B1HW.mean((1, 2, 3))


@torch.no_grad()
def gather_affine_normalise(
    canvas_N1HW: Tensor,
    row_B: Tensor,
    theta_B23: Tensor,
    gain_B: Tensor,
    mean: float,
    std: float,
    lesion_M1HW: Tensor | None,
    lesion_row_B: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Gather > bilinear warp > gain, clipped to [0, 255] > (grey - mean) / std; lesions >= 1/2.

    One resampling serves film and mask. A film that is not warped keeps its greys to the bit,
    whatever the films beside it. Returns image and lesion, float32.
    """
    planes_BPHW = canvas_N1HW.index_select(0, row_B)
    if lesion_M1HW is not None and lesion_row_B is not None:
        planes_BPHW = torch.cat([planes_BPHW, lesion_M1HW.index_select(0, lesion_row_B)], 1)
    planes_BPHW = planes_BPHW.float()
    warped_B = (theta_B23 != torch.eye(2, 3, device=theta_B23.device)).flatten(1).any(1)
    # Evaluation warps no film; on a CPU the look is free and saves nine tenths of the work.
    if torch.compiler.is_compiling() or theta_B23.is_cuda or warped_B.any():
        grid_BHW2 = _grid(theta_B23, *planes_BPHW.shape[-2:])
        warped_BPHW = F.grid_sample(planes_BPHW, grid_BHW2, align_corners=False)
        planes_BPHW = torch.where(warped_B[:, None, None, None], warped_BPHW, planes_BPHW)
    grey_B1HW = (planes_BPHW[:, :1] * gain_B[:, None, None, None]).clamp_(0, 255)
    image_B1HW = grey_B1HW.sub_(mean).div_(std)
    if lesion_M1HW is None:
        return image_B1HW, image_B1HW.new_zeros(()).expand(image_B1HW.shape)
    return image_B1HW, (planes_BPHW[:, 1:] >= 0.5).float()


def _grid(theta_B23: Tensor, H: int, W: int) -> Tensor:
    """`affine_grid` element by element: a matrix product may round by batch size, or to TF32."""
    y, x = ((2 * torch.arange(n, device=theta_B23.device) + 1) / n - 1 for n in (H, W))
    t = theta_B23[:, :, :, None, None]
    rows = (t[:, i, 0] * x + t[:, i, 1] * y[:, None] + t[:, i, 2] for i in (0, 1))
    return torch.stack([*rows], -1)
