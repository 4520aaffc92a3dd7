"""A normalisation between the average and the linear layer, as a part of the linear layer.

Shapes: B batch, K channels, C classes, h w the map.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pcamx.cam.by_gradient import INSTEAD

_BATCH = nn.modules.batchnorm._BatchNorm
NORMS = (_BATCH, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


class Folded(NamedTuple):
    """Weights of the channels' averages, and what the maps of each image are divided by."""

    weight_CK: Tensor
    spread_B: Tensor | None
    """None where the normalisation does not depend on the image."""


def fold(norm: nn.Module, weight_CK: Tensor, features_BKhw: Tensor) -> Folded:
    """Return what the linear layer's weight is to the average *before* ``norm``.

    The plain CAM's average is then the logit without what does not depend on the place. Of a
    LayerNorm, g (v - mean v) / spread + b, channel k weighs w_ck g_k less the mean of these over
    the channels. In float32, or the features' float64; differentiable. Raises ValueError for a
    GroupNorm of several groups, and for batch norm without running statistics.
    """
    dtype = torch.promote_types(torch.float32, features_BKhw.dtype)
    gain = norm.weight
    weight_CK = weight_CK.to(dtype)
    if isinstance(gain, Tensor):
        weight_CK = weight_CK * gain.to(dtype).flatten()
    if isinstance(norm, _BATCH) and norm.running_var is not None:
        return Folded(weight_CK * (norm.running_var.to(dtype) + norm.eps).rsqrt(), None)
    average_BK = features_BKhw.to(dtype).mean((2, 3))
    if isinstance(norm, nn.RMSNorm):
        # torch sums halves in float32, and takes that one's: 1e-7, not 8e-3 of bfloat16.
        eps = torch.finfo(dtype).eps if norm.eps is None else norm.eps
        return Folded(weight_CK, (average_BK.square().mean(1) + eps).sqrt())
    if isinstance(norm, nn.LayerNorm) or isinstance(norm, nn.GroupNorm) and norm.num_groups == 1:
        spread_B = (average_BK.var(1, correction=0) + norm.eps).sqrt()
        return Folded(weight_CK - weight_CK.mean(1, keepdim=True), spread_B)
    raise ValueError(
        f"a {type(norm).__name__} stands between the average and fc_layer, which weighs no map by "
        f"its channel alone{INSTEAD}"
    )
