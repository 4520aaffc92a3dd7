"""Marked training films that are watched while it trains, whose marks nothing learns from."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import torch
from PIL import Image, ImageColor
from torch import Tensor

from pcamx import config as configs
from pcamx.catalogue import DECODER, POSITIVE_CAM
from pcamx.data.canvas.provider import stream
from pcamx.data.feed.batches import eval_batches
from pcamx.data.feed.order import choose_marked
from pcamx.data.store import Film, Store, read_store
from pcamx.errors import PcamxError
from pcamx.metrics import minmax
from pcamx.model.maps import explain
from pcamx.report.figures.film_figure import OUTLINE, overlay
from pcamx.run.folder import RunFolder
from pcamx.run.weights import network_of
from pcamx.training import preflight
from pcamx.training.held_back import held_back
from pcamx.types import Batch

CPU = torch.device("cpu")


def test_they_are_others_than_those_learned_from(write_config: Any, tmp_path: Path) -> None:
    config = configs.load(write_config(tmp_path, {"data.watched": 3}))
    store = read_store(Path(config.data.store))
    watched, train = held_back(config, store), store.split("train")
    learned = choose_marked(train, config.data.marked, seed=config.run.seed)
    assert len(watched) == 3 and len(learned) == 6 and not set(watched) & set(learned)
    assert all(train[i].mark for i in watched)
    assert held_back(config, store) == watched


def test_none_is_left(write_config: Any, tmp_path: Path) -> None:
    path = write_config(tmp_path, {"data.watched": 3, "data.marked": 100})
    config = configs.load(path)
    with pytest.raises(PcamxError, match=r"data\.watched: every marked training film is learned"):
        preflight.check(config, read_store(Path(config.data.store)), [1], world=1, resume=False)


def test_zero_3_is_refused(write_config: Any, tmp_path: Path) -> None:
    path = write_config(tmp_path, {"data.watched": 3, "runtime.zero_stage": 3})
    with pytest.raises(PcamxError, match=r"data\.watched: a map needs the classifier's whole"):
        configs.load(path)


def test_what_two_ranks_see_is_what_their_weights_show(tmp_path: Path, write_config: Any) -> None:
    """Against a plain loop over the films with the finished weights; seven films on two ranks."""
    changes = {"data.watched": 7, "runtime.precision": "fp32", "stages.stage3.epochs": 1}
    changes["stages.stage3.init_from"] = "scratch"
    changes["deepspeed.tensorboard.enabled"] = True
    path = write_config(tmp_path, changes)
    done = processes.train(2, path, 3).ok()
    (line,) = [
        found
        for text in (tmp_path / "run/metrics.jsonl").read_text().splitlines()
        if (found := json.loads(text))["kind"] == "watched"
    ]
    run = RunFolder(tmp_path / "run")
    config = run.read_config()
    store = read_store(Path(config.data.store))
    weights = run.load_weights(3)
    network = network_of(weights, run.weights(3), CPU, config.attention, "reference")
    assert len(held_back(config, store)) == 7
    films = [store.split("train")[i] for i in held_back(config, store)]
    canvases = stream(config.data, store, films, CPU)
    (batch,) = eval_batches(store, films, canvases, batch_size=8, device=CPU, impl="reference")
    _, maps = explain(network, batch.image_B1HW, [POSITIVE_CAM, DECODER])
    lesion_BHW = batch.lesion_B1HW[:, 0] >= 0.5
    for kind in (POSITIVE_CAM, DECODER):
        peak_B = maps[kind.key].flatten(1).argmax(1)
        hit = lesion_BHW.flatten(1).gather(1, peak_B[:, None]).double().mean()
        scaled_BHW = minmax(maps[kind.key])
        best = 0.0
        for threshold in torch.arange(1, 20, dtype=torch.float64) / 20:
            cut_BHW = scaled_BHW >= threshold
            both, any_ = cut_BHW & lesion_BHW, cut_BHW | lesion_BHW
            iou_B = both.sum((1, 2)).double() / any_.sum((1, 2))
            best = max(best, float(iou_B.mean()))
        assert line[f"{kind.key}_pointing"] == pytest.approx(float(hit), abs=1e-6)
        assert line[f"{kind.key}_miou"] == pytest.approx(best, abs=1e-6)
    _check_pictures(run.stage(3) / "tensorboard", films, batch, maps, store)
    shown = f"watched positive CAM pointing {line['positive_cam_pointing']:.3f} mIoU"
    assert shown in done.text


def _check_pictures(
    folder: Path, films: list[Film], batch: Batch, maps: dict[str, Tensor], store: Store
) -> None:
    """Of rank 0's first four films: as they are, then under each map with the mark's outline."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    first = [0, 2, 4, 6]
    assert events.Tags()["images"] == [f"watched/{films[i].path}" for i in first]
    for i in first:
        (event,) = events.Images(f"watched/{films[i].path}")
        with Image.open(BytesIO(event.encoded_image_string)) as picture:
            drawn_HW3 = np.asarray(picture.convert("RGB"))
        grey_HW = (batch.image_B1HW[i, 0] * store.std + store.mean).round().clamp(0, 255).numpy()
        film_HW3, *under = np.split(drawn_HW3, 3, axis=1)
        assert np.abs(film_HW3 - grey_HW[..., None]).max() <= 1
        lesion_HW = batch.lesion_B1HW[i, 0].numpy() >= 0.5
        for kind, tile_HW3 in zip((POSITIVE_CAM, DECODER), under, strict=True):
            outline_HW = (tile_HW3 == ImageColor.getrgb(OUTLINE)).all(axis=2)
            assert outline_HW.any() and not (outline_HW & ~lesion_HW).any()
            scaled_HW = minmax(maps[kind.key])[i].numpy()
            wanted_HW3 = overlay(grey_HW.astype(np.uint8), scaled_HW).astype(int)
            assert np.abs(tile_HW3 - wanted_HW3)[~outline_HW].max() <= 2
