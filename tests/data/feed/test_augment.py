"""One warp for film and lesion."""

import math

import numpy as np
import pytest
import torch

from pcamx.config import Augment
from pcamx.data.feed.augment import Warp, compose, draw, identity
from pcamx.ops import gather_affine_normalise

OFF = Augment(flip=False, rotate=0.0, scale=0.0, shift=0.0, brightness=0.0)


def theta(
    flip: float = 1, degrees: float = 0, zoom: float = 1, shift: tuple[float, float] = (0, 0)
) -> torch.Tensor:
    angle = np.deg2rad([degrees])
    array = compose(np.array([flip]), angle, np.array([zoom]), np.array([shift]))
    return torch.from_numpy(array).float()


def canvas(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def augment(
    film_B1HW: torch.Tensor, lesion_B1HW: torch.Tensor | None, warp: Warp, mean: float, std: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The films one after the other."""
    row_B = torch.arange(len(film_B1HW))
    return gather_affine_normalise(
        film_B1HW,
        row_B,
        *warp,
        mean,
        std,
        lesion_M1HW=lesion_B1HW,
        lesion_row_B=None if lesion_B1HW is None else row_B,
    )


def warped(image: torch.Tensor, matrix: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
    return augment(image, None, Warp(matrix, torch.tensor([gain])), 0.0, 1.0)[0]


def test_identity_is_exact() -> None:
    image, lesion = canvas(3, 1, 33, 33), (canvas(3, 1, 33, 33, seed=1) > 128).to(torch.uint8)
    out, mask = augment(image, lesion, identity(3), 51.3, 47.7)
    assert out.dtype == mask.dtype == torch.float32
    assert torch.equal(out, (image.float() - 51.3) / 47.7)
    assert torch.equal(mask, lesion.float())


def test_switched_off_is_the_identity() -> None:
    warp = draw(OFF, 4, seed=0, epoch=0, step=0)
    assert torch.equal(warp.theta_B23, identity(4).theta_B23)
    assert torch.equal(warp.gain_B, torch.ones(4))


@pytest.mark.parametrize(
    ("matrix", "moved"),
    [
        (theta(flip=-1), lambda x: x.flip(-1)),
        (theta(degrees=90), lambda x: x.rot90(-1, (2, 3))),  # clockwise as seen
        (theta(degrees=-90), lambda x: x.rot90(1, (2, 3))),
        (theta(degrees=180), lambda x: x.rot90(2, (2, 3))),
        # First mirrored, then turned.
        (theta(flip=-1, degrees=90), lambda x: x.flip(-1).rot90(-1, (2, 3))),
    ],
)
def test_flips_and_quarter_turns_move_whole_pixels(matrix: torch.Tensor, moved) -> None:  # type: ignore[no-untyped-def]
    image = canvas(1, 1, 20, 20)
    torch.testing.assert_close(warped(image, matrix), moved(image.float()), atol=1e-2, rtol=0)


def test_shift_is_right_and_down_and_black_comes_in() -> None:
    image = canvas(1, 1, 20, 20) // 2 + 100
    out = warped(image, theta(shift=(2 * 3 / 20, 2 * 1 / 20)))  # 3 right, 1 down
    torch.testing.assert_close(out[..., 1:, 3:], image.float()[..., :-1, :-3], atol=1e-2, rtol=0)
    assert out[..., 0, :].max() < 1e-2 and out[..., :, :3].max() < 1e-2


def test_zoom_enlarges_about_the_centre() -> None:
    image = torch.zeros(1, 1, 40, 40, dtype=torch.uint8)
    image[..., 15:25, 15:25] = 200
    out = warped(image, theta(zoom=2.0))
    assert out[0, 0, 11:29, 11:29].min() > 199.9
    assert out.sum() == pytest.approx(4 * 200 * 100, rel=1e-3)


def test_a_point_goes_where_the_hand_says() -> None:
    """Flip, zoom 1/2, 30 degrees clockwise, then 0.1 right: worked out for (0.6, 0.2)."""
    matrix = theta(flip=-1, degrees=30, zoom=0.5, shift=(0.1, 0.0))[0].double()
    x, y = -0.6 * 0.5, 0.2 * 0.5
    cos, sin = math.sqrt(3) / 2, 0.5
    goal = torch.tensor([cos * x - sin * y + 0.1, sin * x + cos * y, 1.0], dtype=torch.float64)
    torch.testing.assert_close(matrix @ goal, torch.tensor([0.6, 0.2]).double(), atol=1e-6, rtol=0)


def test_gain_is_clipped_at_white() -> None:
    image = torch.tensor([0, 100, 200, 255], dtype=torch.uint8).reshape(1, 1, 2, 2)
    assert warped(image, theta(), 1.5).flatten().tolist() == [0, 150, 255, 255]
    turned = warped(image, theta(degrees=180), 0.5).flatten()
    torch.testing.assert_close(turned, torch.tensor([127.5, 100, 50, 0]), atol=1e-3, rtol=0)


def test_lesion_follows_the_film() -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    blob = ((x - 40) ** 2 + (y - 26) ** 2 < 30)[None, None]
    strong = Augment(flip=True, rotate=180.0, scale=0.3, shift=0.1, brightness=0.0)
    warp = draw(strong, 16, seed=5, epoch=0, step=0)
    film, lesion = augment(
        (blob * 255).to(torch.uint8).repeat(16, 1, 1, 1),
        blob.to(torch.uint8).repeat(16, 1, 1, 1),
        warp,
        0.0,
        255.0,
    )
    assert set(lesion.flatten().tolist()) == {0.0, 1.0}
    assert torch.equal(lesion, (film >= 0.5).float())
    assert lesion.sum((1, 2, 3)).min() > 20


def test_draw_is_pure_and_within_bounds() -> None:
    config = Augment(flip=True, rotate=20.0, scale=0.1, shift=0.05, brightness=0.2)
    warp = draw(config, 4000, seed=1, epoch=2, step=3)
    again = draw(config, 4000, seed=1, epoch=2, step=3)
    assert torch.equal(warp.theta_B23, again.theta_B23) and torch.equal(warp.gain_B, again.gain_B)
    for other in ({"seed": 2}, {"epoch": 3}, {"step": 4}):
        changed = draw(config, 4000, **{"seed": 1, "epoch": 2, "step": 3, **other})
        assert not torch.equal(warp.gain_B, changed.gain_B)
    linear = warp.theta_B23[:, :, :2].double()
    det = linear.det()
    zoom, flipped = det.abs().rsqrt(), det < 0
    assert 0.45 < flipped.double().mean() < 0.55
    assert 0.9 <= zoom.min() < 0.91 and 1.09 < zoom.max() <= 1.1 + 1e-6
    unflipped = linear * torch.where(flipped, -1.0, 1.0)[:, None, None] ** torch.tensor([[1], [0]])
    angle = torch.rad2deg(torch.atan2(unflipped[:, 0, 1], unflipped[:, 1, 1]))
    assert angle.abs().max() <= 20.001 and angle.min() < -19 and angle.max() > 19
    shift = -torch.linalg.solve(linear, warp.theta_B23[:, :, 2:].double())
    assert 0.099 < shift.abs().max() <= 0.1 + 1e-6  # a twentieth of the side, which is 2
    assert 0.8 <= warp.gain_B.min() < 0.81 and 1.19 < warp.gain_B.max() <= 1.2


def test_a_share_of_the_batch_has_the_same_bits() -> None:
    image = canvas(8, 1, 48, 48)
    lesion = (image > 200).to(torch.uint8)
    warp = draw(Augment(), 8, seed=0, epoch=0, step=0)
    whole = augment(image, lesion, warp, 60.0, 40.0)
    for part in (slice(0, 4), slice(4, 8), slice(5, 6)):
        share = augment(image[part], lesion[part], warp.columns(part), 60.0, 40.0)
        assert all(torch.equal(a[part], b) for a, b in zip(whole, share, strict=True))


def test_without_lesions_the_film_is_the_same_and_masks_are_zero() -> None:
    image = canvas(2, 1, 32, 32)
    warp = draw(Augment(), 2, seed=0, epoch=0, step=0)
    film, none = augment(image, None, warp, 60.0, 40.0)
    assert torch.equal(film, augment(image, torch.zeros_like(image), warp, 60.0, 40.0)[0])
    assert none.shape == film.shape and none.count_nonzero() == 0


def test_a_film_not_warped_is_exact_beside_one_that_is() -> None:
    """Else its bits would depend on the share of the batch that its rank has."""
    image = canvas(2, 1, 33, 33)
    warp = Warp(torch.cat([theta(), theta(flip=-1)]), torch.ones(2))
    film, _ = augment(image, None, warp, 51.3, 47.7)
    assert torch.equal(film[0], (image[0].float() - 51.3) / 47.7)
