"""The same global batches, whichever feed, number of ranks or step to start from."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pcamx.catalogue import classifiers
from pcamx.config import Config, Data, Objective, Run, Runtime, Stage
from pcamx.data.canvas.lesion_mask import lesion_canvas
from pcamx.data.canvas.provider import Decoded, stream
from pcamx.data.feed.batches import Feed, eval_batches, open_feed
from pcamx.data.store import Film, Store
from pcamx.errors import PcamxError
from pcamx.types import Batch

CPU = torch.device("cpu")
CANVAS = 48
FILMS = 21


def make_store(folder: Path) -> Store:
    """Odd films are abnormal; every other one of those is marked; the last one is deep."""
    films = []
    (folder / "marks").mkdir()
    rng = np.random.default_rng(0)
    for i in range(FILMS):
        w, h = 60 + i, 40 + 3 * i
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8))
        grey = np.asarray(coarse.resize((w, h), Image.Resampling.BICUBIC))
        deep = i == FILMS - 1
        Image.fromarray(grey.astype(np.uint16) * 16 if deep else grey).save(folder / f"{i}.png")
        mark = f"marks/{i}.png" if i % 4 == 1 else ""
        if mark:
            mask = Image.new("L", (w, h))
            mask.paste(255, (w // 3, h // 3, w // 2, h // 2))
            mask.save(folder / mark)
        white = 4095 if deep else 255
        part = ("HAND", "WRIST")[i % 3 == 0]
        films.append(Film(f"{i}.png", i % 2, "p", f"s{i}", part, "train", w, h, white, mark))
    films.append(dataclasses.replace(films[0], study="v", split="valid"))
    return Store(folder, folder, tuple(films), 60.0, 40.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("store"))


def config(
    feed: str = "stream", batch_size: int = 6, per_batch: int = 2, marked: int = 3
) -> Config:
    one = Stage(epochs=1)
    return Config(
        run=Run(folder="run", seed=4),
        data=Data(store="store", canvas=CANVAS, feed=feed, marked=marked, threads=2),  # type: ignore[arg-type]
        stages={entry.section: one for entry in classifiers()},
        runtime=Runtime(batch_size=batch_size),
        objective=Objective(marked_per_batch=per_batch),
    )


def opened(
    config: Config,
    store: Store,
    stage: int,
    rank: int = 0,
    world: int = 1,
    device: torch.device = CPU,
) -> Feed:
    decoded = Decoded(config.data, store, device)
    return open_feed(config, decoded, stage=stage, rank=rank, world=world)


def feed(store: Store, kind: str, stage: int, rank: int = 0, world: int = 1) -> Feed:
    return opened(config(kind), store, stage, rank, world)


def same(a: Iterable[Batch], b: Iterable[Batch]) -> bool:
    return all(
        torch.equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)
    )


@pytest.mark.parametrize("stage", [1, 3])
def test_same_batches_resident_streamed_resumed_and_shared(store: Store, stage: int) -> None:
    stream, resident = feed(store, "stream", stage), feed(store, "resident", stage)
    whole = list(resident.epoch(1))
    assert len(whole) == resident.steps_per_epoch == stream.steps_per_epoch
    assert same(whole, stream.epoch(1))
    assert same(whole[2:], stream.epoch(1, start_step=2))
    assert same(whole[1:], resident.epoch(1, start_step=1))
    assert not same(whole, resident.epoch(0))
    ranks = [list(feed(store, "stream", stage, rank, 2).epoch(1)) for rank in (0, 1)]
    joined = [Batch(*map(torch.cat, zip(*pair, strict=True))) for pair in zip(*ranks, strict=True)]
    assert same(whole, joined)


def with_impl(config: Config, impl: Any) -> Config:
    return dataclasses.replace(config, runtime=dataclasses.replace(config.runtime, impl=impl))


@pytest.mark.parametrize("kind", ["stream", "resident"])
def test_batches_by_the_kernel(store: Store, kind: str) -> None:
    """Its last bits differ from the reference's, which shows who ran."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # interpreted
    ours, reference = (
        next(
            opened(
                with_impl(config(kind), impl),
                store,
                3,
                device=device,
            ).epoch(0)
        )
        for impl in ("triton", "reference")
    )
    torch.testing.assert_close(ours.image_B1HW, reference.image_B1HW, rtol=0, atol=1e-3)
    assert not torch.equal(ours.image_B1HW, reference.image_B1HW)
    assert (ours.lesion_B1HW != reference.lesion_B1HW).float().mean() < 1e-3
    assert all(torch.equal(a, b) for a, b in zip(ours[1::2], reference[1::2], strict=True))


def test_what_a_batch_holds(store: Store) -> None:
    ready = feed(store, "resident", 1)
    assert ready.images == FILMS and ready.steps_per_epoch == FILMS // 6
    labels = []
    for batch in ready.epoch(0):
        assert batch.image_B1HW.shape == batch.lesion_B1HW.shape == (6, 1, CANVAS, CANVAS)
        assert batch.image_B1HW.dtype == batch.lesion_B1HW.dtype == torch.float32
        assert batch.label_B.dtype == torch.int64 and batch.marked_B.dtype == torch.bool
        assert not batch.marked_B.any() and not batch.lesion_B1HW.any()
        low, high = -60 / 40, (255 - 60) / 40
        assert low <= batch.image_B1HW.min() and batch.image_B1HW.max() <= high
        labels += batch.label_B.tolist()
    assert 7 <= sum(labels) <= 10  # of 18 films out of 11 normal and 10 abnormal


def test_stage_3_shows_the_drawn_lesions_and_no_other(store: Store) -> None:
    ready = feed(store, "resident", 3)
    assert len(ready.marked_films) == 3
    assert all(film.mark and film.label == 1 for film in ready.marked_films)
    assert ready.steps_per_epoch == FILMS // 4
    for batch in ready.epoch(0):
        assert 2 <= batch.marked_B.sum() <= 5  # two slots; the three may be ordinary films as well
        assert (batch.label_B[batch.marked_B] == 1).all()
        area = batch.lesion_B1HW.sum((1, 2, 3))
        assert torch.equal(area > 0, batch.marked_B)


def test_marks_beyond_the_drawn_ones_are_never_read(store: Store, tmp_path: Path) -> None:
    drawn = {film.mark for film in feed(store, "stream", 3).marked_films}
    others = [film.mark for film in store.films if film.mark and film.mark not in drawn]
    assert others
    spoilt = tuple(
        dataclasses.replace(film, mark="marks/absent.png") if film.mark in others else film
        for film in store.films
    )
    assert next(feed(dataclasses.replace(store, films=spoilt), "stream", 3).epoch(0))
    absent = tuple(dataclasses.replace(f, mark=f.mark and "marks/absent.png") for f in store.films)
    bare = dataclasses.replace(store, films=absent)
    assert next(feed(bare, "stream", 2).epoch(0))  # stages 1 and 2 look at none
    with pytest.raises(PcamxError, match=r"absent\.png"):
        feed(bare, "stream", 3)


def test_more_marks_asked_for_than_there_are(store: Store) -> None:
    ready = opened(config(marked=1000), store, 3)
    assert len(ready.marked_films) == sum(bool(film.mark) for film in store.split("train"))


def test_mistakes_are_named(store: Store) -> None:
    with pytest.raises(PcamxError, match=r"runtime\.batch_size: 6 .* 4 ranks; .* multiple of 4"):
        opened(config(), store, 1, world=4)
    with pytest.raises(PcamxError, match=r"runtime\.batch_size: 40 .* 21 training films"):
        opened(config(batch_size=40), store, 1)
    with pytest.raises(PcamxError, match=r"data\.marked: 0"):
        opened(config(marked=0), store, 3)
    assert opened(config(marked=0), store, 1).marked_films == ()
    bare = tuple(dataclasses.replace(film, mark="") for film in store.films)
    with pytest.raises(PcamxError, match=r"stage 3 .* pcamx prepare with --marks"):
        opened(config(), dataclasses.replace(store, films=bare), 3)


def test_eval_batches_are_in_order_and_plain(store: Store) -> None:
    films = store.split("train")
    canvases = stream(config().data, store, films, CPU)
    batches = list(eval_batches(store, films, canvases, batch_size=8, device=CPU))
    assert [len(batch.label_B) for batch in batches] == [8, 8, 5]
    kept = Decoded(config("resident").data, store, CPU).split("train")
    assert same(batches, eval_batches(store, films, kept, batch_size=8, device=CPU))
    rows = [9, 3, 20]
    (some,) = eval_batches(store, films, kept, rows=rows, batch_size=8, device=CPU)
    for row, image in zip(rows, some.image_B1HW, strict=True):
        assert torch.equal(image, batches[row // 8].image_B1HW[row % 8])
    whole = Batch(*map(torch.cat, zip(*batches, strict=True)))
    assert whole.label_B.tolist() == [film.label for film in films]
    assert whole.marked_B.tolist() == [bool(film.mark) for film in films]
    for film, lesion in zip(films, whole.lesion_B1HW, strict=True):
        blank = torch.zeros(1, CANVAS, CANVAS)
        mark = store.folder / film.mark
        assert torch.equal(
            lesion, lesion_canvas(mark, film, CANVAS).float() if film.mark else blank
        )
    grey = whole.image_B1HW * 40 + 60
    assert (grey - grey.round()).abs().max() < 1e-3 and grey.min() > -1e-3
    for bare, batch in zip(
        eval_batches(store, films, kept, batch_size=8, device=CPU, lesions=False),
        batches,
        strict=True,
    ):
        assert torch.equal(bare.image_B1HW, batch.image_B1HW) and not bare.marked_B.any()
        assert set(bare.lesion_B1HW.stride()) == {0}  # one element, however many films
