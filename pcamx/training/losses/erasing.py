"""Films with their lesion erased, and with the same patch erased elsewhere.

What is drawn is a function of the mark on the canvas alone, which augmentation changes from epoch
to epoch: a resumed run erases the same.

Shapes: B films, H W the canvas.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def erased(image_B1HW: Tensor, lesion_B1HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Erase each film's lesion, and the same patch elsewhere; both filled with the blurred film.

    The patch is the lesion grown by 1/32 of the canvas (4 px of 128), the other one the same,
    rolled to a place where the two do not overlap. Returns both films, float [B, 1, H, W], and
    whether there is such a place, bool [B]; where there is none the second film is without worth.
    """
    patch_B1HW = grown(lesion_B1HW)
    dy_B, dx_B, free_B = _elsewhere(patch_B1HW)
    blurred_B1HW = blurred(image_B1HW)
    films = (
        torch.where(patch > 0, blurred_B1HW, image_B1HW)
        for patch in (patch_B1HW, _rolled(patch_B1HW, dy_B, dx_B))
    )
    return *films, free_B  # type: ignore[return-value]


def grown(lesion_B1HW: Tensor) -> Tensor:
    """Return the patch that is erased with a lesion: the lesion grown by 1/32 of the canvas."""
    by = lesion_B1HW.shape[-1] // 32
    return F.max_pool2d(lesion_B1HW, 2 * by + 1, stride=1, padding=by)


def blurred(image_B1HW: Tensor) -> Tensor:
    """Return the films without what is small: a box of 15/128 of the canvas each way, twice."""
    return _box_blurred(_box_blurred(image_B1HW))


def _box_blurred(image_B1HW: Tensor) -> Tensor:
    """The mean over 15/128 of the canvas each way, of the pixels that lie on it."""
    half = max(1, image_B1HW.shape[-1] * 15 // 256)
    for kernel, padding in (((2 * half + 1, 1), (half, 0)), ((1, 2 * half + 1), (0, half))):
        image_B1HW = F.avg_pool2d(
            image_B1HW, kernel, stride=1, padding=padding, count_include_pad=False
        )
    return image_B1HW


def _elsewhere(patch_B1HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Down and right shift, int64 [B], of each patch to a place clear of it; and if there is one.

    Every such place is as likely as another.
    """
    B, _, H, W = patch_B1HW.shape
    # How many pixels a patch shares with itself at each shift: its circular autocorrelation.
    power_BHw = torch.fft.rfft2(patch_B1HW[:, 0].double()).abs().square()
    shared_BHW = torch.fft.irfft2(power_BHw, s=(H, W))
    free_BN = (shared_BHW < 0.5).flatten(1)
    count_B = free_BN.sum(1)
    chosen_B = _hash(patch_B1HW) % count_B.clamp(min=1)
    rank_BN = free_BN.cumsum(1)
    place_B = torch.searchsorted(rank_BN, chosen_B[:, None] + 1)[:, 0].clamp(max=H * W - 1)
    return place_B // W, place_B % W, count_B > 0


def _hash(patch_B1HW: Tensor) -> Tensor:
    """A number of 31 bits from each patch's pixels, exact on any device: int64 [B]."""
    pixels_BN = (patch_B1HW > 0).flatten(1).long()
    place_N = torch.arange(1, pixels_BN.shape[1] + 1, device=patch_B1HW.device)
    bits_N = _mixed(place_N)
    return _mixed((pixels_BN * bits_N).sum(1) & _MASK)


_MASK = 2**31 - 1


def _mixed(number: Tensor) -> Tensor:
    """Spread the bits of numbers below 2^31 (multiply and shift, as hash finalisers do)."""
    for factor in (0x45D9F3B, 0x45D9F3B):
        number = ((number ^ (number >> 16)) * factor) & _MASK
    return number ^ (number >> 16)


def _rolled(patch_B1HW: Tensor, dy_B: Tensor, dx_B: Tensor) -> Tensor:
    """Each patch moved down and right by its own shift, round the edges: `torch.roll` by film."""
    H, W = patch_B1HW.shape[-2:]
    y_BH = (torch.arange(H, device=dy_B.device) - dy_B[:, None]) % H
    x_BW = (torch.arange(W, device=dx_B.device) - dx_B[:, None]) % W
    films_B = torch.arange(len(dy_B), device=dy_B.device)
    return patch_B1HW[films_B[:, None, None], 0, y_BH[:, :, None], x_BW[:, None, :]][:, None]
