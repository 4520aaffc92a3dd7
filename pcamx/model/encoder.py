"""The 23-layer network up to its last feature maps: 128 channels at stride 16.

Lu & Tong state 23 layers, 128 filters in the last convolution and 20x20 maps; two residual
layouts fit (weighted layers of the main path, with the classifier). Shapes: B batch, K channels.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = (32, 64, 128)
STRIDES = (4, 8, 16)
"""Of the three feature maps; the last is the one that maps are made from."""


def _conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


class Residual(nn.Module):
    """relu(branch(x) + shortcut(x)); He et al. 2016, the projection where shapes change."""

    def __init__(self, branch: nn.Sequential, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch = branch
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else _conv_norm(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.branch(x) + self.shortcut(x)
        return out.relu_()


def _bottleneck(inputs: int, outputs: int, stride: int) -> Residual:
    branch = nn.Sequential(
        _conv_norm(inputs, outputs, 1),
        nn.ReLU(inplace=True),
        _conv_norm(outputs, outputs, 3, stride),
        nn.ReLU(inplace=True),
        _conv_norm(outputs, outputs, 1),
    )
    return Residual(branch, inputs, outputs, stride)


def _basic(inputs: int, outputs: int, stride: int) -> Residual:
    branch = nn.Sequential(
        _conv_norm(inputs, outputs, 3, stride),
        nn.ReLU(inplace=True),
        _conv_norm(outputs, outputs, 3),
    )
    return Residual(branch, inputs, outputs, stride)


class Encoder(nn.Module):
    """Image [B, 1, H, W] to three feature maps, all non-negative, at strides 4, 8 and 16.

    ``bottleneck``: stem, 2 + 2 + 3 bottlenecks (1 + 21 convolutions), receptive field 131 px.
    ``basic``: stem, 3 + 4 + 3 basic blocks, a 3x3 convolution (1 + 20 + 1), 387 px.
    The classifier is the 23rd layer of either.
    """

    def __init__(self, layout: Literal["bottleneck", "basic"]) -> None:
        super().__init__()
        block, depths = (_bottleneck, (2, 2, 3)) if layout == "bottleneck" else (_basic, (3, 4, 3))
        self.stem = nn.Sequential(
            _conv_norm(1, CHANNELS[0], 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        )
        self.groups = nn.ModuleList()
        inputs = CHANNELS[0]
        for outputs, depth in zip(CHANNELS, depths, strict=True):
            first_stride = 1 if outputs == CHANNELS[0] else 2
            blocks: list[nn.Module] = [block(inputs, outputs, first_stride)]
            blocks += [block(outputs, outputs, 1) for _ in range(depth - 1)]
            if layout == "basic" and outputs == CHANNELS[-1]:
                blocks.append(nn.Sequential(_conv_norm(outputs, outputs, 3), nn.ReLU(inplace=True)))
            self.groups.append(nn.Sequential(*blocks))
            inputs = outputs
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image_B1HW: Tensor) -> list[Tensor]:
        # ZeRO flattens the weights and loses their layout, so the activations carry it: from the
        # image on, a view whose strides say channels_last, which is moot with one channel.
        B, _, H, W = image_B1HW.shape
        x = self.stem(image_B1HW.reshape(B, H, W, 1).permute(0, 3, 1, 2))
        features = []
        for group in self.groups:
            if group is self.groups[-1]:
                x = _centred(x)
            x = group(x)
            features.append(x)
        return features


def _centred(x_B64hw: Tensor) -> Tensor:
    """Move the maps at stride 8 by one cell, so that the stride of 16 falls on the odd ones.

    Convolutions of odd size put cell i of the last map at pixel 16 i, the corner of the 16 pixels
    that upsampling paints it over; now it lies at 16 i + 8, within half a pixel of their centre.
    """
    return F.pad(x_B64hw, (-1, 1, -1, 1))
