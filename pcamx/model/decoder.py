"""The decoder of stage 3: where the lesion lies, from the classifier's own encoder.

Shapes: B batch, K channels, h w a map, H W the image.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class Decoder(nn.Module):
    """Feature maps at strides 16, 8 and 4 to the logit of a lesion [B, 1, H, W], float32.

    Each step up is bilinear, added to the finer map, then one 3x3 convolution; the answer is
    given at stride 4 and interpolated. The paper says only that encoder and decoder form a fully
    convolutional network.
    """

    def __init__(self, channels: Sequence[int], width: int = 32) -> None:
        """Make a decoder of maps with ``channels``, the finest first."""
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(inputs, width, 1) for inputs in channels)
        self.smooth = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            )
            for _ in channels
        )
        self.answer = nn.Conv2d(width, 1, 1)

    def forward(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        x = self.smooth[-1](self.lateral[-1](features[-1]))
        for i in reversed(range(len(features) - 1)):
            x = F.interpolate(x, size=features[i].shape[-2:], mode="bilinear", align_corners=False)
            x = self.smooth[i](x + self.lateral[i](features[i]))
        return F.interpolate(
            self.answer(x).float(), size=size, mode="bilinear", align_corners=False
        )
