"""Erased lesions: what is filled, with what, and where else."""

import pytest
import torch
from torch import Tensor

from pcamx.training.losses import erasing
from pcamx.training.losses.erasing import erased


def film(size: int = 128, count: int = 40) -> tuple[Tensor, Tensor]:
    """Noise, each film with one rectangle of lesion at a place of its own."""
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(count, 1, size, size, generator=generator)
    lesion = torch.zeros_like(image)
    for b in range(count):
        y, x = torch.randint(8, size - 24, (2,), generator=generator).tolist()
        lesion[b, :, y : y + 11, x : x + 14] = 1
    return image, lesion


def test_the_lesion_grown_by_four_is_filled_by_the_blurred_film() -> None:
    image, lesion = film()
    healed, _, free = erased(image, lesion)
    assert free.all()
    for b in range(len(image)):
        (y, x) = (v[0].item() for v in lesion[b, 0].nonzero(as_tuple=True))
        patch = torch.zeros(128, 128, dtype=torch.bool)
        patch[y - 4 : y + 15, x - 4 : x + 18] = True
        assert torch.equal(healed[b, 0] != image[b, 0], patch)
    # Twice a box of 15 px is a triangle of weights 1 ... 15 ... 1, over 15^2, each way.
    tent = torch.tensor([15.0 - abs(i) for i in range(-14, 15)], dtype=torch.float64) / 225
    b = next(b for b in range(len(image)) if inner(lesion[b, 0]))
    y, x = (int(v[0]) for v in lesion[b, 0].nonzero(as_tuple=True))
    around = image[b, 0, y - 14 : y + 15, x - 14 : x + 15].double()
    assert healed[b, 0, y, x].item() == pytest.approx(float(tent @ around @ tent), abs=1e-5)


def inner(lesion_HW: Tensor) -> bool:
    y, x = (int(v[0]) for v in lesion_HW.nonzero(as_tuple=True))
    return 20 < y < 100 and 20 < x < 100


def test_a_flat_film_stays_as_it_is_up_to_its_edge() -> None:
    lesion = torch.zeros(1, 1, 64, 64)
    lesion[..., :5, :5] = 1
    healed, elsewhere, _ = erased(torch.full((1, 1, 64, 64), 2.0), lesion)
    torch.testing.assert_close(healed, torch.full_like(healed, 2))
    torch.testing.assert_close(elsewhere, torch.full_like(healed, 2))


def test_the_other_patch_is_the_same_and_does_not_touch_the_lesion() -> None:
    image, lesion = film()
    healed, elsewhere, _ = erased(image, lesion)
    places = set()
    for b in range(len(image)):
        patch, other = (films[b, 0] != image[b, 0] for films in (healed, elsewhere))
        assert not (patch & other).any() and other.sum() == patch.sum() == 19 * 22
        assert (other.any(1).sum(), other.any(0).sum()) == (19, 22)
        places.add((int(other.any(1).nonzero()[0]), int(other.any(0).nonzero()[0])))
    rows, columns = (torch.tensor([p[i] for p in places]) for i in (0, 1))
    assert len(places) > 36 and rows.float().std() > 25 and columns.float().std() > 25


def test_the_place_is_a_function_of_the_mark() -> None:
    image, lesion = film(count=4)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, again = erased(image, lesion), erased(image[[2]], lesion[[2]])
    assert torch.equal(first[1][[2]], again[1]) and torch.equal(torch.get_rng_state(), state)
    moved = erased(image[[2]], lesion[[2]].roll(1, 3))
    assert not torch.equal((moved[1] != image[[2]]).roll(-1, 3), again[1] != image[[2]])


def test_no_room_elsewhere_is_said() -> None:
    lesion = torch.zeros(2, 1, 64, 64)
    lesion[0, :, 8:, 8:] = 1
    lesion[1, :, 8:12, 8:12] = 1
    assert erased(torch.randn(2, 1, 64, 64), lesion)[2].tolist() == [False, True]


def test_a_place_is_clear_on_the_largest_canvas_too() -> None:
    """A patch of all rows and 2,044 of 4,096 columns: 2,044 to 2,052 columns further it is."""
    patch = torch.zeros(1, 1, 2048, 4096)
    patch[..., :2044] = 1
    _, dx, free = erasing._elsewhere(patch)
    assert free.all() and 2044 <= dx.item() <= 2052
