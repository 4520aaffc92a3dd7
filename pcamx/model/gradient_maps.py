"""Maps from the gradient of the class score to an encoder's feature maps.

Shapes: B batch, K channels, h w the map, H W the image.
"""

import torch.nn.functional as F
from torch import Tensor


def gradcam(features_BKhw: Tensor, grad_BKhw: Tensor) -> Tensor:
    """Return relu(sum_k mean_ij(g_kij) A_kij) of maps A, the class score's gradient g: [B, h, w].

    Selvaraju et al. 2017.
    """
    return (grad_BKhw.mean((2, 3), keepdim=True) * features_BKhw).sum(1).relu()


def layercam(features_BKhw: Tensor, grad_BKhw: Tensor) -> Tensor:
    """Return relu(sum_k relu(g_kij) A_kij): [B, h, w]. Jiang et al. 2021."""
    return (grad_BKhw.relu() * features_BKhw).sum(1).relu()


def to_image(map_Bhw: Tensor, side: int, centred: bool) -> Tensor:
    """Upsample bilinearly to [B, H, W], H = W = ``side``, each cell around the pixels it sees.

    Where `Encoder` has not ``centred`` them, cell i of stride s lies at pixel s i.
    """
    map_B1hw = map_Bhw[:, None]
    if centred:
        return F.interpolate(map_B1hw, size=side, mode="bilinear", align_corners=False)[:, 0]
    stride = side // map_Bhw.shape[-1]
    inner = side - stride + 1
    at_cells = F.interpolate(map_B1hw, size=inner, mode="bilinear", align_corners=True)
    return F.pad(at_cells, (0, stride - 1, 0, stride - 1), mode="replicate")[:, 0]
