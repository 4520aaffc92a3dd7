"""The pooled linear classifier, and the maps that its weights give.

Shapes: B batch, K channels, C classes, h w the map, H W the image.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcamx import ops
from pcamx.config import Attention, Pooling
from pcamx.model.encoder import FILTERS
from pcamx.types import ABNORMAL

TOP_SHARE = 0.02
"""Of a map's cells that pooling by the top takes the mean of: 12 of 24 x 24."""


class Head(nn.Module):
    """Logits of the features and, where an image is given, the image attended by them.

    One module owns the weight for both uses: under ZeRO-3 a weight is whole only inside the
    forward of the module that owns it.
    """

    def __init__(self, attention: Attention, impl: ops.Impl, pooling: Pooling = "mean") -> None:
        super().__init__()
        self.attention, self.impl, self.pooling = attention, impl, pooling
        self.weight = nn.Parameter(torch.empty(2, FILTERS))
        self.bias = nn.Parameter(torch.zeros(2))
        nn.init.normal_(self.weight, std=FILTERS**-0.5)

    def forward(
        self, features_BKhw: Tensor, image_B1HW: Tensor | None = None, label_B: Tensor | None = None
    ) -> tuple[Tensor, ops.Attended | None]:
        """Return logits [B, C]; with an image also its attended form, by the class ``mask_class``
        names.

        ``label_B`` is read only where ``mask_class`` is label.
        """
        logits_BC = self._pooled(features_BKhw) + self.bias
        if image_B1HW is None:
            return logits_BC, None
        cfg = self.attention
        attended = ops.attend(
            features_BKhw,
            self.weight,
            self._mask_class(logits_BC, label_B),
            image_B1HW,
            omega=cfg.omega,
            sigma=cfg.sigma,
            mask_grad=cfg.mask_grad,
            impl=self.impl,
        )
        return logits_BC, attended

    def _pooled(self, features_BKhw: Tensor) -> Tensor:
        """Each class's map sum_k w_k h_k as one number, [B, C]; a film of one cell is that cell."""
        if self.pooling == "mean":
            return F.linear(features_BKhw.mean((2, 3)), self.weight)
        cells_BCN = F.conv2d(features_BKhw, self.weight[:, :, None, None]).flatten(2).float()
        N = cells_BCN.shape[2]
        if self.pooling == "lse":
            return cells_BCN.logsumexp(2) - math.log(N)
        return cells_BCN.topk(max(1, round(TOP_SHARE * N)), 2).values.mean(2)

    def _mask_class(self, logits_BC: Tensor, label_B: Tensor | None) -> Tensor:
        """Whose map masks each image. The true label's would write the label into the mask."""
        if self.attention.mask_class == "predicted":
            return logits_BC.argmax(1)
        if self.attention.mask_class == "label":
            if label_B is None:
                raise ValueError("attention.mask_class label needs the labels")
            return label_B
        return logits_BC.new_full((len(logits_BC),), ABNORMAL, dtype=torch.int64)
