"""Agreement with the published definitions (tests/lib/published.py) on random films.

Shapes: N films, H W the canvas.
"""

import numpy as np
import published
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pcamx import metrics
from pcamx.metrics import boxes


def random_films(seed: int, films: int, size: int = 24) -> tuple[Tensor, Tensor]:
    """Maps from one blob to pure noise, and one to three lesions, some across an edge."""
    generator = torch.Generator().manual_seed(seed)
    maps, lesions = [], torch.zeros(films, size, size + 5)
    for film in range(films):
        cells = (3, 5, 9, size)[film % 4]
        small = torch.rand(1, 1, cells, cells, generator=generator, dtype=torch.float64)
        maps.append(interpolate(small, size=(size, size + 5), mode="bilinear")[0, 0] * 7 - 2)
        for _ in range(1 + film % 3):
            y, x, h, w = (int(torch.randint(1, 9, (), generator=generator)) for _ in range(4))
            lesions[film, 2 * y : 2 * y + h, 3 * x - 3 : 3 * x - 3 + w] = 1
            # the map knows something of the lesion, else every accuracy is zero
            maps[film][2 * y : 2 * y + h, 3 * x - 3 : 3 * x - 3 + w] += 2 * (film % 2)
    return torch.stack(maps), lesions


def as_arrays(map_NHW: Tensor, lesion_NHW: Tensor) -> tuple[list, list]:
    return list(map_NHW.numpy()), list(lesion_NHW.numpy().astype(np.uint8))


def boxes_of(lesions: list) -> list:
    return [published.contour_boxes(lesion > 0, holes=False) for lesion in lesions]


def test_max_box_acc_v2() -> None:
    map_NHW, lesion_NHW = random_films(0, 5)
    maps, lesions = as_arrays(map_NHW, lesion_NHW)
    expected = published.max_box_acc_v2(maps, boxes_of(lesions))
    assert 0.1 < expected < 0.9
    hits = boxes.box_hits(boxes.box_iou_curve(map_NHW, lesion_NHW))
    assert metrics.max_box_acc(hits).mean().item() == pytest.approx(expected, abs=1e-6)


def test_max_box_acc() -> None:
    map_NHW, lesion_NHW = random_films(10, 5)
    maps, lesions = as_arrays(map_NHW, lesion_NHW)
    expected = published.largest_component_acc(maps, boxes_of(lesions))
    hits = boxes.box_hits(boxes.box_iou_curve(map_NHW, lesion_NHW, largest=True), (0.5,))
    assert metrics.max_box_acc(hits).mean().item() == pytest.approx(expected, abs=1e-6)


def test_max_box_acc_v2_of_noise_counts_the_rims_of_holes() -> None:
    generator = torch.Generator().manual_seed(5)
    map_NHW = torch.rand(3, 20, 20, generator=generator, dtype=torch.float64)
    map_NHW[0, 5:12, 5:12] = 1  # a ring: its hole's rim is the lesion's box
    map_NHW[0, 7:10, 7:10] = 0
    lesion_NHW = torch.zeros(3, 20, 20)
    lesion_NHW[:, 6:11, 6:11] = 1
    maps, lesions = as_arrays(map_NHW, lesion_NHW)
    ours = metrics.max_box_acc(boxes.box_hits(boxes.box_iou_curve(map_NHW, lesion_NHW)))
    expected = published.max_box_acc_v2(maps, boxes_of(lesions))
    assert ours.mean().item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_pxap(seed: int) -> None:
    map_NHW, lesion_NHW = random_films(20 + seed, 6, size=40)
    expected = published.pxap(*as_arrays(map_NHW, lesion_NHW))
    ours = metrics.pixel_average_precision(metrics.pixel_counts(map_NHW, lesion_NHW).numpy())
    assert ours.value == pytest.approx(expected, abs=1e-6)
    assert 0.02 < expected < 0.9


def test_pxap_of_levels_on_the_published_edges() -> None:
    """Every score is k/20 exactly: whichever bin an edge falls into, their order is the same."""
    generator = torch.Generator().manual_seed(2)
    map_NHW = torch.randint(0, 21, (5, 16, 16), generator=generator).double() / 20
    map_NHW[:, 0, 0], map_NHW[:, 0, 1] = 0, 1
    lesion_NHW = torch.zeros(5, 16, 16)
    lesion_NHW[:, 3:9, 4:9] = 1
    expected = published.pxap(*as_arrays(map_NHW, lesion_NHW))
    ours = metrics.pixel_average_precision(metrics.pixel_counts(map_NHW, lesion_NHW).numpy())
    assert ours.value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_chexlocalize(seed: int) -> None:
    map_NHW, lesion_NHW = random_films(30 + seed, 9, size=40)
    maps, lesions = as_arrays(map_NHW, lesion_NHW)
    hit = metrics.pointing(map_NHW, lesion_NHW).mean().item()
    assert hit == pytest.approx(published.hit_rate(maps, lesions), abs=1e-6)
    cut = metrics.iou_otsu(map_NHW, lesion_NHW).mean().item()
    assert cut == pytest.approx(published.miou_otsu(maps, lesions), abs=1e-6)
    for column, threshold in enumerate(metrics.THRESHOLDS):
        taken = [published.normalised(map_HW) >= threshold for map_HW in maps]
        ours = metrics.iou_curve(map_NHW, lesion_NHW)[:, column].mean().item()
        assert ours == pytest.approx(published.miou(taken, lesions), abs=1e-6)
