"""An image with a map on top. Shapes: H W the image, h w the map, 3 red green blue."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

OPACITY = 0.65
"""Of the map's highest value: what lies below stays visible."""
_DEEP = ("I", "I;16", "I;16B", "I;16L", "F")
"""Pillow's modes of more than 8 bits, which it would clip at 255."""
_INFERNO = (
    "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754 d24644 e45a31 f1731d f98e09 "
    "fcac11 f9cb35 f2ea69 fcffa4"
)
"""17 colours of matplotlib's map of that name, which need not be installed."""


def overlay(image: Any, cam: Tensor, *, opacity: float = OPACITY) -> Image.Image:
    """Blend the map [h, w] of one image over it, bilinearly enlarged, as a picture to show or save.

    The map is scaled to [0, 1] by its own minimum and maximum; its opacity is ``opacity`` times
    its value, so that a pixel of value 0 keeps its colour, and a flat map leaves the whole image
    as it is. ``image``: a Pillow image, an array [H, W] or [H, W, 3], or a tensor [H, W],
    [1, H, W] or [3, H, W]; what has more than 8 bits is scaled to its own range. Raises ValueError
    for anything else, for NaN or infinite values, and for an opacity outside [0, 1].
    """
    if not isinstance(cam, Tensor) or cam.ndim != 2 or cam.numel() == 0:
        raise ValueError("overlay takes the map of one image, [h, w]; maps[0], say")
    if not bool(cam.isfinite().all()):
        raise ValueError("overlay: the map holds NaN or infinite values; mend what made it")
    if not 0 <= opacity <= 1:
        raise ValueError(f"overlay: opacity {opacity} is outside 0 ... 1")
    image_HW3 = _colours(image)
    height, width, _ = image_HW3.shape
    values_hw = cam.detach().double().cpu()
    low, high = values_hw.min(), values_hw.max()
    scaled_hw = (values_hw - low) / (high - low) if high > low else torch.zeros_like(values_hw)
    value_HW = F.interpolate(scaled_hw[None, None], size=(height, width), mode="bilinear")[0, 0]
    alpha_HW1 = opacity * value_HW.numpy()[..., None]
    colour_HW3 = _heat(value_HW.numpy())
    blend_HW3 = (1 - alpha_HW1) * image_HW3 + alpha_HW1 * colour_HW3
    return Image.fromarray(np.rint(blend_HW3).astype(np.uint8))


def _heat(value_HW: NDArray[np.float64]) -> NDArray[np.float64]:
    colours = [[int(text[i : i + 2], 16) for i in (0, 2, 4)] for text in _INFERNO.split()]
    at = np.linspace(0, 1, len(colours))
    channels = np.array(colours, dtype=float).T
    return np.stack([np.interp(value_HW, at, channel) for channel in channels], axis=-1)


def _colours(image: Any) -> NDArray[np.float64]:
    """The image as [H, W, 3], 0 to 255."""
    if isinstance(image, Image.Image):
        if image.mode not in _DEEP:
            return np.asarray(image.convert("RGB"), dtype=np.float64)
        image = np.asarray(image)
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        if image.ndim == 3 and image.shape[0] in (1, 3):
            image = image.permute(1, 2, 0)
        image = image.numpy() if image.dtype == torch.uint8 else _stretched(image.double().numpy())
    if isinstance(image, np.ndarray):
        if image.ndim == 2:
            image = image[..., None]
        if image.ndim == 3 and image.shape[2] in (1, 3) and image.size:
            shown = image if image.dtype == np.uint8 else _stretched(image.astype(np.float64))
            return np.broadcast_to(shown, (*shown.shape[:2], 3)).astype(np.float64)
    raise ValueError("overlay takes one image: Pillow's, [H, W], [H, W, 3], [1 or 3, H, W]")


def _stretched(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """From the least to the greatest value as 0 to 255, all 0 where they are one."""
    if not np.isfinite(values).all():
        raise ValueError("overlay: the image holds NaN or infinite values; mend what made it")
    low, high = values.min(), values.max()
    return np.asarray(255 * (values - low) / (high - low if high > low else 1))
