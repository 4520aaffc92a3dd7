"""The 23-layer network up to its last feature maps: 128 channels at stride 16, or 8.

Lu & Tong state 23 layers, 128 filters in the last convolution and 20x20 maps; two residual
layouts fit (weighted layers of the main path, with the classifier). Shapes: B batch, K channels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcamx.config import Layout

CHANNELS = (32, 64, 128)
FILTERS = CHANNELS[-1]
"""Of the last convolution, whatever the encoder."""


def _conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


class _Stem(nn.Conv2d):
    """The 7x7 convolution of stride 2 that sees the image [B, 1, H, W], H and W even.

    The gradient of an image of one channel is slow, and stage 2 asks for its masked image's. There
    the same sums are taken as a 4x4 convolution of the image's four phases: of every second pixel.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__(1, outputs, 7, stride=2, padding=3, bias=False)

    def forward(self, image_B1HW: Tensor) -> Tensor:
        if not image_B1HW.requires_grad:
            return super().forward(image_B1HW)
        phases_B4hw = F.pixel_unshuffle(image_B1HW, 2)
        phases_B4hw = F.pad(phases_B4hw, (2, 1, 2, 1)).contiguous(memory_format=torch.channels_last)
        # With a row and a column of zeros before, tap (u, v) is tap (u // 2, v // 2) of a phase.
        return F.conv2d(phases_B4hw, F.pixel_unshuffle(F.pad(self.weight, (1, 0, 1, 0)), 2))


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
    """Image [B, 1, H, W] to three feature maps, all non-negative, at strides 4, 8 and ``stride``.

    Maps are made from the last.

    ``bottleneck``: stem, 2 + 2 + 3 bottlenecks (1 + 21 convolutions), receptive field 131 px.
    ``basic``: stem, 3 + 4 + 3 basic blocks, a 3x3 convolution (1 + 20 + 1), 387 px.
    ``bottleneck_stride8``: as bottleneck, but strides 4, 8 and 8, receptive field 99 px.
    The classifier is the 23rd layer of each.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.channels = CHANNELS
        block, depths = (_basic, (3, 4, 3)) if layout == "basic" else (_bottleneck, (2, 2, 3))
        strides = (1, 2, 1) if layout == "bottleneck_stride8" else (1, 2, 2)
        self.stem = nn.Sequential(
            nn.Sequential(_Stem(CHANNELS[0]), nn.BatchNorm2d(CHANNELS[0])),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        self.groups = nn.ModuleList()
        inputs = CHANNELS[0]
        for outputs, depth, first_stride in zip(CHANNELS, depths, strides, strict=True):
            blocks: list[nn.Module] = [block(inputs, outputs, first_stride)]
            blocks += [block(outputs, outputs, 1) for _ in range(depth - 1)]
            if layout == "basic" and outputs == CHANNELS[-1]:
                blocks.append(nn.Sequential(_conv_norm(outputs, outputs, 3), nn.ReLU(inplace=True)))
            self.groups.append(nn.Sequential(*blocks))
            inputs = outputs
        self.stride = 4 * math.prod(strides)
        self.last_step = max(i for i, stride in enumerate(strides) if stride == 2)
        self.shallow_centred = self.last_step < len(self.groups) - 1
        """Whether the maps before the last lie as it does, see `_centred`."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image_B1HW: Tensor) -> list[Tensor]:
        features = self.shallow(image_B1HW)
        return [*features, self.deepest(features[-1])]

    def tracked(self, image_B1HW: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return `forward`'s maps, and the one at stride 8 to which the last has a graph."""
        features = self.shallow(image_B1HW)
        with torch.enable_grad():
            source_BKhw = features[-1].detach().requires_grad_()
            return [*features, self.deepest(source_BKhw)], source_BKhw

    def placed(self, source_BKhw: Tensor) -> Tensor:
        """Return what belongs to `tracked`'s source, such as its gradient, as its map lies."""
        return source_BKhw

    def shallow(self, image_B1HW: Tensor) -> list[Tensor]:
        """Return the feature maps before the last, at strides 4 and 8."""
        # ZeRO flattens the weights and loses their layout, so the activations carry it: from the
        # image on, a view whose strides say channels_last, which is moot with one channel.
        B, _, H, W = image_B1HW.shape
        x = self.stem(image_B1HW.reshape(B, H, W, 1).permute(0, 3, 1, 2))
        features = []
        for i in range(len(self.groups) - 1):
            x = self._group(i, x)
            features.append(x)
        return features

    def deepest(self, features_BKhw: Tensor) -> Tensor:
        """Return the last feature maps, from those at stride 8."""
        return self._group(len(self.groups) - 1, features_BKhw)

    def _group(self, i: int, x_BKhw: Tensor) -> Tensor:
        features: Tensor = self.groups[i](_centred(x_BKhw) if i == self.last_step else x_BKhw)
        return features


def _centred(x_BKhw: Tensor) -> Tensor:
    """Move the maps before the last step of stride 2 by one cell, so that it takes the odd ones.

    Convolutions of odd size put cell i of the last map, of stride s, at pixel s i, the corner of
    the s pixels that upsampling paints it over; now it lies at s i + s/2, within half a pixel of
    their centre.
    """
    return F.pad(x_BKhw, (-1, 1, -1, 1))
