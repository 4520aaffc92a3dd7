"""The kernel against the reference and, for the size of errors, float64 by hand."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from pcamx.config import Augment
from pcamx.data.feed.augment import Warp, draw, identity
from pcamx.ops import Impl, gather_affine_normalise

MEAN, STD = 51.3, 47.7
STRONG = Augment(flip=True, rotate=60.0, scale=0.4, shift=0.3, brightness=0.9)


GPU = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture(params=[GPU] if torch.cuda.is_available() else ["cpu", GPU])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Triton's interpreter, or a GPU where there is one."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def unwritten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fresh outputs hold NaN, so that a pixel left out shows."""
    empty, empty_like = Tensor.new_empty, torch.empty_like
    fill = float("nan")
    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "new_empty", lambda *a, **k: _filled(empty(*a, **k), fill))
        patch.setattr(torch, "empty_like", lambda *a, **k: _filled(empty_like(*a, **k), fill))
        yield


def _filled(tensor: Tensor, value: float) -> Tensor:
    return tensor.fill_(value) if tensor.is_floating_point() else tensor


def films(count: int, side: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8, generator=generator)


def masks(count: int, side: int, seed: int = 1) -> Tensor:
    return (films(count, side, seed) > 127).to(torch.uint8)


def kernel(
    canvas: Tensor,
    rows: list[int],
    warp: Warp,
    device: torch.device,
    lesion: Tensor | None = None,
    lesion_rows: list[int] | None = None,
    impl: Impl = "triton",
) -> tuple[Tensor, Tensor]:
    """The batch, back on the CPU."""
    index = (
        None if lesion_rows is None else torch.tensor(lesion_rows, dtype=torch.int64, device=device)
    )
    image, mask = gather_affine_normalise(
        canvas.to(device),
        torch.tensor(rows, dtype=torch.int64, device=device),
        *warp.on(device),
        MEAN,
        STD,
        lesion_M1HW=None if lesion is None else lesion.to(device),
        lesion_row_B=index,
        impl=impl,
    )
    return image.cpu(), mask.cpu()


def by_hand(planes_B1HW: Tensor, theta_B23: Tensor) -> Tensor:
    """Bilinear resampling in float64, black outside, any height and width."""
    B, _, H, W = planes_B1HW.shape
    x = (2 * torch.arange(W).double() + 1) / W - 1
    y = (2 * torch.arange(H).double() + 1) / H - 1
    t = theta_B23.double()[:, :, :, None, None]
    at_x = ((t[:, 0, 0] * x + t[:, 0, 1] * y[:, None] + t[:, 0, 2] + 1) * W - 1) / 2
    at_y = ((t[:, 1, 0] * x + t[:, 1, 1] * y[:, None] + t[:, 1, 2] + 1) * H - 1) / 2
    value = torch.zeros(B, H, W, dtype=torch.float64)
    films_B = torch.arange(B)[:, None, None]
    for right in (0, 1):
        for low in (0, 1):
            column, line = at_x.floor() + right, at_y.floor() + low
            share = (1 - (at_x - column).abs()) * (1 - (at_y - line).abs())
            inside = (column >= 0) & (column < W) & (line >= 0) & (line < H)
            at = (films_B, 0, line.clamp(0, H - 1).long(), column.clamp(0, W - 1).long())
            value += torch.where(inside, share * planes_B1HW.double()[at], 0.0)
    return value[:, None]


def standard(grey_B1HW: Tensor, gain_B: Tensor) -> Tensor:
    return ((grey_B1HW * gain_B.double()[:, None, None, None]).clamp(0, 255) - MEAN) / STD


@pytest.mark.parametrize("side", [1, 7, 33, 70])
def test_matches_the_reference_and_errs_no_more(side: int, device: torch.device) -> None:
    canvas, lesion = films(5, side), masks(3, side)
    rows, lesion_rows = [4, 0, 4, 2], [2, 2, 0, 1]  # rows repeated, not in order
    warp = draw(STRONG, 4, seed=side, epoch=1, step=2)
    image, mask = kernel(canvas, rows, warp, device, lesion, lesion_rows)
    theirs, their_mask = kernel(canvas, rows, warp, device, lesion, lesion_rows, "reference")
    truth = standard(by_hand(canvas[rows], warp.theta_B23), warp.gain_B)
    share = by_hand(lesion[lesion_rows], warp.theta_B23)

    assert image.dtype == mask.dtype == torch.float32
    assert image.shape == mask.shape == (4, 1, side, side)
    error, their_error = (image - truth).abs().max(), (theirs - truth).abs().max()
    assert error <= 2 * their_error + 1e-6
    clear = (share - 0.5).abs() > 1e-4  # on the threshold itself the last bit decides
    assert torch.equal(mask[clear], (share >= 0.5).float()[clear])
    assert torch.equal(mask[clear], their_mask[clear])
    assert ((mask == 0) | (mask == 1)).all()


def test_films_that_are_not_square(device: torch.device) -> None:
    canvas = films(2, 40)[:, :, :19, :37].contiguous()
    warp = draw(STRONG, 2, seed=8, epoch=0, step=0)
    image, _ = kernel(canvas, [1, 0], warp, device)
    truth = standard(by_hand(canvas[[1, 0]], warp.theta_B23), warp.gain_B)
    torch.testing.assert_close(image.double(), truth, atol=1e-4, rtol=0)


def test_identity_is_exact_beside_films_that_are_turned(device: torch.device) -> None:
    canvas, lesion = films(3, 45), masks(3, 45)
    warp = draw(STRONG, 3, seed=0, epoch=0, step=0)
    for k in (0, 2):
        warp.theta_B23[k], warp.gain_B[k] = torch.eye(2, 3), 1.0
    image, mask = kernel(canvas, [2, 1, 0], warp, device, lesion, [0, 1, 2])
    assert torch.equal(image[[0, 2]], (canvas[[2, 0]].float() - MEAN) / STD)
    assert torch.equal(mask[[0, 2]], lesion[[0, 2]].float())


def test_mirror_image_is_exact(device: torch.device) -> None:
    canvas, mirror = films(1, 34), torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]])
    image, _ = kernel(canvas, [0], Warp(mirror, torch.ones(1)), device)
    assert torch.equal(image, (canvas.flip(-1).float() - MEAN) / STD)


def test_grey_is_clipped_at_both_ends(device: torch.device) -> None:
    canvas = torch.full((1, 1, 5, 5), 200, dtype=torch.uint8)
    warp = Warp(torch.eye(2, 3).repeat(3, 1, 1), torch.tensor([2.0, -1.0, 0.5]))
    image, _ = kernel(canvas, [0, 0, 0], warp, device)
    hand = torch.tensor([255.0, 0.0, 100.0]).sub(MEAN).div(STD)
    assert torch.equal(image, hand[:, None, None, None].expand_as(image))


def test_a_warp_wholly_outside_is_black(device: torch.device) -> None:
    far = [[[1.0, 0, 3], [0, 1, 0]], [[1, 0, 0], [0, 1, -1e30]], [[3e9, 0, 3e9], [0, 1, 0]]]
    warp = Warp(torch.tensor(far), torch.ones(3))
    canvas, lesion = films(2, 20) | 128, torch.ones(1, 1, 20, 20, dtype=torch.uint8)
    image, mask = kernel(canvas, [0, 1, 1], warp, device, lesion, [0, 0, 0])
    black = torch.tensor(-MEAN).div(STD)
    assert torch.equal(image, black.expand_as(image))
    assert not mask.any()


def test_half_a_pixel_of_lesion_is_lesion(device: torch.device) -> None:
    """Shifted by half a pixel, an edge has a share of exactly 1/2, which counts."""
    lesion = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    lesion[..., 1] = 1
    shift = torch.tensor([[[1.0, 0, 2 * 0.5 / 4], [0, 1, 0]]])
    _, mask = kernel(films(1, 4), [0], Warp(shift, torch.ones(1)), device, lesion, [0])
    assert mask[0, 0].tolist() == [[1.0, 1.0, 0.0, 0.0]] * 4


def test_without_lesions_they_are_zeros(device: torch.device) -> None:
    canvas, warp = films(2, 9), draw(STRONG, 2, seed=3, epoch=0, step=0)
    image, mask = kernel(canvas, [1, 0], warp, device)
    with_masks, _ = kernel(canvas, [1, 0], warp, device, masks(1, 9), [0, 0])
    assert torch.equal(image, with_masks)
    assert mask.shape == image.shape and mask.dtype == torch.float32 and not mask.any()


def test_empty_batch(device: torch.device) -> None:
    image, mask = kernel(films(2, 9), [], identity(0), device, masks(1, 9), [])
    assert image.shape == mask.shape == (0, 1, 9, 9)


def test_rows_beyond_two_to_the_31st_byte(device: torch.device) -> None:
    """Memory that nobody touches costs nothing; only the last film is written.

    As much lies before the first film, for an offset that wraps around to read zeros from.
    """
    side, row = 128, 2**31 // 128**2
    canvas = torch.empty(2 * row + 1, 1, side, side, dtype=torch.uint8, device=device)[row:]
    canvas[row] = films(1, side)[0]
    image, mask = kernel(canvas, [row], identity(1), device, canvas, [row])
    assert torch.equal(image, (canvas[row:].cpu().float() - MEAN) / STD)
    assert torch.equal(mask, (canvas[row:].cpu() > 0).float())


@pytest.mark.parametrize("row", [-1, 3, 2**40])
def test_a_row_that_does_not_exist_is_nan(row: int, device: torch.device) -> None:
    image, mask = kernel(films(3, 9), [0, row], identity(2), device, masks(3, 9), [row, 0])
    assert image[1].isnan().all() and image[0].isfinite().all()
    assert mask[0].isnan().all() and mask[1].isfinite().all()


def test_same_bits_again(device: torch.device) -> None:
    canvas, warp = films(2, 21), draw(STRONG, 2, seed=6, epoch=0, step=0)
    one, two = (kernel(canvas, [0, 1], warp, device, masks(1, 21), [0, 0]) for _ in range(2))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])


def test_the_batch_does_not_change_a_film(device: torch.device) -> None:
    canvas, warp = films(4, 21), draw(STRONG, 4, seed=7, epoch=0, step=0)
    together, _ = kernel(canvas, [3, 1, 0, 2], warp, device)
    alone, _ = kernel(canvas, [0], warp.columns(slice(2, 3)), device)
    assert torch.equal(together[2:3], alone)


GOOD: dict[str, Any] = {
    "canvas_N1HW": films(2, 6),
    "row_B": torch.tensor([0, 1, 1]),
    "theta_B23": identity(3).theta_B23,
    "gain_B": torch.ones(3),
    "mean": MEAN,
    "std": STD,
    "lesion_M1HW": masks(2, 6),
    "lesion_row_B": torch.tensor([0, 0, 1]),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"canvas_N1HW": films(2, 6).float()}, "canvas uint8"),
        ({"canvas_N1HW": films(2, 6)[:, 0]}, r"canvas uint8 \[\*, 1, H, W\]"),
        ({"canvas_N1HW": films(2, 6).repeat(1, 3, 1, 1)}, "canvas uint8"),
        ({"canvas_N1HW": films(2, 12)[..., ::2, ::2]}, "canvas contiguous"),
        ({"canvas_N1HW": films(0, 6)}, "row asks for 3 of no canvas"),
        ({"lesion_M1HW": masks(0, 6)}, "lesion_row asks for 3 of no lesion"),
        ({"row_B": torch.tensor([0, 1, 1], dtype=torch.int32)}, "row int64"),
        ({"row_B": torch.tensor([0, 1])}, "expected theta"),
        ({"theta_B23": torch.eye(3).repeat(3, 1, 1)}, "expected theta"),
        ({"theta_B23": identity(3).theta_B23.double()}, "theta float32"),
        ({"gain_B": torch.ones(2)}, "expected gain"),
        ({"gain_B": torch.ones(3).half()}, "gain float32"),
        ({"lesion_M1HW": None}, "go together"),
        ({"lesion_row_B": None}, "go together"),
        ({"lesion_M1HW": masks(2, 7)}, "lesions"),
        ({"lesion_M1HW": masks(2, 6).bool()}, "lesion uint8"),
        ({"lesion_row_B": torch.tensor([0, 1])}, "expected lesion_row"),
        ({"std": 0.0}, "std"),
        ({"impl": "cuda"}, "impl 'cuda'"),
        ({"gain_B": torch.ones(3, device="meta")}, "device"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gather_affine_normalise(**(GOOD | change))


def test_what_fits_is_accepted() -> None:
    image, _ = gather_affine_normalise(**GOOD)
    assert image.isfinite().all()


@pytest.mark.parametrize("lesions", [True, False])
def test_operator_is_registered_whole(lesions: bool, device: torch.device) -> None:
    masked = (masks(2, 6).to(device), torch.tensor([0, 1, 1], device=device))
    given = (films(2, 6).to(device), torch.tensor([0, 1, 1], device=device))
    warp = draw(STRONG, 3, seed=0, epoch=0, step=0).on(device)
    kernel(films(1, 6), [0], identity(1), device)  # registers it
    operator = torch.ops.pcamx.gather_affine_normalise.default
    opcheck(operator, (*given, *warp, MEAN, STD, *(masked if lesions else (None, None))))


@pytest.mark.parametrize("impl", ["triton", "reference"])
def test_compiles_into_one_graph_without_gradient(impl: Impl, device: torch.device) -> None:
    given = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in GOOD.items()}
    given["gain_B"].requires_grad_()
    compiled = torch.compile(
        lambda: gather_affine_normalise(**given, impl=impl), fullgraph=True, backend="aot_eager"
    )
    for one, other in zip(compiled(), gather_affine_normalise(**given, impl=impl), strict=True):
        assert torch.equal(one, other) and not one.requires_grad and not other.requires_grad
