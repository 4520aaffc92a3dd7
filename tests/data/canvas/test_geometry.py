"""Where films and lesion masks land on the canvas."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from pcamx.data.canvas.lesion_mask import lesion_canvas
from pcamx.data.canvas.placement import Fit, fit
from pcamx.data.store import Film
from pcamx.errors import PcamxError


def film(width: int, height: int) -> Film:
    return Film("film.png", 1, "p", "p/s", "", "train", width, height, 255, "mask.png")


def lesion(folder: Path, mask: npt.NDArray[np.bool_], canvas: int) -> torch.Tensor:
    path = folder / "mask.png"
    Image.fromarray((mask * 255).astype(np.uint8)).save(path)
    return lesion_canvas(path, film(mask.shape[1], mask.shape[0]), canvas)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 320), Fit(320, 160, 0, 80)),
        ((320, 640), Fit(160, 320, 80, 0)),
        ((64, 64), Fit(320, 320, 0, 0)),
        ((512, 411), Fit(320, 257, 0, 31)),  # 256.875 rounds up; the odd row goes below
        ((1000, 1), Fit(320, 1, 0, 159)),
        ((640, 321), Fit(320, 161, 0, 79)),  # 160.5: halves go up
    ],
)
def test_fit(size: tuple[int, int], expected: Fit) -> None:
    assert fit(*size, 320) == expected


def test_mask_is_placed_as_the_film(tmp_path: Path) -> None:
    mask = np.zeros((40, 80), bool)
    mask[0:20, 60:80] = True
    canvas = lesion(tmp_path, mask, 64)
    expected = torch.zeros(1, 64, 64, dtype=torch.uint8)
    expected[0, 16:32, 48:64] = 1  # scale 0.8, 16 rows of padding above
    assert canvas.dtype == torch.uint8
    assert torch.equal(canvas, expected)


def test_half_covered_is_lesion_and_less_is_not(tmp_path: Path) -> None:
    mask = np.zeros((128, 128), bool)
    mask[0:8, 0:8] = True  # canvas pixels 4 wide: rows and columns 0, 1 full
    mask[0:8, 8:10] = True  # column 2 half
    mask[8:9, 0:8] = True  # row 2 a quarter
    canvas = lesion(tmp_path, mask, 32)
    assert canvas[0, :4, :4].tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [0] * 4, [0] * 4]
    assert canvas.sum() == 6


def test_a_thin_lesion_survives_beside_a_thick_one(tmp_path: Path) -> None:
    mask = np.zeros((320, 320), bool)
    mask[0:100, 0:100] = True
    mask[200, 150:250] = True  # a line one pixel thick, a tenth of a canvas row
    mask[199, 150:200] = True  # its left half two thick
    mask[300, 20] = True  # and a dot of a hundredth of a canvas pixel
    canvas = lesion(tmp_path, mask, 32)
    assert canvas[0, :10, :10].all()
    assert canvas[0, 19:21, 15:25].any(0).all()  # the line, from end to end
    assert canvas[0, 30, 2] == 1
    assert canvas.sum() == 100 + canvas[0, 19:21, 15:25].sum() + 1


def test_an_empty_mask_stays_empty(tmp_path: Path) -> None:
    assert lesion(tmp_path, np.zeros((50, 70), bool), 32).sum() == 0


def test_wrong_masks_are_named(tmp_path: Path) -> None:
    with pytest.raises(PcamxError, match=r"absent\.png.*prepare"):
        lesion_canvas(tmp_path / "absent.png", film(9, 9), 32)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(PcamxError, match=r"text\.png.*prepare"):
        lesion_canvas(tmp_path / "text.png", film(9, 9), 32)
    Image.new("L", (8, 9)).save(tmp_path / "small.png")
    with pytest.raises(PcamxError, match=r"small\.png: the mask has 8 x 9 pixels.*9 x 9"):
        lesion_canvas(tmp_path / "small.png", film(9, 9), 32)
