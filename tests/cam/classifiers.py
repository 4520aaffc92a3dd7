"""Small classifiers in the shapes of torchvision's and timm's families, with random weights.

Each names its last maps [B, K, h, w] by `maps`, worked out without hooks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, CLASSES, SIZE = 12, 5, 16


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Block(nn.Module):
    """Residual with a squeeze-and-excitation, whose linear layer is fed averages too."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.se = nn.Linear(width, width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x))
        out = out * self.se(out.mean((2, 3))).sigmoid()[:, :, None, None]
        out += x  # as torchvision does
        return self.relu(out)


class Classifier(nn.Module):
    def maps(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class ResNet(Classifier):
    """torchvision: avgpool, flatten, fc."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv(3, WIDTH, 2)
        self.layer3 = nn.Sequential(Block(WIDTH))
        self.layer4 = nn.Sequential(Block(WIDTH), Block(WIDTH))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(WIDTH, CLASSES)

    def maps(self, x: Tensor) -> Tensor:
        return self.layer4(self.layer3(self.conv1(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.avgpool(self.maps(x)), 1))


class DenseNet(Classifier):
    """torchvision: the features are rectified in place behind the layer that gave them."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv(3, WIDTH, 2), nn.Conv2d(WIDTH, WIDTH, 3, padding=1))
        self.features.add_module("norm5", nn.BatchNorm2d(WIDTH))
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def maps(self, x: Tensor) -> Tensor:
        return F.relu(self.features(x), inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(F.adaptive_avg_pool2d(self.maps(x), (1, 1)).flatten(1))


class MobileNet(Classifier):
    """torchvision's mobilenet_v2 and efficientnet: classifier = dropout, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv(3, WIDTH, 2), conv(WIDTH, WIDTH))
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(WIDTH, CLASSES))

    def maps(self, x: Tensor) -> Tensor:
        return self.features(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.maps(x).mean([2, 3]))


class Timm(Classifier):
    """timm's regnet and convnext: stages, head.global_pool, head.norm, head.fc."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.stages = nn.Sequential(conv(3, WIDTH, 2), conv(WIDTH, WIDTH))
        self.norm_pre = nn.Identity()
        self.head = nn.Sequential()
        self.head.add_module("global_pool", nn.AdaptiveAvgPool2d(1))
        self.head.add_module("norm", nn.GroupNorm(1, WIDTH) if norm else nn.Identity())
        self.head.add_module("flatten", nn.Flatten(1))
        self.head.add_module("drop", nn.Dropout(0.2))
        self.head.add_module("fc", nn.Linear(WIDTH, CLASSES))

    def maps(self, x: Tensor) -> Tensor:
        return self.norm_pre(self.stages(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.maps(x))


class ConvNeXt(Timm):
    """A normalisation between average and linear layer."""

    def __init__(self) -> None:
        super().__init__(norm=True)


class ConvHead(Classifier):
    """The classifier is a 1x1 convolution behind the average."""

    def __init__(self) -> None:
        super().__init__()
        self.body = conv(3, WIDTH, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Conv2d(WIDTH, CLASSES, 1)

    def maps(self, x: Tensor) -> Tensor:
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.maps(x))).flatten(1)


class SqueezeNet(Classifier):
    """The classifier is a 1x1 convolution before the average."""

    def __init__(self) -> None:
        super().__init__()
        self.features = conv(3, WIDTH, 2)
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            nn.Conv2d(WIDTH, CLASSES, 1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
        )

    def maps(self, x: Tensor) -> Tensor:
        return self.features(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.maps(x)).flatten(1)


class Swin(Classifier):
    """timm's swin: maps with their channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, 4, 4)
        self.norm = nn.LayerNorm(WIDTH)
        self.fc = nn.Linear(WIDTH, CLASSES)

    def maps(self, x: Tensor) -> Tensor:
        return self.norm(self.patch(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.maps(x).mean((2, 3)))


FAMILIES = [ResNet, DenseNet, MobileNet, Timm, ConvNeXt, ConvHead, SqueezeNet, Swin]
FOUND = {  # target_layer, fc_layer
    ResNet: ("layer4", "fc"),
    DenseNet: ("features", "classifier"),
    MobileNet: ("features", "classifier.1"),
    Timm: ("norm_pre", "head.fc"),
    ConvNeXt: ("norm_pre", "head.fc"),
    ConvHead: ("body", "head"),
    SqueezeNet: ("classifier.0", "classifier.1"),
    Swin: ("norm", "fc"),
}


def build(family: type[Classifier], seed: int = 0) -> Classifier:
    """In train mode, with statistics of its own in every batch norm."""
    torch.manual_seed(seed)
    model = family()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    return model


def images(count: int = 4, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def vgg() -> nn.Module:
    """Flattened, not averaged; then three linear layers."""
    return nn.Sequential(
        conv(3, WIDTH, 2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * WIDTH, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, CLASSES),
    )


def mobilenet_v3() -> nn.Module:
    """Averaged, but two layers with an activation between them follow."""
    return nn.Sequential(
        conv(3, WIDTH, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(WIDTH, WIDTH),
        nn.Hardswish(),
        nn.Linear(WIDTH, CLASSES),
    )


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, 4, 4)
        self.block = nn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.patch(x).flatten(2).transpose(1, 2))[:, 0])


class MaxPooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = conv(3, WIDTH, 2)
        self.fc = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).amax((2, 3)))


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = conv(3, WIDTH, 2)
        self.finding = nn.Linear(WIDTH, CLASSES)
        self.age = nn.Linear(WIDTH, 2)

    def maps(self, x: Tensor) -> Tensor:
        return self.body(x)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.maps(x).mean((2, 3))
        return self.finding(pooled), self.age(pooled)


class HuggingFace(nn.Module):
    """Answers by name."""

    def __init__(self, model: Classifier, answer: type) -> None:
        super().__init__()
        self.inner = model
        self.answer = answer

    def forward(self, x: Tensor) -> object:
        return self.answer(logits=self.inner(x))
