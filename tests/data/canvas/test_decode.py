"""DALI's canvases against Pillow's, for every kind of file that a film may be."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from film_files import CPU, film, make_store, texture
from PIL import Image, ImageOps

from pcamx.config import Augment
from pcamx.data.canvas import decode as decode_module
from pcamx.data.canvas.decode import decode_batches
from pcamx.data.canvas.lesion_mask import lesion_canvas
from pcamx.data.canvas.placement import fit
from pcamx.data.feed.augment import draw
from pcamx.data.store import Store
from pcamx.errors import PcamxError
from pcamx.ops import gather_affine_normalise


def decode(
    store: Store, batches: Sequence[Sequence[int]], canvas: int = 64, threads: int = 1
) -> list[torch.Tensor]:
    return list(
        decode_batches(store.root, store.films, batches, canvas, device=CPU, threads=threads)
    )


def expected(path: Path, canvas: int) -> npt.NDArray[np.int64]:
    """The same by Pillow: upright, grey, reduced with a triangle filter, centred on black."""
    with Image.open(path) as image:
        grey = ImageOps.exif_transpose(image).convert("L")
    place = fit(*grey.size, canvas)
    sheet = Image.new("L", (canvas, canvas))
    size = (place.width, place.height)
    sheet.paste(grey.resize(size, Image.Resampling.BILINEAR), (place.left, place.top))
    return np.asarray(sheet).astype(int)


def assert_decoded(store: Store, tolerance: int = 3) -> None:
    (canvases,) = decode(store, [range(len(store.films))])
    assert canvases.dtype == torch.uint8 and canvases.is_contiguous()
    for one, canvas in zip(store.films, canvases, strict=True):
        difference = np.abs(canvas[0].numpy() - expected(store.root / one.path, 64))
        assert difference.max() <= tolerance and difference.mean() < 0.5, one.path


def test_kinds_of_files(tmp_path: Path) -> None:
    grey = Image.fromarray(texture(150, 100))
    colour = Image.merge("RGB", [grey, Image.fromarray(texture(150, 100, 2)), grey])
    clear = colour.copy()
    clear.putalpha(Image.fromarray(texture(150, 100, 3)))
    grey.save(tmp_path / "grey.png")
    grey.save(tmp_path / "grey.jpg", quality=95)
    grey.save(tmp_path / "progressive.jpg", progressive=True)
    colour.save(tmp_path / "colour.png")
    colour.save(tmp_path / "colour.jpg", quality=95)
    colour.quantize(200).save(tmp_path / "palette.png")
    clear.save(tmp_path / "alpha.png")
    grey.convert("LA").save(tmp_path / "grey_alpha.png")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 8
    # Not reduced: at hard edges the two libraries' filters differ by more than the tolerance.
    Image.fromarray(texture(64, 48) > 128).save(tmp_path / "one_bit.png")
    films = [film(name, 150, 100) for name in names]
    assert_decoded(make_store(tmp_path, [*films, film("one_bit.png", 64, 48)]))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_exif_orientation(tmp_path: Path, suffix: str) -> None:
    films = []
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        name = f"{orientation}.{suffix}"
        Image.fromarray(texture(150, 100)).save(tmp_path / name, exif=exif)
        films.append(film(name, *((100, 150) if orientation >= 5 else (150, 100))))
    assert_decoded(make_store(tmp_path, films))


def test_sizes_up_and_down_and_extreme(tmp_path: Path) -> None:
    sizes = [(64, 64), (65, 63), (500, 333), (333, 500), (40, 30), (300, 2), (7, 900)]
    for w, h in sizes:
        Image.fromarray(texture(w, h)).save(tmp_path / f"{w}_{h}.png")
    assert_decoded(make_store(tmp_path, [film(f"{w}_{h}.png", w, h) for w, h in sizes]))


def test_a_film_of_the_canvas_size_is_kept_to_the_bit(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "film with a blank é.png")
    (canvas,) = decode(make_store(tmp_path, [film("film with a blank é.png", 64, 64)]), [[0]])
    assert np.array_equal(canvas[0, 0].numpy(), noise)


def test_deep_and_8_bit_films_in_one_batch(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 64), dtype=np.uint8)
    deep12 = rng.integers(0, 4096, (64, 64)).astype(np.uint16)
    deep16 = rng.integers(0, 65536, (64, 64)).astype(np.uint16)
    for name, array in (("8", noise), ("12", deep12), ("16", deep16)):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    films = [film("8.png", 64, 64), film("12.png", 64, 64, 4095), film("16.png", 64, 64, 65535)]
    (canvases,) = decode(make_store(tmp_path, films), [[0, 1, 2]])
    assert np.array_equal(canvases[0, 0].numpy(), noise)
    for canvas, deep, white in ((canvases[1], deep12, 4095), (canvases[2], deep16, 65535)):
        assert np.abs(canvas[0].numpy() - deep * (255 / white)).max() <= 0.51


def test_batches_differ_in_length_and_are_safe_to_keep(tmp_path: Path) -> None:
    for i in range(7):
        Image.fromarray(texture(80, 60, i)).save(tmp_path / f"{i}.png")
    store = make_store(tmp_path, [film(f"{i}.png", 80, 60) for i in range(7)])
    batches = [[0, 1, 2], [3, 4, 5], [6], [2, 2, 0]]
    first, second = decode(store, batches), decode(store, batches, threads=2)
    assert [len(batch) for batch in first] == [3, 3, 1, 3]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    # All are still held here, so none may share the pipeline's memory; order is as asked for.
    (alone,) = decode(store, [range(7)])
    for batch, canvases in zip(batches, first, strict=True):
        assert torch.equal(canvases, alone[list(batch)])
    assert decode(store, []) == []


def test_closed_early_it_lets_go(tmp_path: Path) -> None:
    Image.fromarray(texture(80, 60)).save(tmp_path / "0.png")
    store = make_store(tmp_path, [film("0.png", 80, 60)])
    for taken in (0, 1, 3):
        batches = decode_batches(store.root, store.films, [[0]] * 9, 64, device=CPU, threads=2)
        kept = [next(batches) for _ in range(taken)]
        batches.close()  # type: ignore[attr-defined]
        assert all(canvas.float().mean() > 50 for canvas in kept)  # outlives the pipeline


def damage(path: Path, kind: str) -> None:
    if kind == "gone":
        path.unlink()
    else:
        data = path.read_bytes()
        keep = {"cut": data[: len(data) // 2], "empty": b"", "text": b"not an image at all"}
        path.write_bytes(keep[kind])


@pytest.mark.parametrize("kind", ["gone", "cut", "empty", "text"])
def test_a_film_spoilt_after_prepare_is_named(tmp_path: Path, kind: str) -> None:
    for i in range(6):
        Image.fromarray(texture(80, 60, i)).save(tmp_path / f"{i}.png")
    store = make_store(tmp_path, [film(f"{i}.png", 80, 60) for i in range(6)])
    damage(tmp_path / "4.png", kind)
    with pytest.raises(
        PcamxError, match=r"4\.png: cannot be decoded \(.+\).*pcamx prepare"
    ) as error:
        decode(store, [[0, 1, 2], [3, 4, 5]])
    assert "\n" not in str(error.value)


def test_film_and_lesion_stay_together(tmp_path: Path) -> None:
    """A bright blob and its mask have one centroid after decoding and a strong warp."""
    films = []
    for i, (w, h) in enumerate([(900, 500), (333, 610), (128, 100), (511, 511)]):
        y, x = np.mgrid[0:h, 0:w]
        blob = (x - 0.6 * w) ** 2 + (y - 0.35 * h) ** 2 <= (0.12 * min(w, h)) ** 2
        mask = Image.fromarray((blob * 255).astype(np.uint8))
        mask.save(tmp_path / f"{i}.png")
        films.append(film(f"{i}.png", w, h, mark=f"{i}.png"))
    store = make_store(tmp_path, films)
    (canvas,) = decode(store, [range(4)], canvas=128)
    lesion = torch.stack([lesion_canvas(tmp_path / one.mark, one, 128) for one in films])
    assert_same_centre(canvas.float(), lesion.float())
    rows = torch.arange(4)
    strong = Augment(flip=True, rotate=90.0, scale=0.3, shift=0.05, brightness=0.0)
    for step in range(4):
        warp = draw(strong, 4, seed=0, epoch=0, step=step)
        warped = gather_affine_normalise(
            canvas, rows, *warp, 0.0, 255.0, lesion_M1HW=lesion, lesion_row_B=rows
        )
        assert_same_centre(*warped)


def assert_same_centre(film_B1HW: torch.Tensor, lesion_B1HW: torch.Tensor) -> None:
    a, b = centre(film_B1HW), centre(lesion_B1HW)
    assert (a - b).abs().max() < 0.5


def centre(weight_B1HW: torch.Tensor) -> torch.Tensor:
    at = torch.arange(weight_B1HW.shape[-1], dtype=torch.float64)
    weight = weight_B1HW[:, 0].double()
    moments = [(weight.sum(axis) * at).sum(1) for axis in (1, 2)]
    return torch.stack(moments, 1) / weight.sum((1, 2))[:, None]


def test_epochs_share_a_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same canvases as by a pipeline each; a larger batch, or one left early, needs another."""
    listed = []
    for i in range(5):
        Image.fromarray(texture(40 + i, 30, seed=i)).save(tmp_path / f"{i}.png")
        listed.append(film(f"{i}.png", 40 + i, 30))
    built: list[int] = []
    original = decode_module._pipeline

    def counted(*given: Any) -> Any:
        built.append(1)
        return original(*given)

    store = make_store(tmp_path, listed)
    epochs = [[[0, 1, 2], [3, 4]], [[4, 2, 0]], [[1], [3], [0], [2], [4], [1, 1]]]
    expected = [decode(store, batches) for batches in epochs]
    monkeypatch.setattr(decode_module, "_pipeline", counted)
    decoder = decode_module.Decoder(store.root, store.films, 64, device=CPU, threads=1)
    for batches, canvases in zip(epochs, expected, strict=True):
        found = [canvas.clone() for canvas in decoder.batches(batches)]
        assert all(torch.equal(a, b) for a, b in zip(found, canvases, strict=True))
    assert len(built) == 1
    early = decoder.batches([[0], [1], [2], [3]])
    assert torch.equal(next(early), decode(store, [[0]])[0])  # meanwhile another
    early.close()  # type: ignore[attr-defined]
    del built[:]
    (again,) = decoder.batches([[0, 1, 2, 3, 4]])
    assert torch.equal(again[:3], expected[0][0]) and len(built) == 1
