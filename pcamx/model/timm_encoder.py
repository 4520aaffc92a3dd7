"""A timm backbone in the place of the paper's 22 convolutions, ending as they do: 128 filters.

Shapes: B batch, K channels, h w a map, H W the image.
"""

from math import isfinite
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcamx.model.encoder import FILTERS
from pcamx.model.receptive_field import PROBE, TAPS, centres, looked_at
from pcamx.model.timm_backbone import make_backbone, modules_before


class TimmEncoder(nn.Module):
    """Image [B, 1, H, W] to three feature maps at strides 4, 8 and 16, the last of 128 filters.

    The last is relu(norm(a + b)): a is a 1x1 convolution of the backbone's map of stride 16, b one
    of its map of stride 32, where it has one, interpolated to stride 16 (a top-down sum, Lin et
    al. 2017). So its cells stay as fine as the paper's, and non-negative. Where a cell of a map
    lies depends on the backbone's padding (`centres`) and on what its kernels have learned
    (`look`): the image is moved by whole pixels such that the last map's cells lie in the middle
    of the 16 pixels that upsampling paints them over, the finer maps back by whole cells. The
    pixels that are moved out at two edges are not seen: 8 at most by the padding.
    """

    lean: Tensor
    """Pixels by which the cells of each tap look below and to the right of `centres`, float32."""

    stride = 16
    shallow_centred = True

    def __init__(self, name: str, frozen: int = 0) -> None:
        """Make the backbone ``name``, such as timm:resnet18, with fresh weights.

        ``frozen`` names the stride up to whose map the backbone keeps weights and statistics.
        Raises PcamxError where timm is missing, has no such backbone, or it gives no maps of
        strides 4, 8 and 16.
        """
        super().__init__()
        self.backbone = make_backbone(name)
        strides = self.backbone.feature_info.reduction()
        widths = dict(zip(strides, self.backbone.feature_info.channels(), strict=True))
        self.channels = (widths[4], widths[8], FILTERS)
        self.lateral = nn.Conv2d(widths[16], FILTERS, 1, bias=False)
        self.top = nn.Conv2d(widths[32], FILTERS, 1, bias=False) if 32 in widths else None
        self.norm = nn.BatchNorm2d(FILTERS)
        for layer in (self.lateral, self.top):
            if layer is not None:
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        self._strides = strides
        self._taps = [stride for stride in TAPS if stride in widths]
        # At stride 32 TensorFlow's padding depends on whether it halves an even number of cells.
        self._even, self._odd = (centres(name, PROBE + 16 * odd) for odd in (0, 1))
        self.register_buffer("lean", torch.zeros(len(self._taps)))
        self._place()
        self._frozen = modules_before(self.backbone, frozen) if frozen else []
        for module in self._frozen:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> "TimmEncoder":
        """Set training mode but for what is frozen: its batch norm keeps its statistics."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def look(self) -> None:
        """Measure where the cells look with the backbone's present weights; lay the maps there.

        Pretrained kernels need not see their middle: TensorFlow's padding, which fills up behind
        alone, is made up for. To halves of a pixel (`looked_at`). Later weights keep it: they learn
        where their map is painted.
        """
        was = self.training
        self.eval()
        found = looked_at(self.backbone)
        self.train(was)
        for k, (stride, centre) in enumerate(zip(self._taps, self._even, strict=True)):
            if isfinite(
                found[stride]
            ):  # else nothing comes through, and it lies as well as anywhere
                self.lean[k] = round(2 * (found[stride] - centre)) / 2
        self._place()

    def _place(self) -> None:
        """Lay the maps by `centres` and ``lean``."""
        lean = dict(zip(self._taps, self.lean.tolist(), strict=True))
        self._centres = {s: c + lean[s] for s, c in zip(self._taps, self._even, strict=True)}
        last = self._taps[-1]
        self._coarse = [found[-1] + lean[last] for found in (self._even, self._odd)]
        self._moved = round(self._centres[16] - _middle(16))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *given: Any, **named: Any
    ) -> None:
        # Weights of before were trained with the maps laid by the padding alone.
        state_dict.setdefault(f"{prefix}lean", torch.zeros_like(self.lean))
        super()._load_from_state_dict(state_dict, prefix, *given, **named)
        self._place()

    def forward(self, image_B1HW: Tensor) -> list[Tensor]:
        """Return the maps at strides 4, 8 and 16."""
        return self._features(self._maps(image_B1HW))

    def tracked(self, image_B1HW: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return `forward`'s maps, and the one at stride 8 to which the last has a graph."""
        with torch.enable_grad():
            maps = self._maps(image_B1HW.detach().requires_grad_())
            return self._features(maps), maps[8]

    def placed(self, source_BKhw: Tensor) -> Tensor:
        """Return what belongs to `tracked`'s source, such as its gradient, as its map lies."""
        return self._put_back(source_BKhw, 8)

    def _maps(self, image_B1HW: Tensor) -> dict[int, Tensor]:
        """The backbone's maps, by stride."""
        B, _, H, W = image_B1HW.shape
        # As in the paper's encoder: a view whose strides say channels_last.
        image_B1HW = image_B1HW.reshape(B, H, W, 1).permute(0, 3, 1, 2)
        maps: list[Tensor] = self.backbone(_shifted(image_B1HW, self._moved))
        return dict(zip(self._strides, maps, strict=True))

    def _features(self, maps: dict[int, Tensor]) -> list[Tensor]:
        return [self._put_back(maps[4], 4), self._put_back(maps[8], 8), self._last(maps)]

    def _last(self, maps: dict[int, Tensor]) -> Tensor:
        x_BKhw: Tensor = self.lateral(maps[16])
        if self.top is not None:
            x_BKhw = x_BKhw + self._finer(self.top(maps[32]), x_BKhw.shape[-2:])
        features_BKhw: Tensor = F.relu(self.norm(x_BKhw))
        return features_BKhw

    def _finer(self, coarse_BKhw: Tensor, size: torch.Size) -> Tensor:
        """Interpolate a map of stride 32 linearly at the centres of the cells of stride 16.

        As two matrix products, whose gradient is the same in each run, unlike grid_sample's.
        """
        rows, columns = (
            self._weights(coarse_BKhw, n, coarse_BKhw.shape[axis])
            for n, axis in zip(size, (-2, -1), strict=True)
        )
        fine_BKhw: Tensor = torch.matmul(torch.matmul(rows, coarse_BKhw), columns.mT)
        return fine_BKhw

    def _weights(self, like: Tensor, fine: int, coarse: int) -> Tensor:
        """Weights [fine, coarse] of linear interpolation, held at the ends."""
        cell_f = torch.arange(fine, device=like.device, dtype=torch.float32)
        at_f = (16 * cell_f + self._centres[16] - self._coarse[fine % 2]) / 32
        at_f = at_f.clamp(0, coarse - 1)
        apart_fc = at_f[:, None] - torch.arange(coarse, device=like.device)
        weights_fc: Tensor = (1 - apart_fc.abs()).clamp(min=0).to(like.dtype)
        return weights_fc

    def _put_back(self, map_BKhw: Tensor, stride: int) -> Tensor:
        """Move a finer map by whole cells, to within half a cell of where it belongs."""
        apart = self._centres[stride] - self._moved - _middle(stride)
        return _shifted(map_BKhw, round(apart / stride))


def _middle(stride: int) -> float:
    """The middle of the pixels 0 to ``stride`` - 1."""
    return (stride - 1) / 2


def _shifted(x_BKhw: Tensor, by: int) -> Tensor:
    """x[i + ...] moved such that what lay at i lies at i + ``by``; zeros come in."""
    return F.pad(x_BKhw, (by, -by, by, -by)) if by else x_BKhw
