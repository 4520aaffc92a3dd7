"""The whole network: encoder, head and, from stage 3 on, the decoder.

Shapes: B batch, C classes, h w the map, H W the image.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from pcamx.catalogue import Trainable
from pcamx.config import Attention, Model
from pcamx.model.batch_norm import BatchNorm
from pcamx.model.decoder import Decoder
from pcamx.model.encoder import Encoder
from pcamx.model.head import Head
from pcamx.model.timm_encoder import TimmEncoder
from pcamx.ops import Impl
from pcamx.types import ABNORMAL, NORMAL


class Architecture(Protocol):
    """What of a run's config makes its network."""

    @property
    def model(self) -> Model: ...

    @property
    def attention(self) -> Attention: ...

    @property
    def impl(self) -> Impl: ...


class Network(nn.Module):
    """Classifier with class activation maps; ``decoder`` adds the lesion decoder of stage 3.

    With ``mirrored`` it answers in evaluation mode by the mean over a film and its mirror image,
    its logits here, its maps in `pcamx.model.maps.explain`.
    """

    def __init__(self, config: Architecture, *, decoder: bool) -> None:
        super().__init__()
        self.encoder = build_encoder(config.model)
        self.head = Head(config.attention, config.impl, config.model.pooling)
        self.decoder = Decoder(self.encoder.channels) if decoder else None
        self.mirrored = config.model.mirrored

    def forward(self, image_B1HW: Tensor) -> Tensor:
        """Return the logits [B, C] of the full image."""
        logits_BC: Tensor = self.head(self.encoder(image_B1HW)[-1])[0]
        if self.mirrored and not self.training:
            other_BC: Tensor = self.head(self.encoder(image_B1HW.flip(-1))[-1])[0]
            return (logits_BC + other_BC) / 2
        return logits_BC

    def class_map(self, features_BKhw: Tensor) -> Tensor:
        """Return d = sum_k (w_1k - w_0k) h_k of the last features, [B, h, w], float32,
        differentiable.

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


class Segmenter(nn.Module):
    """The same encoder and decoder without a classifier: the baseline of stage 3.

    ``mirrored`` is about its map in `pcamx.model.maps.explain`, as the `Network`'s.
    """

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        self.encoder = build_encoder(config.model)
        self.decoder = Decoder(self.encoder.channels)
        self.mirrored = config.model.mirrored

    def forward(self, image_B1HW: Tensor) -> Tensor:
        """Return the logit of a lesion [B, 1, H, W], float32."""
        size = (image_B1HW.shape[-2], image_B1HW.shape[-1])
        logit_B1HW: Tensor = self.decoder(self.encoder(image_B1HW), size)
        return logit_B1HW


def build_encoder(model: Model) -> Encoder | TimmEncoder:
    """Return the encoder that the config names, with fresh weights."""
    if model.timm:
        return TimmEncoder(model.encoder, model.frozen)
    layout: Any = model.encoder  # checked by the config
    return Encoder(layout)


def build_network(entry: Trainable, config: Architecture) -> Network | Segmenter:
    """Return the network that ``entry`` trains, with fresh weights."""
    if not entry.classifies:
        return Segmenter(config)
    return Network(config, decoder=entry.decoder)


@contextmanager
def batch_norm_by(
    module: nn.Module, statistics: Literal["batch", "running", "updated"], *, counted: bool = True
) -> Iterator[None]:
    """Choose how batch norm inside normalises; masked images have other statistics than whole ones.

    ``batch``: by the batch, the running statistics stay as they are. ``running``: by those, which
    stay too. ``updated``: as a module in its present mode does. Statistics over the ranks leave out
    this rank's images where they are not ``counted``.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    modes = [norm.training for norm in norms]
    for norm in norms:
        norm.track_running_stats = statistics != "batch"
        norm.training = norm.training and statistics != "running"
        if isinstance(norm, BatchNorm):
            norm.counted = counted
    try:
        yield
    finally:
        for norm, mode in zip(norms, modes, strict=True):
            norm.track_running_stats = True
            norm.training = mode
            if isinstance(norm, BatchNorm):
                norm.counted = True
