"""Localisation figures against hand-worked maps, brute force and torchmetrics.

Shapes: B films, H W the canvas, T thresholds.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad
from torchmetrics.functional.classification import binary_f1_score, binary_jaccard_index

from pcamx.metrics import (
    SIZES,
    THRESHOLDS,
    centre_gaussian,
    dice,
    energy,
    in_slice,
    iou_curve,
    iou_otsu,
    lesion_share,
    minmax,
    pixel_average_precision,
    pixel_counts,
    pointing,
    relevance_rank,
    tune_threshold,
)
from pcamx.metrics.boxes import box_iou_curve

MAP = torch.tensor([[[0.0, 1.0, 2.0], [3.0, 10.0, 3.0], [2.0, 1.0, 3.0]]])
LESION = torch.tensor([[[0, 0, 0], [0, 1, 1], [0, 0, 0]]])


def some_films(films: int = 5, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Random maps with many equal levels, and lesions of different sizes."""
    generator = torch.Generator().manual_seed(3)
    map_BHW = torch.randint(0, 21, (films, 9, 12), generator=generator).to(dtype) / 20
    lesion_BHW = torch.zeros(films, 9, 12)
    for film in range(films):
        lesion_BHW[film, 2 : 4 + film, 3:7] = 1
    return map_BHW, lesion_BHW


def test_by_hand() -> None:
    # sum 25, of which 10 + 3 in the lesion; the one maximum is in it
    assert pointing(MAP, LESION).tolist() == [1.0]
    assert energy(MAP, LESION).item() == pytest.approx(13 / 25, abs=1e-15)
    # >= 0.2 holds six pixels, >= 0.3 the four at 3 and 10, >= 0.5 and >= 1 the peak alone
    curve = iou_curve(MAP, LESION, [0.0, 0.2, 0.3, 0.5, 1.0])
    assert curve.tolist() == [[2 / 9, 2 / 6, 2 / 4, 1 / 2, 1 / 2]]


def test_pointing_misses_and_splits_ties() -> None:
    lesion_BHW = LESION.expand(3, 3, 3)
    maps = torch.zeros(3, 3, 3)
    maps[0, 0, 0] = 1  # outside
    maps[1, 1, 1] = maps[1, 0, 0] = maps[1, 2, 2] = maps[1, 2, 0] = 5  # one of four inside
    maps[2, 1] = 2  # two of three inside
    expected = torch.tensor([0, 1 / 4, 2 / 3], dtype=torch.float64)
    torch.testing.assert_close(pointing(maps, lesion_BHW), expected)


@pytest.mark.parametrize("level", [0.0, 1.0, -7.5])
def test_a_flat_map_scores_the_area_share(level: float) -> None:
    flat = torch.full((1, 3, 3), level)
    assert pointing(flat, LESION).item() == pytest.approx(2 / 9, abs=1e-15)
    assert energy(flat, LESION).item() == pytest.approx(2 / 9, abs=1e-15)
    assert (minmax(flat) == 1).all()
    assert iou_curve(flat, LESION, [0.5, 1.0]).tolist() == [[2 / 9, 2 / 9]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_flat_map_is_flat_after_upsampling(dtype: torch.dtype) -> None:
    small = torch.full((1, 1, 20, 20), 1.7, dtype=dtype)
    flat = interpolate(small, size=(333, 333), mode="bilinear", align_corners=False)[:, 0]
    assert flat.amax() > flat.amin()  # rounding has made it uneven
    lesion_BHW = torch.zeros(1, 333, 333)
    lesion_BHW[:, :37, :10] = 1
    share = lesion_BHW.mean(dtype=torch.float64).item()
    assert pointing(flat, lesion_BHW).item() == pytest.approx(share, abs=1e-12)
    assert energy(flat, lesion_BHW).item() == pytest.approx(share, abs=1e-12)


def test_flatness_is_judged_film_by_film() -> None:
    maps = torch.cat([torch.ones(1, 3, 3), MAP * 1e-12, MAP * 1e12 - 5])
    lesion_BHW = LESION.expand(3, 3, 3)
    expected = torch.tensor([2 / 9, 1, 1], dtype=torch.float64)
    torch.testing.assert_close(pointing(maps, lesion_BHW), expected)
    assert energy(maps, lesion_BHW)[1].item() == pytest.approx(13 / 25, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_agrees_with_loops_over_films_and_pixels(dtype: torch.dtype) -> None:
    map_BHW, lesion_BHW = some_films(dtype=dtype)
    for film in range(len(map_BHW)):
        values = [float(v) for v in map_BHW[film].flatten()]
        inside = [bool(v) for v in lesion_BHW[film].flatten()]
        low, high = min(values), max(values)
        scaled = [(v - low) / (high - low) for v in values]
        peaks = [i for v, i in zip(values, inside, strict=True) if v == high]
        expected_pointing = sum(peaks) / len(peaks)
        expected_energy = math.fsum(
            v for v, i in zip(scaled, inside, strict=True) if i
        ) / math.fsum(scaled)
        expected_iou = []
        for threshold in THRESHOLDS:
            above = [v >= threshold for v in scaled]
            both = sum(a and i for a, i in zip(above, inside, strict=True))
            either = sum(a or i for a, i in zip(above, inside, strict=True))
            expected_iou.append(both / either)
        one = slice(film, film + 1)
        assert pointing(map_BHW, lesion_BHW)[film].item() == expected_pointing
        assert energy(map_BHW, lesion_BHW)[film].item() == pytest.approx(expected_energy, abs=1e-14)
        assert iou_curve(map_BHW, lesion_BHW)[film].tolist() == expected_iou
        assert iou_curve(map_BHW[one], lesion_BHW[one]).tolist() == [expected_iou]


def test_iou_agrees_with_torchmetrics() -> None:
    map_BHW, lesion_BHW = some_films()
    curve_BT = iou_curve(map_BHW, lesion_BHW)
    scaled_BHW = minmax(map_BHW)
    for film in range(len(map_BHW)):
        for column, threshold in enumerate(THRESHOLDS):
            above = scaled_BHW[film] >= threshold
            expected = binary_jaccard_index(above.int(), lesion_BHW[film].int())
            assert curve_BT[film, column].item() == pytest.approx(expected.item(), abs=1e-6)


def test_levels_meet_their_thresholds() -> None:
    # level k of 20 must be counted at threshold k/20 for every k, whatever the map's scale
    ramp = torch.arange(21.0).view(1, 3, 7)
    everywhere = torch.ones(1, 3, 7)
    expected = [(21 - k) / 21 for k in range(1, 20)]
    for scaled in (ramp, ramp * 3 + 11, ramp / 1024):
        assert iou_curve(scaled, everywhere)[0].tolist() == expected


def test_invariances() -> None:
    generator = torch.Generator().manual_seed(8)
    map_BHW = torch.rand(6, 16, 16, generator=generator, dtype=torch.float64)
    _, lesion_BHW = some_films(6)
    lesion_BHW = pad(lesion_BHW, (0, 4, 0, 7))
    for monotone in (map_BHW.exp(), map_BHW**3, 5 * map_BHW - 2):
        assert torch.equal(pointing(monotone, lesion_BHW), pointing(map_BHW, lesion_BHW))
    for affine in (5 * map_BHW - 2, map_BHW / 1000):
        torch.testing.assert_close(minmax(affine), minmax(map_BHW))
        torch.testing.assert_close(energy(affine, lesion_BHW), energy(map_BHW, lesion_BHW))
        curve_BT = iou_curve(map_BHW, lesion_BHW)
        torch.testing.assert_close(iou_curve(affine, lesion_BHW), curve_BT)
    # not so under a monotone change of shape: energy and IoU read the values
    assert not torch.allclose(energy(map_BHW**3, lesion_BHW), energy(map_BHW, lesion_BHW))
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    shuffled_BT = iou_curve(map_BHW[order], lesion_BHW[order])
    assert torch.equal(shuffled_BT, iou_curve(map_BHW, lesion_BHW)[order])


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32, torch.float64])
def test_lesions_of_any_dtype(dtype: torch.dtype) -> None:
    lesion = LESION.to(dtype)
    assert energy(MAP, lesion).item() == pytest.approx(13 / 25, abs=1e-15)
    assert iou_curve(MAP, lesion, [0.3]).tolist() == [[0.5]]


def test_no_films_give_no_figures() -> None:
    nothing = torch.zeros(0, 4, 4)
    assert pointing(nothing, nothing).shape == energy(nothing, nothing).shape == (0,)
    assert relevance_rank(nothing, nothing).shape == iou_otsu(nothing, nothing).shape == (0,)
    counts = pixel_counts(nothing, nothing)
    assert counts.shape == (0, 2, 1001) and pixel_average_precision(counts.numpy()).value is None
    assert iou_curve(nothing, nothing).shape == (0, len(THRESHOLDS))


@pytest.mark.parametrize(
    "measure",
    [pointing, energy, relevance_rank, iou_curve, iou_otsu, pixel_counts, box_iou_curve],
)
def test_refuses_what_it_cannot_measure(measure: Callable[[Tensor, Tensor], Tensor]) -> None:
    maps, lesions = MAP.repeat(2, 1, 1), LESION.repeat(2, 1, 1)
    for bad in (math.nan, math.inf, -math.inf):
        broken = maps.clone()
        broken[1, 0, 2] = bad
        with pytest.raises(ValueError, match="NaN or infinity"):
            measure(broken, lesions)
    unmarked = lesions.clone()
    unmarked[1] = 0
    with pytest.raises(ValueError, match="empty"):
        measure(maps, unmarked)
    with pytest.raises(ValueError, match="do not match"):
        measure(maps, lesions[:, None])
    with pytest.raises(ValueError, match="do not match"):
        measure(maps, lesions[:1])
    with pytest.raises(ValueError, match="must be"):
        measure(maps[0], lesions[0])
    with pytest.raises(ValueError, match="must be"):
        measure(maps.long(), lesions)


def test_relevance_rank_by_hand() -> None:
    # two lesion pixels: the two highest are 10 and one of three 3s, of which one is inside
    assert relevance_rank(MAP, LESION).item() == pytest.approx((1 + 1 / 3) / 2)
    wide = torch.ones(1, 3, 3) - LESION  # of the seven highest, two 3s, both 2s, one 1
    assert relevance_rank(MAP, wide).item() == pytest.approx((2 + 2 + 1) / 7)
    flat = torch.full((1, 3, 3), 4.0)
    assert relevance_rank(flat, LESION).item() == pytest.approx(2 / 9)
    everywhere = torch.ones(1, 3, 3)
    assert relevance_rank(MAP, everywhere).item() == 1


def test_relevance_rank_is_a_mean_over_ways_to_break_ties() -> None:
    map_BHW, lesion_BHW = some_films()
    generator = torch.Generator().manual_seed(0)
    seen = []
    for _ in range(400):
        jitter = torch.rand(map_BHW.shape, generator=generator) / 100  # levels are 1/20 apart
        order = (map_BHW + jitter).flatten(1).argsort(dim=1, descending=True)
        inside = lesion_BHW.flatten(1).gather(1, order)
        areas = lesion_BHW.sum(dim=(1, 2)).int().tolist()
        seen.append([inside[film, :area].mean().item() for film, area in enumerate(areas)])
    expected = torch.tensor(seen).mean(dim=0).tolist()
    assert relevance_rank(map_BHW, lesion_BHW).tolist() == pytest.approx(expected, abs=0.01)
    assert len(set(areas)) == len(areas)  # lesions of several sizes in one batch


def test_dice_agrees_with_torchmetrics() -> None:
    map_BHW, lesion_BHW = some_films()
    ours = dice(iou_curve(map_BHW, lesion_BHW, [0.4]))[:, 0]
    for film, above in enumerate(minmax(map_BHW) >= 0.4):
        expected = binary_f1_score(above.int(), lesion_BHW[film].int())  # the same number
        assert ours[film].item() == pytest.approx(expected.item(), abs=1e-6)
    assert dice(torch.tensor([0.0, 0.5, 1.0])).tolist() == pytest.approx([0, 2 / 3, 1])


def test_iou_at_otsus_threshold_by_hand() -> None:
    # levels 0, 25, 51, 76, 255: best apart is 255 from the rest, so the peak alone is kept
    assert iou_otsu(MAP, LESION).item() == 1 / 2
    two = torch.tensor([[[0.0, 0.1, 0.9], [0.1, 1.0, 0.9], [0.0, 0.1, 0.0]]])
    assert iou_otsu(two, LESION).item() == 2 / 3
    flat = torch.full((1, 3, 3), -2.0)
    assert iou_otsu(flat, LESION).item() == 2 / 9


def test_pixels_are_pooled_over_films() -> None:
    map_BHW = torch.zeros(2, 2, 2)
    map_BHW[0] = torch.tensor([[1.0, 0.5], [0.0, 0.0]])
    map_BHW[1] = torch.tensor([[1.0, 0.0], [0.5, 0.0]])
    lesion_BHW = torch.zeros(2, 2, 2)
    lesion_BHW[0, 0] = lesion_BHW[1, 1] = 1
    counts = pixel_counts(map_BHW, lesion_BHW)
    assert counts.sum(dim=2).tolist() == [[2, 2], [2, 2]]
    assert counts[0, 1, [500, 1000]].tolist() == [1, 1] and counts[1, 0, 1000] == 1
    # at 1: 1 of 2 is lesion, recall 1/4; at 0.5: 3 of 4, recall 3/4; at 0: 4 of 8, recall 1
    expected = 1 / 2 * 1 / 4 + 3 / 4 * 2 / 4 + 4 / 8 * 1 / 4
    assert pixel_average_precision(counts.numpy()).value == pytest.approx(expected)
    weights = torch.tensor([[1.0, 1.0], [3.0, 0.0]], dtype=torch.float64).numpy()
    replicates = pixel_average_precision(counts.numpy()).replicate(weights)
    assert replicates.tolist() == pytest.approx([expected, 1.0])


def test_slices_by_size_share_out_every_lesion() -> None:
    lesion_BHW = torch.zeros(5, 100, 100)
    for film, pixels in enumerate((1, 29, 30, 99, 100)):
        lesion_BHW[film].view(-1)[:pixels] = 1
    share_B = lesion_share(lesion_BHW)
    assert share_B.tolist() == [0.0001, 0.0029, 0.003, 0.0099, 0.01]
    sizes = {size: in_slice(share_B, size).tolist() for size in SIZES}
    assert sizes["small"] == [True, True, False, False, False]
    assert sizes["medium"] == [False, False, True, True, False]
    assert sizes["large"] == [False] * 4 + [True]
    assert in_slice(torch.ones(1), "large").all()


@pytest.mark.parametrize("thresholds", [[], [0.5, 0.2], [0.5, 0.5], [[0.1, 0.2]], [math.nan, 1.0]])
def test_thresholds_must_ascend(thresholds: list[float]) -> None:
    with pytest.raises(ValueError, match="ascending"):
        iou_curve(MAP, LESION, thresholds)


def test_thresholds_are_the_nineteen_twentieths() -> None:
    assert len(THRESHOLDS) == 19
    assert (THRESHOLDS[0], THRESHOLDS[2], THRESHOLDS[-1]) == (0.05, 0.15, 0.95)


def test_tuning_takes_the_best_mean_and_the_lowest_of_equals() -> None:
    iou_BT = torch.tensor([[0.1, 0.7, 0.4, 0.2], [0.1, 0.1, 0.6, 0.9]])  # means .1 .4 .5 .55
    assert tune_threshold(iou_BT, (0.2, 0.4, 0.6, 0.8)) == 0.8
    assert tune_threshold(iou_BT[:, :3], (0.2, 0.4, 0.6)) == 0.6
    iou_BT = torch.zeros(7, 19)
    iou_BT[:, [4, 11]] = torch.linspace(0.1, 0.7, 7)[:, None]
    assert tune_threshold(iou_BT) == 0.25
    assert tune_threshold(torch.zeros(1, 19)) == 0.05
    # the same films in another order: 0.3 + 0.2 + 0.1 and 0.1 + 0.2 + 0.3 differ in the last bit
    equal_BT = torch.tensor([[0.3, 0.1], [0.2, 0.2], [0.1, 0.3]], dtype=torch.float64)
    assert tune_threshold(equal_BT, (0.4, 0.6)) == 0.4
    for bad in (torch.zeros(0, 19), torch.zeros(3, 18), torch.zeros(19)):
        with pytest.raises(ValueError, match="IoU must be"):
            tune_threshold(bad)
    with pytest.raises(ValueError, match="NaN"):
        tune_threshold(torch.full((2, 19), math.nan))


@pytest.mark.parametrize("size", [5, 8])
def test_centre_gaussian(size: int) -> None:
    map_HW = centre_gaussian(size, sigma_share=0.5)
    assert map_HW.shape == (size, size) and map_HW.dtype == torch.float32
    for same in (map_HW.T, map_HW.flip(0), map_HW.flip(1)):
        assert torch.equal(map_HW, same)
    middle = (size - 1) / 2
    expected = math.exp(-(middle**2 + middle**2) / (2 * (size / 2) ** 2))
    assert map_HW[0, 0].item() == pytest.approx(expected, rel=1e-6)
    peaks = map_HW == map_HW.max()
    assert peaks.sum() == (1 if size % 2 else 4)
    assert peaks[(size - 1) // 2, size // 2]


def test_the_centre_baseline_finds_a_central_lesion_and_no_other() -> None:
    map_BHW = centre_gaussian(32).expand(2, 32, 32)
    lesion_BHW = torch.zeros(2, 32, 32)
    lesion_BHW[0, 12:20, 12:20] = lesion_BHW[1, :8, :8] = 1
    assert pointing(map_BHW, lesion_BHW).tolist() == [1.0, 0.0]
    centre, corner = energy(map_BHW, lesion_BHW).tolist()
    assert centre > 64 / 1024 > corner
