"""The whole network: encoder, head and, from stage 3 on, the decoder.

Shapes: B batch, C classes, h w the map, H W the image.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcamx import ops
from pcamx.config import Attention, Model
from pcamx.model.decoder import Decoder
from pcamx.model.encoder import Encoder
from pcamx.model.head import Head
from pcamx.types import ABNORMAL


class Maps(NamedTuple):
    """Unnormalised maps of the abnormal class at the image's size, float32."""

    cam_BHW: Tensor
    positive_cam_BHW: Tensor
    decoder_BHW: Tensor | None


class GradientMaps(NamedTuple):
    """Unnormalised maps of the abnormal class at the image's size, float32, not negative."""

    gradcam_BHW: Tensor
    layercam_BHW: Tensor


class Architecture(Protocol):
    """What of a run's config makes its network."""

    @property
    def model(self) -> Model: ...

    @property
    def attention(self) -> Attention: ...


class Network(nn.Module):
    """Classifier with class activation maps; ``decoder`` adds the lesion decoder of stage 3."""

    def __init__(self, config: Architecture, *, decoder: bool) -> None:
        super().__init__()
        self.encoder = Encoder(config.model.layout)
        self.head = Head(config.attention)
        self.decoder = Decoder() if decoder else None

    def forward(self, image_B1HW: Tensor) -> Tensor:
        """Logits [B, C] of the full image."""
        logits_BC: Tensor = self.head(self.encoder(image_B1HW)[-1])[0]
        return logits_BC

    @torch.no_grad()
    def explain(self, image_B1HW: Tensor) -> tuple[Tensor, Maps]:
        """Logits and the maps of the abnormal class, whatever the label, as they are evaluated."""
        return self._explain(self.encoder(image_B1HW), image_B1HW)

    @torch.no_grad()
    def explain_with_gradients(self, image_B1HW: Tensor) -> tuple[Tensor, Maps, GradientMaps]:
        """As `explain`, and Grad-CAM and LayerCAM at stride 8; for evaluation mode.

        Not at the last feature maps A_k: there the gradient of the pooled linear head is w_k / hw
        in every cell, so Grad-CAM is relu(CAM) / hw and LayerCAM is positive CAM / hw.
        """
        shallow, side = self.encoder.shallow(image_B1HW), image_B1HW.shape[-1]
        # In evaluation mode no film sees another, so the sum's gradient is each film's own.
        with torch.enable_grad():
            leaf_BKhw = shallow[-1].detach().requires_grad_()
            deepest_BKhw = self.encoder.deepest(leaf_BKhw)
            logits_BC, _ = self.head(deepest_BKhw)
            (grad_BKhw,) = torch.autograd.grad(logits_BC[:, ABNORMAL].sum(), leaf_BKhw)
        pair = shallow[-1].float(), grad_BKhw.float()
        centred = self.encoder.last_step < len(shallow)
        maps = GradientMaps(*(_to_image(f(*pair), side, centred) for f in (gradcam, layercam)))
        return *self._explain([*shallow, deepest_BKhw.detach()], image_B1HW), maps

    def _explain(self, features: list[Tensor], image_B1HW: Tensor) -> tuple[Tensor, Maps]:
        abnormal_B = torch.full((len(image_B1HW),), ABNORMAL, device=image_B1HW.device)
        maps = (
            ops.class_activation(
                features[-1],
                self.head.weight,
                abnormal_B,
                positive=positive,
                impl=self.head.attention.impl,
            )
            for positive in (False, True)
        )
        size = (image_B1HW.shape[-2], image_B1HW.shape[-1])
        cam, positive_cam = (
            F.interpolate(m[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
            for m in maps
        )
        lesion = None if self.decoder is None else self.decoder(features, size)[:, 0]
        return self.head(features[-1])[0], Maps(cam, positive_cam, lesion)


def gradcam(features_BKhw: Tensor, grad_BKhw: Tensor) -> Tensor:
    """relu(sum_k mean_ij(g_kij) A_kij) of maps A and the class score's gradient g: [B, h, w].

    Selvaraju et al. 2017.
    """
    return (grad_BKhw.mean((2, 3), keepdim=True) * features_BKhw).sum(1).relu()


def layercam(features_BKhw: Tensor, grad_BKhw: Tensor) -> Tensor:
    """relu(sum_k relu(g_kij) A_kij): [B, h, w]. Jiang et al. 2021."""
    return (grad_BKhw.relu() * features_BKhw).sum(1).relu()


def _to_image(map_Bhw: Tensor, side: int, centred: bool) -> Tensor:
    """Bilinear, to [B, H, W] with H = W = ``side``, each cell around the pixels it sees.

    Where `Encoder` has not ``centred`` them, cell i of stride s lies at pixel s i.
    """
    map_B1hw = map_Bhw[:, None]
    if centred:
        return F.interpolate(map_B1hw, size=side, mode="bilinear", align_corners=False)[:, 0]
    stride = side // map_Bhw.shape[-1]
    inner = side - stride + 1
    at_cells = F.interpolate(map_B1hw, size=inner, mode="bilinear", align_corners=True)
    return F.pad(at_cells, (0, stride - 1, 0, stride - 1), mode="replicate")[:, 0]


class Segmenter(nn.Module):
    """The same encoder and decoder without a classifier: the baseline of stage 3."""

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        self.encoder = Encoder(config.model.layout)
        self.decoder = Decoder()

    def forward(self, image_B1HW: Tensor) -> Tensor:
        """Lesion map [B, 1, H, W] in [0, 1], float32."""
        size = (image_B1HW.shape[-2], image_B1HW.shape[-1])
        lesion_B1HW: Tensor = self.decoder(self.encoder(image_B1HW), size)
        return lesion_B1HW


@contextmanager
def batch_norm_by(
    module: nn.Module, statistics: Literal["batch", "running", "updated"]
) -> Iterator[None]:
    """How batch norm inside normalises; masked images have other statistics than whole ones.

    ``batch``: by the batch, the running statistics stay as they are. ``running``: by those, which
    stay too. ``updated``: as a module in its present mode does.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    modes = [norm.training for norm in norms]
    for norm in norms:
        norm.track_running_stats = statistics != "batch"
        norm.training = norm.training and statistics != "running"
    try:
        yield
    finally:
        for norm, mode in zip(norms, modes, strict=True):
            norm.track_running_stats = True
            norm.training = mode
