"""The bench of the loaders: the canvases of each, and that a wrong one gives no figure."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bench import loader
from bench.lib import loaders, record
from bench.lib.loaders import FilmSet, Loader, Read, read_opencv, read_pillow, torch_dataloader
from bench.lib.stores import JPEG, PNG, Stores, open_stores
from pcamx.data.canvas.provider import Canvases, held
from pcamx.data.store import Film, Store
from pcamx.errors import PcamxError
from pcamx.types import IntArray

CPU = torch.device("cpu")
FILMS, SIZE, CANVAS, BATCH = 9, 48, 32, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("loader") / "films"
    open_stores(made, FILMS, SIZE)
    return made


@pytest.fixture(scope="module")
def stores(folder: Path) -> Stores:
    return open_stores(folder, FILMS, SIZE)


def in_process(
    store: Store, side: int, read: Read, *, workers: int, device: torch.device
) -> Canvases:
    """`torch_dataloader` without its processes."""
    films = FilmSet(store.root, store.split("train"), side, read)

    def canvases(batches: Sequence[IntArray]) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in batches:
            yield torch.stack([films[i] for i in batch]), torch.arange(len(batch))

    return canvases


@pytest.mark.parametrize("read", [read_pillow, read_opencv])
def test_a_canvas_by_hand(tmp_path: Path, read: Read) -> None:
    grey_HW = np.zeros((4, 8), np.uint8)
    grey_HW[:, :4], grey_HW[:, 4:] = 100, 200
    Image.fromarray(grey_HW).save(tmp_path / "film.png")
    film = Film("film.png", 0, "p", "s", "", "train", 8, 4, 255, "")
    # 8 x 4 on a canvas of 8: no resize, two rows of black above and below.
    want_HW = np.zeros((8, 8), np.uint8)
    want_HW[2:6] = grey_HW
    got_1HW = FilmSet(tmp_path, [film], 8, read)[0]
    np.testing.assert_array_equal(got_1HW.numpy(), want_HW[None])


def test_a_dataloader_gives_the_films_of_each_epoch_in_its_order(stores: Stores) -> None:
    store = stores.found[PNG]
    canvases = torch_dataloader(store, CANVAS, read_pillow, workers=1, device=CPU)
    films = FilmSet(store.root, store.split("train"), CANVAS, read_pillow)
    for order in ([[3, 1], [0, 2]], [[8, 4]]):
        given = list(canvases([np.array(batch) for batch in order]))
        assert len(given) == len(order)
        for batch, (canvas_B1HW, row_B) in zip(order, given, strict=True):
            assert row_B.tolist() == [0, 1]
            assert torch.equal(canvas_B1HW, torch.stack([films[i] for i in batch]))


def test_every_loader_is_checked_and_timed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "EPOCHS", 2)
    monkeypatch.setattr(loaders, "torch_dataloader", in_process)
    if torch.cuda.is_available():
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    options = argparse.Namespace(
        films=folder,
        count=FILMS,
        size=SIZE,
        canvas=CANVAS,
        batch=BATCH,
        json=tmp_path / "a.json",
        markdown=tmp_path / "a.md",
    )
    loader.run(options)
    found = record.read_json(tmp_path / "a.json")
    dali = ["DALI, PNG", "DALI, JPEG", "DALI, HTJ2K"]
    readers = [
        f"DataLoader, {name}, {kind}" for name in ("Pillow", "OpenCV") for kind in (PNG, JPEG)
    ]
    names = ["resident", "raw memmap", *dali, *readers]
    sizes = f"{FILMS} films of {SIZE} px > {CANVAS} px"
    errors = f"canvases beside DALI's on PNG, {sizes}"
    for name in names:
        exact = not name.startswith("DataLoader") and JPEG not in name
        error = found.find(errors, name, "mean error")
        assert error == 0 if exact else error < loaders.ALIKE
        for what in ("canvases", "batches"):
            case = f"{what}, {sizes}, batches of {BATCH}"
            ms = found.find(case, name, "epoch p50")
            # Two whole batches of 4 in 9 films.
            assert found.find(case, name, "rate") == pytest.approx(8 * 1000 / ms)
            ratios = {r.ratio_to: r.value for r in found.rows if r.case == case and r.ratio_to}
            if name != "resident":
                own = found.find(case, "resident", "epoch p50")
                assert ratios[name] == pytest.approx(ms / own)
    for name in dali:
        assert found.find(f"first decode, {sizes}", name, "time") > 0
    assert "## batches, 9 films" in (tmp_path / "a.md").read_text()


def _brighter(canvas_N1HW: Tensor) -> Tensor:
    return torch.where(canvas_N1HW < 255, canvas_N1HW + 1, canvas_N1HW)


@pytest.mark.parametrize(
    ("allowed", "fault"),
    [
        (0.0, lambda canvas: torch.cat([canvas[:-1], _brighter(canvas[-1:])])),
        (loaders.ALIKE, lambda canvas: canvas.flip(0)),
        (loaders.ALIKE, lambda canvas: canvas.roll(1, -1)),
        (loaders.ALIKE, lambda canvas: canvas.float()),
        (loaders.ALIKE, lambda canvas: canvas[..., :-1]),
    ],
    ids=["a grey level", "order", "a pixel to the right", "float", "cut"],
)
def test_wrong_canvases_are_refused(
    stores: Stores, allowed: float, fault: Callable[[Tensor], Tensor]
) -> None:
    store = stores.found[PNG]
    films = FilmSet(store.root, store.split("train"), CANVAS, read_pillow)
    truth_N1HW = torch.stack([films[i] for i in range(FILMS)])
    order = [np.array([2, 8, 1, 0]), np.array([3, 5, 7, 6])]
    loader.check("c", Loader("right", held(truth_N1HW, CPU), allowed), truth_N1HW, order)
    wrong = Loader("wrong", held(fault(truth_N1HW), CPU), allowed)
    with pytest.raises(PcamxError, match="wrong: .*no figure"):
        loader.check("c", wrong, truth_N1HW, order)


def test_films_of_another_size_are_refused(folder: Path) -> None:
    with pytest.raises(PcamxError, match="9 films of 48 px, asked for 9 of 64; name another"):
        open_stores(folder, FILMS, 64)


@pytest.mark.parametrize("batch", [1, 5])
def test_the_films_must_fill_two_batches(batch: int) -> None:
    with pytest.raises(PcamxError, match=f"9 films, batches of {batch}: expected two films"):
        loader.run(argparse.Namespace(count=FILMS, batch=batch))


def test_without_imagecodecs_htj2k_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    there = tmp_path / "films"
    there.mkdir()
    (there / "phantom").symlink_to(folder / "phantom")
    found = open_stores(there, FILMS, SIZE)
    assert list(found.found) == [PNG, JPEG]
    assert "pcamx[htj2k]" in found.missing["HTJ2K"]
