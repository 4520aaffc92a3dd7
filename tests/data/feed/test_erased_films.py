"""Marked films with a patch erased: where else, what fills it, and what a network makes of it."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pcamx.evaluation.erasing import DRAWS, erase_lesions, inpainted, places_alike
from pcamx.metrics.basis import erase_blur, erase_blur_flips, erase_inpaint, erase_inpaint_logit
from pcamx.types import Batch


def limb(size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """A bright strip on black, columns 8 to 15, and a patch of 4 x 4 px on it."""
    image = np.zeros((size, size), np.float32)
    image[:, 8:16] = 1
    patch = np.zeros((size, size), bool)
    patch[4:8, 10:14] = True
    return image, patch


def test_another_patch_lies_on_the_limb_and_clear_of_the_lesion() -> None:
    image, patch = limb()
    drawn = set()
    for seed in range(20):
        moves = places_alike(image, patch, np.random.default_rng(seed), 3)
        assert len(set(moves)) == 3
        for down, right in moves:
            assert 0 <= 4 + down <= 28 and 8 <= 10 + right <= 12
            assert not (np.roll(patch, (down, right), (0, 1)) & patch).any()
        assert moves == places_alike(image, patch, np.random.default_rng(seed), 3)
        drawn |= set(moves)
    assert len(drawn) > 8


def test_a_patch_across_the_edge_goes_across_an_edge() -> None:
    """The same mean can be had by a half-bright place: spread tells them apart."""
    image, patch = limb()
    image[:, 24:] = 0.5  # a flat place of the mean that the patch has
    patch = np.roll(patch, -4, 1)  # columns 6 to 9: half on black
    moves = places_alike(image, patch, np.random.default_rng(0), 3)
    # The strip's left edge and its right one; columns 14 to 17 hold as much of either.
    assert {6 + right for _, right in moves} <= {6, 14}


def test_no_room_and_no_mark_are_said() -> None:
    image, patch = limb()
    whole = np.zeros_like(patch)
    whole[2:22, 2:22] = True
    assert places_alike(image, whole, np.random.default_rng(0), 3) == []
    assert places_alike(image, np.zeros_like(patch), np.random.default_rng(0), 3) == []
    corner = np.zeros_like(patch)
    corner[:, :16] = True  # one other place, the right half, and three are asked for
    assert places_alike(image, corner, np.random.default_rng(0), 3) == []
    assert places_alike(image, corner, np.random.default_rng(0), 1) == [(0, 16)]


def test_a_plane_is_filled_in_from_its_rim() -> None:
    down, right = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    plane_1HW = ((down + 2 * right) / 60 - 1)[None]
    patch = np.zeros((64, 64), bool)
    patch[20:32, 25:40] = True
    junk_1HW = torch.where(torch.from_numpy(patch), torch.tensor(7.0), plane_1HW)
    filled_1HW = inpainted(junk_1HW, patch)
    assert torch.equal(filled_1HW[0][~patch], plane_1HW[0][~patch])
    # The plane spans 0.7 across the patch.
    assert (filled_1HW - plane_1HW).abs().max() < 0.15


class BrightSpot(nn.Module):
    """Calls abnormal, by a margin of 5, a film that has a pixel above 5."""

    def forward(self, image_B1HW: Tensor) -> Tensor:
        spot_B = image_B1HW.amax((1, 2, 3)) > 5
        return torch.stack([torch.zeros(len(spot_B)), torch.where(spot_B, 5.0, -5.0)], 1)


def films() -> Batch:
    """A spot on the strip; the same without a mark; the whole film marked; a spot elsewhere."""
    image = torch.zeros(4, 1, 64, 64)
    image[..., 16:48] = 1
    lesion = torch.zeros_like(image)
    for film, row in ((0, 20), (1, 20), (3, 40)):
        image[film, :, row : row + 3, 30:33] = 9
        if film != 1:
            lesion[film, :, row : row + 3, 30:33] = 1
    lesion[2] = 1
    marked = torch.tensor([True, False, True, True])
    return Batch(image, torch.ones(4, dtype=torch.long), lesion, marked)


def test_what_a_network_makes_of_it() -> None:
    batch = films()
    halves = [Batch(*(part[rows] for part in batch)) for rows in (slice(0, 2), slice(2, 4))]
    found = erase_lesions({"spot": BrightSpot()}, halves)["spot"]  # type: ignore[dict-item]
    assert found.films == [0, 2]  # of the three marked ones
    for erased in found.by_fill.values():
        assert erased.film_M.tolist() == [5, 5] and erased.lesion_M.tolist() == [-5, -5]
        assert erased.other_MD.tolist() == [[5] * DRAWS] * 2
    fall = 1 / (1 + math.exp(-5)) - 1 / (1 + math.exp(5))
    for measure in (erase_blur, erase_inpaint):
        assert measure(found.by_fill) == pytest.approx([fall] * 2)
    assert erase_inpaint_logit(found.by_fill).tolist() == [10, 10]
    assert erase_blur_flips(found.by_fill).tolist() == [1, 1]


def test_no_film_is_no_figure() -> None:
    batch = films()
    nobody = batch._replace(marked_B=torch.zeros(4, dtype=torch.bool))
    found = erase_lesions({"spot": BrightSpot()}, [nobody])["spot"]  # type: ignore[dict-item]
    assert found.films == [] and erase_blur(found.by_fill).shape == (0,)
