"""A timm backbone in the place of the paper's 22 convolutions, ending as they do: 128 filters.

Shapes: B batch, K channels, h w a map, H W the image.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcamx.config import TIMM
from pcamx.errors import PcamxError
from pcamx.model.encoder import FILTERS

TAPS = (4, 8, 16, 32)
"""Strides of the backbone's maps that are used; the last is added to the one before."""
_PROBE = 128
"""Side of the image on which `centres` looks, pixels."""
_NOISE = (8, 1, 384, 384)
"""Images on which `TimmEncoder.look` measures: their cells see little of the edges."""


class TimmEncoder(nn.Module):
    """Image [B, 1, H, W] to three feature maps at strides 4, 8 and 16, the last of 128 filters.

    The last is relu(norm(a + b)): a is a 1x1 convolution of the backbone's map of stride 16, b one
    of its map of stride 32, where it has one, interpolated to stride 16 (a top-down sum, Lin et
    al. 2017). So its cells stay as fine as the paper's, and non-negative. Where a cell of a map
    lies depends on the backbone's padding (`centres`) and on what its kernels have learned
    (`look`): the image is moved by whole pixels such that the last map's cells lie in the middle
    of the 16 pixels that upsampling paints them over, the finer maps back by whole cells. The
    pixels that are moved out, mostly 8 at most, at two edges, are not seen.
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
        self.backbone = _backbone(name)
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
        self._even, self._odd = (centres(name, _PROBE + 16 * odd) for odd in (0, 1))
        self.register_buffer("lean", torch.zeros(len(self._taps)))
        self._place()
        self._frozen = _modules_before(self.backbone, frozen) if frozen else []
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
        alone, is made up for. The place is the mean of the squared gradient of a cell to white
        noise, its effective receptive field (Luo et al. 2016), to halves of a pixel, for rows and
        columns together. Later weights keep it: they learn where their map is painted.
        """
        was = self.training
        self.eval()
        image = torch.randn(_NOISE, generator=torch.Generator().manual_seed(0))
        with torch.enable_grad():
            maps = dict(zip(self._strides, self.backbone(image.requires_grad_()), strict=True))
        at_W = torch.arange(image.shape[-1], dtype=torch.float64)
        for k, stride in enumerate(self._taps):
            cell = maps[stride].shape[-1] // 2
            seen = maps[stride][:, :, cell, cell].sum()
            (grad_B1HW,) = torch.autograd.grad(seen, image, retain_graph=True)
            seen_HW = grad_B1HW.double().square().sum((0, 1))
            if not seen_HW.sum() > 0:
                continue  # nothing comes through, so it lies as well as anywhere
            middle = ((seen_HW.sum(0) + seen_HW.sum(1)) * at_W).sum() / (2 * seen_HW.sum())
            lean = float(middle) - stride * cell - self._even[k]
            self.lean[k] = round(2 * lean) / 2
        self.train(was)
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


def input_scale(name: str) -> tuple[float, float]:
    """Return mean and standard deviation, in grey levels of 0..255, that the weights expect."""
    known = name.removeprefix(TIMM)
    try:
        cfg = _timm().models.get_pretrained_cfg(known)
    except RuntimeError as error:  # a tag of other weights, such as resnet18.a1_in1k's
        raise PcamxError(f"model.encoder: timm knows no {known}: {_line(error)}") from None
    if cfg is None:
        raise PcamxError(f"model.encoder: timm knows no {known}")
    return 255 * sum(cfg.mean) / len(cfg.mean), 255 * sum(cfg.std) / len(cfg.std)


def _backbone(name: str) -> Any:
    timm = _timm()
    known = name.removeprefix(TIMM)
    try:
        backbone = timm.create_model(known, features_only=True, in_chans=1, pretrained=False)
        found = list(backbone.feature_info.reduction())
    except Exception as error:
        # Of a name that leads to a folder or the hub timm raises whatever reading it does.
        raise PcamxError(f"model.encoder: timm cannot make {known}: {_line(error)}") from None
    if not {4, 8, 16} <= set(found):
        raise PcamxError(
            f"model.encoder: {known} gives maps at strides {found}; one with 4, 8 and 16 is "
            "needed, such as timm:resnet18"
        )
    return backbone


def _timm() -> Any:
    try:
        import timm
    except ImportError:
        raise PcamxError(
            "model.encoder: a timm backbone needs timm; pip install 'pcamx[encoders]'"
        ) from None
    except RuntimeError as error:
        # A torchvision of another torch: its operators are not there.
        raise PcamxError(
            f"model.encoder: timm cannot be imported ({_line(error)}); install the "
            f"torchvision that belongs to torch {torch.__version__}"
        ) from None
    return timm


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _modules_before(backbone: Any, stride: int) -> list[nn.Module]:
    """The backbone's innermost modules that its map of ``stride`` depends on, by the gradient."""
    image = torch.zeros(1, 1, 64, 64)
    backbone.eval()
    maps = backbone(image)
    inputs = [p for p in backbone.parameters() if p.requires_grad]
    place = backbone.feature_info.reduction().index(stride)
    grads = torch.autograd.grad(maps[place].sum(), inputs, allow_unused=True)
    reached = {id(p) for p, grad in zip(inputs, grads, strict=True) if grad is not None}
    backbone.train()
    return [
        module
        for module in backbone.modules()
        if any(id(p) in reached for p in module.parameters(recurse=False))
    ]


@cache
def centres(name: str, side: int = _PROBE) -> tuple[float, ...]:
    """Return for each tap the pixel c at whose centre its cell 0 would look: cell i at s i + c.

    On an image of ``side`` pixels, a multiple of 16.
    Found by the gradient: where each convolution passes on the middle of what it sees, pools take
    the mean, norms are left out and the image is all but black, so that what is multiplied by the
    whole image's mean is no matter, the mean place of a cell's gradient is the centre of all that
    it would see, to halves of a pixel. Raises PcamxError where the backbone takes no such image, or
    its maps are of other sizes than their strides say, or nothing comes through.
    """
    known = name.removeprefix(TIMM)
    backbone = _backbone(name).eval().double()
    image = torch.ones(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    for module in backbone.modules():
        _pass_the_middle(module)
    found = []
    try:
        maps = backbone(image * 1e-12)
    except (RuntimeError, AssertionError, ValueError) as error:
        # Of a fixed size, or made for sides of some multiple alone.
        raise PcamxError(
            f"model.encoder: {known} takes no image of {side} x {side} pixels ({_line(error)}); "
            "name one that takes every multiple of 16, such as timm:resnet18"
        ) from None
    info = backbone.feature_info
    for map_BKhw, stride, channels in zip(maps, info.reduction(), info.channels(), strict=True):
        if stride not in TAPS:
            continue
        # Half a cell of stride 32 may be left out, or filled up.
        cells = {side // stride, -(-side // stride)}
        if map_BKhw.shape[1] != channels or not cells.issuperset(map_BKhw.shape[2:]):
            raise PcamxError(
                f"model.encoder: {known} gives a map of shape {list(map_BKhw.shape[1:])} at stride "
                f"{stride} of {side} x {side} pixels, where {channels} channels of "
                f"{side // stride} x {side // stride} are needed; name another, such as "
                "timm:resnet18"
            )
        cell = map_BKhw.shape[-1] // 2
        seen = map_BKhw[0, :, cell, cell].sum()
        (grad_11HW,) = torch.autograd.grad(seen, image, retain_graph=True)
        weight_W = grad_11HW.abs().sum((0, 1, 2))
        if not weight_W.sum() > 0:
            raise PcamxError(
                f"model.encoder: where the cells of {known} lie cannot be found; name another, "
                "such as timm:resnet18"
            )
        centre = float((weight_W * torch.arange(side)).sum() / weight_W.sum())
        found.append(round(2 * (centre - stride * cell)) / 2)
    return tuple(found)


def _looks_everywhere(module: nn.Module) -> bool:
    """Whether it adds what the whole image's mean makes, or may: global context, squeeze-excite.

    By the names of timm's classes. The gradient through that mean pulls to the image's middle.
    """
    name = type(module).__name__
    return any(word in name for word in ("GlobalContext", "Squeeze"))


def _pass_the_middle(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        rows, columns = (slice((n - 1) // 2, n // 2 + 1) for n in module.kernel_size)
        with torch.no_grad():
            module.weight.zero_()[:, :, rows, columns] = 1 / module.weight.shape[1]
            if module.bias is not None:
                module.bias.zero_()
    elif isinstance(module, nn.MaxPool2d):
        mean = nn.AvgPool2d(module.kernel_size, module.stride, module.padding, module.ceil_mode)
        module.register_forward_hook(lambda _, given, __: mean(given[0]))
    elif _looks_everywhere(module) or (
        "Norm" in type(module).__name__
        and not any(isinstance(inner, nn.Conv2d) for inner in module.modules())
    ):
        module.register_forward_hook(lambda _, given, __: given[0])


def timm_state(name: str) -> dict[str, Tensor]:
    """Return the state dict of timm's own weights, of one grey channel; PcamxError if none."""
    timm = _timm()
    try:
        model = timm.create_model(name.removeprefix(TIMM), pretrained=True, in_chans=1)
    except Exception as error:
        # The hub's client raises whatever its transport does.
        raise PcamxError(
            f"model.weights: timm's own of {name} cannot be had ({type(error).__name__}); name a "
            "local file"
        ) from None
    state: dict[str, Tensor] = model.state_dict()
    return state
