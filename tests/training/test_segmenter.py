"""The baseline of stage 3: its network and loss, its batches, its runs, and what stops it.

Real runs: the 32 training films make 4 steps an epoch, 6 of them are marked and learned from.
"""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import processes
import pytest
import stores
import torch
from random_runs import random_run
from run_files import assert_same_bits
from small_stages import films, settings

from pcamx import config as configs
from pcamx.catalogue import SEGMENTER as SEGMENTER_ENTRY
from pcamx.catalogue import StageId
from pcamx.config import ConfigError, Objective
from pcamx.data.canvas.provider import Decoded
from pcamx.data.feed.batches import open_feed
from pcamx.data.feed.order import choose_marked, marked_order
from pcamx.data.store import read_store
from pcamx.errors import PcamxError
from pcamx.evaluation.evaluate import evaluate
from pcamx.model.network import Network
from pcamx.run.weights import load_weights
from pcamx.training import preflight, stages
from pcamx.training.stages import SegmenterStage, build_stage
from pcamx.types import Batch

CPU = torch.device("cpu")

SEGMENTER = SEGMENTER_ENTRY.key


def made(objective: Objective | None = None) -> SegmenterStage:
    torch.manual_seed(0)
    stage = build_stage(SEGMENTER, settings(objective=objective), images=40)
    assert isinstance(stage, SegmenterStage)
    return stage.train()


def test_it_is_stage_3_without_the_classifier() -> None:
    network = Network(settings(), decoder=True)
    ours = {name: p.shape for name, p in made().network.named_parameters()}
    theirs = {name: p.shape for name, p in network.named_parameters()}
    assert ours == {name: p for name, p in theirs.items() if not name.startswith("head.")}


def test_its_loss_is_that_of_the_marks_alone() -> None:
    stage, batch = made(Objective(lesion_loss="mse", lesion_share=0.5)), films(8, marked_every=2)
    output = stage(batch)
    answer = stage.network(batch.image_B1HW)[1::2, 0].double().sigmoid()
    lesion = batch.lesion_B1HW[1::2, 0].double()
    error = (answer - lesion).square()
    inside = (error * lesion).sum((1, 2)) / lesion.sum((1, 2))
    outside = (error * (1 - lesion)).sum((1, 2)) / (1 - lesion).sum((1, 2))
    expected = float((inside + outside).detach().mean() / 2)
    assert float(output.loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert output.logits_BC is None
    assert set(output.telemetry) == {"loss", "l3", "lesion_answer", "other_answer"}
    swapped = stage(batch._replace(label_B=1 - batch.label_B)).loss
    assert torch.equal(swapped, output.loss)
    output.loss.backward()
    for name, parameter in stage.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_its_answers_are_those_of_all_ranks_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: 1,000 pixels of lesion that are found on one rank, 10 that are missed on another."""
    monkeypatch.setattr(stages, "rank_count", lambda: 2)
    image, marked = torch.zeros(1, 1, 50, 50), torch.ones(1, dtype=torch.bool)
    answers, pixels = [], []
    for count, answer in ((1000, 1.0), (10, 0.0)):
        lesion = (torch.arange(2500) < count).float().view(1, 1, 50, 50)
        logit = torch.where(lesion > 0, (answer - 0.5) * 1e3, torch.tensor(-1e3))
        own = stages._answers(logit, Batch(image, marked.long(), lesion, marked))
        answers.append(own[0])
        pixels.append(own[1])
    total = [sum(counts) for counts in zip(*pixels, strict=True)]
    told = [stages._means(own, total) for own in answers]  # type: ignore[arg-type]
    mean = {name: float(told[0][name] + told[1][name]) / 2 for name in told[0]}
    assert mean == pytest.approx({"lesion_answer": 1000 / 1010, "other_answer": 0})


def test_its_batches_are_shuffled_rounds_of_the_marked_films() -> None:
    epochs = [marked_order([3, 5, 8], 4, 4, seed=1, epoch=e) for e in (0, 1)]
    assert all(order.shape == (4, 4) for order in epochs)
    rounds = torch.tensor([*epochs[0].ravel(), *epochs[1].ravel()])[:30].reshape(10, 3)
    assert rounds.sort(1).values.tolist() == [[3, 5, 8]] * 10
    assert len({tuple(r) for r in rounds.tolist()}) > 1


def test_its_feed_shows_marked_films_and_their_lesions(tmp_path: Path, write_config: Any) -> None:
    config = configs.load(write_config(tmp_path, {"stages.segmenter": {"epochs": 1}}))
    store = read_store(Path(config.data.store))
    decoded = Decoded(config.data, store, CPU)
    whole = list(open_feed(config, decoded, stage=SEGMENTER).epoch(1))
    assert [len(batch.label_B) for batch in whole] == [8] * 4
    for batch in whole:
        assert batch.marked_B.all() and batch.label_B.all()
    # Small lesions may lie under a pixel of this canvas, or leave it: most do not.
    seen = torch.cat([batch.lesion_B1HW.flatten(1).any(1) for batch in whole])
    assert seen.float().mean() > 0.5
    # Two ranks, from the third step on: the same batches.
    parts = [
        list(open_feed(config, decoded, stage=SEGMENTER, rank=r, world=2).epoch(1, 2))
        for r in (0, 1)
    ]
    for batch, *shares in zip(whole[2:], *parts, strict=True):
        for tensor, *pieces in zip(batch, *shares, strict=True):
            assert torch.equal(tensor, torch.cat(pieces))


def test_every_marked_film_takes_its_turn(tmp_path: Path, write_config: Any) -> None:
    config = configs.load(write_config(tmp_path))
    train = read_store(Path(config.data.store)).split("train")
    marked = choose_marked(train, config.data.marked, seed=0)
    order = marked_order(marked, 4, 8, seed=0, epoch=0)
    turns = Counter(order.ravel().tolist())
    assert set(turns) == set(marked) and max(turns.values()) - min(turns.values()) <= 1


def test_resume_gives_the_same_bits(tmp_path: Path, write_config: Any) -> None:
    changes = {"stages.segmenter": {"epochs": 1}, "runtime.zero_stage": 2}
    straight = write_config(tmp_path / "straight", changes)
    processes.train(2, straight, SEGMENTER).ok()
    stopped = write_config(tmp_path / "stopped", changes)
    ended = processes.train(2, stopped, SEGMENTER, stop="1 0 1 SIGTERM")
    assert ended.codes == (130, 130), ended.text
    assert "stopped in segmenter, epoch 1, after step 2; checkpoint saved" in ended.text
    ended = processes.train(2, stopped, SEGMENTER, "--resume").ok()
    assert "segmenter continues in epoch 1 after step 2" in ended.text
    runs = [path.parent / "run" for path in (straight, stopped)]
    one, other = (load_weights(run / "segmenter/weights.pt") for run in runs)
    assert_same_bits(one, other)
    logged = [list(map(json.loads, (r / "metrics.jsonl").read_text().splitlines())) for r in runs]
    for lines in logged:
        assert [line["step"] for line in lines] == [1, 2, 3, 4]
        assert all(line["stage"] == "segmenter" and "p" not in line for line in lines)
    assert [line["loss"] for line in logged[0]] == [line["loss"] for line in logged[1]]


def checked(path: Path, stages: list[StageId]) -> None:
    config = configs.load(path)
    store = read_store(Path(config.data.store))
    preflight.check(config, store, stages, world=1, resume=False)


def test_refusals(
    tmp_path: Path,
    write_config: Any,
    store_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PcamxError, match="stages.segmenter: not in the config; add a line such as"):
        checked(write_config(tmp_path), [SEGMENTER])
    section = {"stages.segmenter": {"epochs": 1}}
    path = write_config(tmp_path, section | {"data.marked": 0})
    with pytest.raises(PcamxError, match="data.marked: 0 leaves the segmenter no lesion .*raise"):
        checked(path, [SEGMENTER])
    unmarked = Path(shutil.copytree(store_folder, tmp_path / "store"))
    stores.change(unmarked, lambda row: row | {"mark": ""})
    path = write_config(tmp_path, section | {"data.store": str(unmarked)})
    with pytest.raises(PcamxError, match="store: the segmenter needs .* lesion mark.* --marks"):
        checked(path, [SEGMENTER])
    checked(path, [1, 2])
    path = write_config(tmp_path, {"stages.segmenter": {"epochs": 1, "init_from": "stage1"}})
    with pytest.raises(ConfigError, match="segmenter.init_from: stage1 has learned from more than"):
        configs.load(path)


def test_it_may_be_added_to_a_run_and_then_stays(
    tmp_path: Path, write_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = random_run(tmp_path / "run", write_config(tmp_path))
    path = write_config(tmp_path, {"stages.segmenter": {"epochs": 3}})
    checked(path, [SEGMENTER])
    (run / "segmenter").mkdir()
    with pytest.raises(PcamxError, match=r"with another config \(stages.segmenter: .*None"):
        checked(path, [SEGMENTER])
    (run / "config.yaml").write_text(configs.dump(configs.load(path)))
    with pytest.raises(PcamxError, match="already holds segmenter: add --resume"):
        checked(path, [SEGMENTER])


def test_a_section_left_out_is_written_and_read_as_null(tmp_path: Path, write_config: Any) -> None:
    config = configs.load(write_config(tmp_path))
    (tmp_path / "again.yaml").write_text(configs.dump(config))
    assert "segmenter: null" in (tmp_path / "again.yaml").read_text()
    assert configs.load(tmp_path / "again.yaml") == config and config.stages["segmenter"] is None


@pytest.mark.usefixtures("few_pictures")
def test_where_it_is_not_finished_or_not_there(evaluated_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(evaluated_run, copy)
    (copy / "segmenter/weights.pt").unlink()
    found = evaluate(copy)
    assert found["unfinished"] == ["segmenter"] and "segmenter" not in found["baselines"]
    assert "stage3_against_segmenter" not in found
    (copy / "segmenter").rename(copy / "elsewhere")
    shutil.copy(copy / "stage1/weights.pt", copy / "elsewhere/weights.pt")
    (copy / "elsewhere").rename(copy / "segmenter")
    with pytest.raises(PcamxError, match="weights.pt: weights of 1, not of 'segmenter'"):
        evaluate(copy)
