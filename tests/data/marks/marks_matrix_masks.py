"""Mask images in the matrix of marks."""

from pathlib import Path
from typing import Any

import numpy as np
from marks_truth import AP, PAINTED, Case, H, W, Write, box
from numpy.typing import NDArray
from PIL import Image


def image(pixels: Any, suffix: str = ".png", name: str = "ap", **save: Any) -> Write:
    def write(folder: Path) -> Path:
        (folder / "masks").mkdir(exist_ok=True)
        drawn = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        drawn.save(folder / "masks" / f"{name}{suffix}", **save)
        return folder / "masks"

    return write


def layer(colour: int) -> NDArray[np.uint8]:
    """One colour everywhere, opaque on the lesion alone."""
    pixels = np.full((H, W, 4), colour, np.uint8)
    pixels[..., 3] = PAINTED * 255
    return pixels


def palette(colours: list[int], index: Any = None) -> Image.Image:
    drawn = Image.fromarray((PAINTED if index is None else index).astype(np.uint8))
    drawn.putpalette(colours)
    return drawn


def turned(orientation: int) -> Write:
    """The upright mask as a camera would store it: the orientation undone."""
    upright = Image.fromarray(PAINTED.astype(np.uint8) * 255)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[274] = orientation
    return image(upright.transpose(undo[orientation]), exif=exif)


_one = PAINTED.astype(np.uint8)
_two = _one + 2 * box(30, 20, 35, 25).astype(np.uint8)
_rgb = np.zeros((H, W, 3), np.uint8)
_rgb[PAINTED] = (200, 0, 0)
_key = np.where(PAINTED, 7, 255).astype(np.uint8)
_half = layer(255)
_half[..., 3] = np.where(box(3, 3, 25, 20), 255, 0)  # an opaque patch with the lesion on black
_half[..., :3] *= PAINTED[..., None]
_float = np.where(PAINTED, 1.5, np.nan).astype(np.float32)
_white_red = [255, 255, 255, 255, 0, 0]
_exif6 = Image.Exif()
_exif6[274] = 6
MASKS = [
    Case("0 and 1", image(_one), {AP: PAINTED}),
    Case("16 bits, 0 and 1", image(PAINTED.astype(np.uint16)), {AP: PAINTED}),
    Case("16 bits, TIFF", image(PAINTED.astype(np.uint16), ".tif"), {AP: PAINTED}),
    Case("1 bit", image(Image.fromarray(_one * 255).convert("1")), {AP: PAINTED}),
    Case("float with NaN", image(_float, ".tif"), {AP: PAINTED}),
    Case("colour", image(_rgb), {AP: PAINTED}),
    Case("white layer", image(layer(255)), {AP: PAINTED}),
    Case("black layer", image(layer(0)), {AP: PAINTED}),
    Case("grey layer", image(layer(90)[..., 2:]), {AP: PAINTED}),
    Case("opaque patch on a layer", image(_half), {AP: PAINTED}),
    Case(
        "transparent palette",
        image(palette([255] * 3 + [255, 0, 0]), transparency=0),
        {AP: PAINTED},
    ),
    Case("transparent grey", image(_key, transparency=255), {AP: PAINTED}),
    Case("palette", image(palette([0, 0, 0, 1, 1, 1])), {AP: PAINTED}),
    Case(
        "palette of black alone",
        lambda folder: (
            image(palette([0] * 6, PAINTED.T), name="lat")(folder) and image(_one)(folder)
        ),
        {AP: PAINTED},
        says=("damaged: lat.png: its palette makes all of it black; save it as 8-bit grey",),
    ),
    Case("numbered classes", image(_two), {AP: PAINTED}, labels=("1",)),
    Case(
        "coloured classes",
        image(palette([0, 0, 0, 255, 0, 0, 0, 255, 0], _two)),
        {AP: PAINTED},
        labels=("#FF0000",),
    ),
    Case(
        "shades",
        image(np.where(box(6, 5, 8, 6), 128, _one * 255).astype(np.uint8)),
        {AP: PAINTED},
        says=("greys: ap.png (128, 255)",),
    ),
    Case(
        "no background",
        lambda folder: (
            image(np.full((W, H), 255, np.uint8), name="lat")(folder) and image(_one)(folder)
        ),
        {AP: PAINTED},
        says=("damaged: lat.png: no pixel is black or transparent; paint the background black",),
    ),
    *(Case(f"EXIF {k}", turned(k), {AP: PAINTED}) for k in range(2, 9)),
    Case(
        "TIFF, turned",
        image(Image.fromarray(_one).transpose(Image.Transpose.ROTATE_90), ".tif", exif=_exif6),
        {AP: PAINTED},
    ),
]
