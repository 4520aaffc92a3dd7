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
from pcamx.model.gradient_maps import GradientMaps, gradcam, layercam, to_image
from pcamx.model.head import Head
from pcamx.types import ABNORMAL, NORMAL


class Maps(NamedTuple):
    """Unnormalised maps of the abnormal class at the image's size, float32."""

    cam_BHW: Tensor
    positive_cam_BHW: Tensor
    decoder_BHW: Tensor | None


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

    def class_map(self, features_BKhw: Tensor) -> Tensor:
        """d = sum_k (w_1k - w_0k) h_k of the last features, [B, h, w], float32, differentiable.

        Each cell passes the head as a film of one cell, less what no feature gives, the biases:
        under ZeRO-3 the weight is whole only there. Autocast does not reach inside.
        """
        B, K, h, w = features_BKhw.shape
        cells_NK = features_BKhw.float().permute(0, 2, 3, 1).reshape(-1, K)
        cells_NK = torch.cat([cells_NK, cells_NK.new_zeros(1, K)])
        with torch.autocast(features_BKhw.device.type, enabled=False):
            logits_NC, _ = self.head(cells_NK[:, :, None, None])
        odds_N = logits_NC[:, ABNORMAL] - logits_NC[:, NORMAL]
        map_Bhw: Tensor = (odds_N[:-1] - odds_N[-1]).reshape(B, h, w)
        return map_Bhw

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
        maps = GradientMaps(*(to_image(f(*pair), side, centred) for f in (gradcam, layercam)))
        return *self._explain([*shallow, deepest_BKhw.detach()], image_B1HW), maps

    def _explain(self, features: list[Tensor], image_B1HW: Tensor) -> tuple[Tensor, Maps]:
        size = (image_B1HW.shape[-2], image_B1HW.shape[-1])
        cam, positive_cam = (self._cam(features[-1], size, positive=p) for p in (False, True))
        lesion = None if self.decoder is None else self.lesion(features, size)
        return self.head(features[-1])[0], Maps(cam, positive_cam, lesion)

    def lesion(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """The decoder's probability of a lesion, [B, H, W] of ``size``; from stage 3 on."""
        assert self.decoder is not None
        logit_B1HW: Tensor = self.decoder(features, size)
        return torch.sigmoid(logit_B1HW)[:, 0]

    @torch.no_grad()
    def best_map(self, image_B1HW: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and of `explain`'s maps one [B, H, W]: the decoder's if there is one, else the
        positive CAM. The others are not made."""
        features = self.encoder(image_B1HW)
        size = (image_B1HW.shape[-2], image_B1HW.shape[-1])
        if self.decoder is not None:
            map_BHW = self.lesion(features, size)
        else:
            map_BHW = self._cam(features[-1], size, positive=True)
        return self.head(features[-1])[0], map_BHW

    def _cam(self, features_BKhw: Tensor, size: tuple[int, int], *, positive: bool) -> Tensor:
        """Of the abnormal class, [B, H, W] of ``size``."""
        weight_CK, impl = self.head.weight, self.head.attention.impl
        abnormal_B = torch.full((len(features_BKhw),), ABNORMAL, device=features_BKhw.device)
        map_Bhw = ops.class_activation(
            features_BKhw, weight_CK, abnormal_B, positive=positive, impl=impl
        )
        return F.interpolate(map_Bhw[:, None], size=size, mode="bilinear", align_corners=False)[
            :, 0
        ]


class Segmenter(nn.Module):
    """The same encoder and decoder without a classifier: the baseline of stage 3."""

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        self.encoder = Encoder(config.model.layout)
        self.decoder = Decoder()

    def forward(self, image_B1HW: Tensor) -> Tensor:
        """Logit of a lesion [B, 1, H, W], float32."""
        size = (image_B1HW.shape[-2], image_B1HW.shape[-1])
        logit_B1HW: Tensor = self.decoder(self.encoder(image_B1HW), size)
        return logit_B1HW


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
