"""Components at every level and the boxes around them: by hand, and by flooding each level.

Shapes: H W the image, M components, L levels, B films, T thresholds.
"""

import numpy as np
import published
import pytest
import torch
from numpy.typing import NDArray

from pcamx.metrics.boxes import box_hits, box_iou_curve, max_box_acc
from pcamx.metrics.components import components

STEPS = {True: published.EIGHT, False: published.FOUR}


def images() -> dict[str, NDArray[np.uint8]]:
    generator = np.random.default_rng(4)
    ramp = np.add.outer(np.arange(13), np.arange(9)).astype(np.uint8)
    hills = np.hypot(*np.meshgrid(np.arange(-6, 7) % 5, np.arange(-8, 9) % 6))
    return {
        "noise": generator.integers(0, 256, (12, 17)).astype(np.uint8),
        "few levels": generator.integers(0, 4, (15, 15)).astype(np.uint8),
        "two levels": generator.integers(0, 2, (16, 11)).astype(np.uint8) * 255,
        "ramp": ramp,
        "hills": (hills * 30).astype(np.uint8),
        "spiral": np.array([[9, 9, 9, 9], [0, 0, 0, 9], [9, 9, 0, 9], [9, 0, 0, 9], [9, 9, 9, 9]])
        .astype(np.uint8)
        .repeat(2, 0)
        .repeat(3, 1),
        "flat": np.full((5, 7), 255, np.uint8),
        "nothing": np.zeros((5, 7), np.uint8),
        "one row": generator.integers(0, 5, (1, 30)).astype(np.uint8),
        "one pixel": np.full((1, 1), 3, np.uint8),
    }


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("name", images())
def test_components_are_those_of_flooding_every_level(name: str, diagonal: bool) -> None:
    level_HW = images()[name]
    found = components(level_HW, diagonal=diagonal)
    assert not found.alive_ML[:, 0].any()
    for level in range(1, 256):
        expected = []
        for region in published.regions(level_HW >= level, STEPS[diagonal]):
            x, y, w, h = published.extent(region)
            expected.append((x, y, x + w - 1, y + h - 1, len(region)))
        alive = found.alive_ML[:, level]
        box = found.box_M4L[alive, :, level] * np.array([-1, -1, 1, 1])
        ours = np.column_stack([box, found.pixels_ML[alive, level]])
        assert sorted(map(tuple, ours.tolist())) == sorted(expected)


def test_boxes_by_hand() -> None:
    map_HW = torch.zeros(8, 10)
    map_HW[1:4, 2:5] = 0.6  # 3 x 3: the box is (2, 1, 5, 4), 16 pixels by its own convention
    map_HW[6, 8] = 1.0  # the peak, elsewhere
    map_HW[1, 2] = 0.8
    lesion_HW = torch.zeros(8, 10)
    lesion_HW[1:4, 2:6] = 1  # box (2, 1, 6, 4), 20 pixels
    iou_T = box_iou_curve(map_HW[None], lesion_HW[None])[0]
    largest_T = box_iou_curve(map_HW[None], lesion_HW[None], largest=True)[0]
    assert iou_T[:153].tolist() == [16 / 20] * 153  # 0.6 is level 153, above t = 0 ... 152
    assert iou_T[153:204].tolist() == [4 / 20] * 51  # 0.8 is level 204: its box is 2 x 2
    assert iou_T[204:].tolist() == [0] * 51
    assert largest_T[:153].tolist() == [16 / 20] * 153
    # from here on both components have one pixel: the first in reading order
    assert largest_T[153:204].tolist() == [4 / 20] * 51 and (largest_T[204:] == 0).all()
    hits = box_hits(iou_T[None])
    assert hits[0, :, 0].tolist() == [True] * 3 and hits[0, :, 153].tolist() == [False] * 3
    assert max_box_acc(hits).tolist() == [1]


def test_the_largest_component_counts_pixels() -> None:
    map_HW = torch.zeros(12, 12)
    map_HW[1, 1:11] = 1  # 10 pixels in a line: OpenCV's contour of it has no area
    map_HW[5:8, 5:8] = 1  # 9 in a square
    lesion_HW = (map_HW > 0).float()
    lesion_HW[5:8] = 0
    assert box_iou_curve(map_HW[None], lesion_HW[None], largest=True).eq(1).all()


def test_a_map_equal_to_the_mask_is_perfect_and_a_flat_one_is_the_canvas() -> None:
    lesion_BHW = torch.zeros(2, 9, 9)
    lesion_BHW[0, 2:4, 3:8] = lesion_BHW[1, 0:2, 0:2] = lesion_BHW[1, 7:9, 7:9] = 1
    assert box_iou_curve(lesion_BHW, lesion_BHW).eq(1).all()
    flat = box_iou_curve(torch.ones(2, 9, 9), lesion_BHW)
    assert flat[0].eq(18 / 81).all()  # 3 x 6, one more than the 2 x 5 that it holds
    assert box_iou_curve(lesion_BHW[:0], lesion_BHW[:0]).shape == (0, 255)


def test_a_hole_is_one_only_away_from_the_edge() -> None:
    map_HW = torch.ones(12, 12)
    map_HW[4:8, 5:9] = 0  # a hole; its rim is (4, 3, 9, 8), one more at the far ends
    lesion_HW = torch.zeros(12, 12)
    lesion_HW[3:9, 4:10] = 1
    assert box_iou_curve(map_HW[None], lesion_HW[None]).eq(1).all()
    for edge in (np.s_[0:8, 5:9], np.s_[4:12, 5:9], np.s_[4:8, 0:9], np.s_[4:8, 5:12]):
        open_HW, rim_HW = map_HW.clone(), torch.zeros(12, 12)
        open_HW[edge] = 0
        rows, columns = edge
        rim_HW[
            max(rows.start - 1, 0) : rows.stop + 1, max(columns.start - 1, 0) : columns.stop + 1
        ] = 1
        assert box_iou_curve(open_HW[None], rim_HW[None]).max() < 0.6


def test_an_iou_on_the_level_is_a_hit() -> None:
    hit_1DT = box_hits(torch.tensor([[0.29, 0.3, 0.5, 0.7, 1.0]], dtype=torch.float64))
    assert hit_1DT.sum(dim=2).tolist() == [[4, 3, 2]]


def test_one_threshold_serves_all_films() -> None:
    hit_NDT = torch.zeros(4, 2, 255, dtype=torch.bool)
    hit_NDT[0, 0, 10] = hit_NDT[1, 0, 10] = hit_NDT[2, 0, 99] = True
    hit_NDT[3, 1, 50] = True
    # at thresholds 10 and 50: two films of four, and one
    assert max_box_acc(hit_NDT).tolist() == [0.5, 0.5, 0, 0.5]
    hit_NDT[1, 0, 10] = False  # now 10 and 99 are alike: the lower one
    assert max_box_acc(hit_NDT).tolist() == [0.5, 0, 0, 0.5]
    assert max_box_acc(hit_NDT[:0]).shape == (0,)
