"""Deletion and insertion against curves worked out by hand.

Shapes: B films, H W the image.
"""

import math

import pytest
import torch
from torch import Tensor

from pcamx.metrics.faithfulness import blurred, deletion, insertion, patch_correlation


def mean_of(image_B1HW: Tensor) -> Tensor:
    """A network whose probability is the share of the film's light that is left."""
    return image_B1HW.mean(dim=(1, 2, 3))


def test_deletion_by_hand() -> None:
    image = torch.tensor([[8.0, 4.0], [2.0, 2.0]])[None, None] / 4  # mean 1
    by_light = torch.tensor([[[4.0, 3.0], [2.0, 1.0]]])
    # what is left of the light: 1, 1/2, 1/4, 1/8, 0
    expected = (1 / 2 + 1 / 2 + 1 / 4 + 1 / 8 + 0) / 4
    assert deletion(mean_of, image, by_light, steps=4).tolist() == [expected]
    backwards = (1 / 2 + 7 / 8 + 3 / 4 + 1 / 2 + 0) / 4
    assert deletion(mean_of, image, -by_light, steps=4).tolist() == [backwards]
    # two pixels a step: 1, 1/4, 0
    assert deletion(mean_of, image, by_light, steps=2).tolist() == [(1 / 2 + 1 / 4) / 2]


def test_insertion_starts_from_the_blurred_film() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 1, 16, 16, generator=generator)
    seen: list[Tensor] = []

    def keep(image_B1HW: Tensor) -> Tensor:
        seen.append(image_B1HW)
        return image_B1HW.mean(dim=(1, 2, 3))

    map_BHW = torch.rand(3, 16, 16, generator=generator)
    insertion(keep, image, map_BHW, steps=8)
    assert len(seen) == 9
    assert torch.equal(seen[0], blurred(image)) and torch.equal(seen[-1], image)
    for step, mixed in enumerate(seen):
        put_back = (mixed == image)[:, 0]
        assert put_back.sum(dim=(1, 2)).tolist() == [32 * step] * 3
        for film in range(3):  # the hottest pixels, and no others
            hot, cold = map_BHW[film][put_back[film]], map_BHW[film][~put_back[film]]
            assert len(hot) == 0 or len(cold) == 0 or hot.min() > cold.max()


def test_a_map_that_names_the_cue_falls_and_rises_fast() -> None:
    image = torch.zeros(1, 1, 48, 48)
    image[..., 3:5, 3:5] = 1

    def sees_the_cue(image_B1HW: Tensor) -> Tensor:
        return (image_B1HW[..., 3:5, 3:5].mean(dim=(1, 2, 3)) > 0.99).float()

    right = image[:, 0] + 0.0
    wrong = 1 - right
    assert deletion(sees_the_cue, image, right) < 0.05 < 0.9 < deletion(sees_the_cue, image, wrong)
    assert insertion(sees_the_cue, image, right) > 0.9 > insertion(sees_the_cue, image, wrong)


def test_blur_is_a_gaussian_of_five_pixels_at_224() -> None:
    point = torch.zeros(1, 1, 224, 224, dtype=torch.float64)
    point[0, 0, 100, 120] = 1
    spread = blurred(point)[0, 0]
    assert spread.sum().item() == pytest.approx(1, abs=1e-12)
    assert (spread[100, 120] / spread[100, 125]).item() == pytest.approx(math.exp(0.5), rel=1e-9)
    assert (spread[100, 120] / spread[95, 115]).item() == pytest.approx(math.e, rel=1e-9)
    assert torch.allclose(blurred(torch.full((2, 1, 7, 9), 3.0)), torch.tensor(3.0))


def test_refuses_what_does_not_fit() -> None:
    image, map_BHW = torch.zeros(2, 1, 8, 8), torch.rand(2, 8, 8)
    with pytest.raises(ValueError, match="0 steps"):
        deletion(mean_of, image, map_BHW, steps=0)
    for wrong in (map_BHW[:1], map_BHW[:, :4]):
        with pytest.raises(ValueError, match="images"):
            deletion(mean_of, image, wrong)
    with pytest.raises(ValueError, match="NaN"):
        insertion(mean_of, image, map_BHW * math.nan)


def test_patches_by_hand() -> None:
    """Four bright patches of sixteen; blurring each lowers the logit by what is written here."""
    generator = torch.Generator().manual_seed(2)
    image = torch.rand(1, 1, 32, 32, generator=generator)
    image[..., 8:24, 8:24] += 5
    falls = {5: 1.0, 6: 2.0, 9: 3.0, 10: 4.0}
    asked = []

    def probability(image_B1HW: Tensor) -> Tensor:
        changed = (image_B1HW != image)[:, 0].unflatten(2, (4, 8)).unflatten(1, (4, 8))
        patch_BP = changed.any(4).any(2).flatten(1)
        assert patch_BP.sum() <= 1
        asked.append(patch_BP)
        fall_P = torch.tensor([falls.get(patch, 9.0 - patch) for patch in range(16)])
        return torch.sigmoid(2 - (patch_BP * fall_P).sum(1))

    def correlation(mass: dict[int, float]) -> float:
        grid = torch.tensor([mass.get(patch, 7.0) for patch in range(16)]).view(1, 4, 4)
        map_BHW = grid.repeat_interleave(8, 1).repeat_interleave(8, 2)
        return patch_correlation(probability, image, map_BHW, patches=4).item()

    assert correlation({5: 0.1, 6: 0.2, 9: 0.3, 10: 9.0}) == pytest.approx(1)
    assert len(asked) == 17 and torch.cat(asked).sum(0).tolist() == [1] * 16
    assert correlation({5: 4.0, 6: 3.0, 9: 2.0, 10: 1.0}) == pytest.approx(-1)
    # Ranks 2 1 4 3 against 1 2 3 4: 1 - 6 * 4 / (4 * 15).
    assert correlation({5: 2.0, 6: 1.0, 9: 4.0, 10: 3.0}) == pytest.approx(0.6)
    # Two share ranks 1 and 2: (1.5, 1.5, 3, 4) is 4.5 / sqrt(4.5 * 5) of (1, 2, 3, 4).
    assert correlation({5: 1.0, 6: 1.0, 9: 4.0, 10: 5.0}) == pytest.approx(4.5 / 22.5**0.5)
    assert correlation({5: 1.0, 6: 1.0, 9: 1.0, 10: 1.0}) == 0
    with pytest.raises(ValueError, match="5 patches"):
        patch_correlation(probability, image, image[:, 0], patches=5)
