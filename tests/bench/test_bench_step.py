"""The bench of the step: its counts by hand, and that it gives no wrong figure."""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
from torch import Tensor, nn

from bench import step
from bench.lib.loops import Films, Work
from bench.lib.operations.case import Size
from bench.lib.step_bytes import _elements, step_bytes
from bench.lib.step_timing import Paces
from bench.step import PLAIN, open_loops
from pcamx.engine import Ranks
from pcamx.errors import PcamxError

ALONE = Ranks(0, 1, torch.device("cpu"))


def test_elements_by_hand() -> None:
    x, y = torch.zeros(1, 2, 8, 8), torch.zeros(1, 3, 4, 4)
    learnt = torch.zeros(1, 2, 8, 8, requires_grad=True)
    assert _elements(nn.Conv2d(2, 3, 3), x, y) == 2 * (128 + 48)  # films need no gradient
    assert _elements(nn.Conv2d(2, 3, 3), learnt, y) == 3 * (128 + 48)
    assert _elements(nn.BatchNorm2d(3), y, y) == 8 * 48
    assert _elements(nn.MaxPool2d(2), x, y) == 2 * (128 + 48)


def test_bytes_of_a_step() -> None:
    """110 MB a film was worked out apart; the second pass also needs the films' gradient."""
    moved = {}
    for stage in (1, 2, 3):
        work = Work(stage, 8, 64, "fp32", ALONE)
        batch = Films(work, "reference").next()
        assert int(batch.marked_B.sum()) == (2 if stage == 3 else 0)
        moved[stage] = step_bytes(work.build(work.config()), batch, 2) / 8
    assert moved[1] * 25 == pytest.approx(110e6, rel=0.01)  # at 320 px
    assert moved[2] - 2 * moved[1] == 2 * (64 * 64 + 32 * 32 * 32)
    third = moved[2] + moved[1] / 2  # two of eight films erased twice in a third pass
    assert third < moved[3] < 1.1 * third


def test_ratio_is_the_median_over_rounds() -> None:
    paces = Paces({"ours": [2.0, 9.0, 3.0], "plain": [1.0, 3.0, 2.0]})  # 2, 3, 1.5
    assert paces.ratio("ours", "plain") == 2.0
    assert paces.timing("ours").p50 == 3.0


@pytest.mark.parametrize("stage", [1, 3])
def test_rivals_get_the_same_films(stage: int) -> None:
    work = Work(stage, 4, 32, "fp32", ALONE)
    ours, theirs = Films(work, "auto"), Films(work, "reference")
    first = ours.next()
    assert all(torch.equal(a, b) for a, b in zip(first, theirs.next(), strict=True))
    assert not torch.equal(first.image_B1HW, ours.next().image_B1HW)
    assert bool(first.marked_B.any()) == (stage == 3) == bool(first.lesion_B1HW.any())


def _falls_by(factor: float) -> step.Step:
    loss = torch.tensor(1.0)

    def one() -> Tensor:
        return loss.mul_(factor).clone()

    return one


def test_a_loop_that_trains_otherwise_gives_no_figure() -> None:
    work = Work(1, 4, 32, "fp32", ALONE)
    made = {
        PLAIN: lambda: _falls_by(0.9),
        "ours": lambda: _falls_by(0.9),
        "x": lambda: _falls_by(1),
    }
    with pytest.raises(PcamxError) as caught:
        open_loops("stage 1", work, made, [])
    assert "stage 1: x: loss 1 at step 1, plain PyTorch 0.9; x: loss" in str(caught.value)
    assert "ours" not in str(caught.value)
    steps, rows = open_loops("stage 1", work, {PLAIN: lambda: _falls_by(0.9)}, [])
    assert list(steps) == [PLAIN] and rows == []


def test_what_cannot_be_compiled_is_left_out_and_noted() -> None:
    def broken() -> Tensor:
        raise torch._dynamo.exc.TorchDynamoException("no C++ compiler\nmore")

    notes: list[str] = []
    made = {PLAIN: lambda: _falls_by(0.9), "compiled": lambda: broken}
    steps, _ = open_loops("stage 1", Work(1, 4, 32, "fp32", ALONE), made, notes)
    assert list(steps) == [PLAIN]
    assert notes == ["not run: stage 1: compiled: no C++ compiler"]


def test_what_cannot_be_captured_is_left_out_and_noted() -> None:
    """A graph is recorded after a few steps that did well."""
    fine, done = _falls_by(0.9), []

    def captured() -> Tensor:
        done.append(fine())
        if len(done) > 3:
            raise PcamxError("runtime.compile: whole-step cannot be captured")
        return done[-1]

    notes: list[str] = []
    made = {PLAIN: lambda: _falls_by(0.9), "captured": lambda: captured}
    steps, _ = open_loops("stage 1", Work(1, 4, 32, "fp32", ALONE), made, notes)
    assert list(steps) == [PLAIN]
    assert notes == ["not run: stage 1: captured: runtime.compile: whole-step cannot be captured"]


def test_each_loop_is_compiled_once() -> None:
    """Opening one must not throw away what was compiled for those before."""
    compiled = dict.fromkeys((PLAIN, "ours", "x"), 0)

    def make(name: str) -> step.Step:
        def backend(graph: Any, _: object) -> Any:
            compiled[name] += 1
            return graph.forward

        loss = torch.tensor(1.0)
        return torch.compile(lambda: loss * 0.5, backend=backend)

    made = {name: partial(make, name) for name in compiled}
    steps, _ = open_loops("stage 1", Work(1, 4, 32, "fp32", ALONE), made, [])
    for one in steps.values():
        one()
    assert set(compiled.values()) == {1}, compiled


@pytest.mark.parametrize("text", ["1", "0@64", "8@33", "8@16", "x", "8@", "@64", "-8"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="films@pixels with pixels a multiple"):
        step.size(text)
    assert step.size("8@64") == Size(8, 64) and step.size("8") == Size(8, 320)


def test_the_bench_runs(tmp_path: Path) -> None:
    code = (
        "import runpy, bench.lib.step_timing\n"
        "bench.lib.step_timing.MOST = bench.lib.step_timing.LEAST\n"
        "runpy.run_module('bench.step', run_name='__main__', alter_sys=True)\n"
    )
    ended = processes.python(
        *("-c", code, "--stages", "3", "--sizes", "4@32"),
        *("--precision", "fp32", "bf16", "--zero", "0", "1", "--eager"),
        *("--json", tmp_path / "a.json", "--markdown", tmp_path / "a.md"),
        cwd=processes.PROJECT,
    ).ok()
    assert "Traceback" not in ended.text
    found = json.loads((tmp_path / "a.json").read_text())
    assert set(found) == {"device", "versions", "commit", "command", "rows"}
    assert {r["case"] for r in found["rows"]} == {
        "device",
        *(f"stage 3, B 4, 32 px, {precision}" for precision in ("fp32", "bf16")),
    }
    rows = {
        (r["impl"], r["metric"], r["ratio_to"]): r
        for r in found["rows"]
        if not r["case"].endswith("bf16")
    }
    switches = ("channels first", "AdamW not fused", "stem not by phases")
    plain = (PLAIN, *(f"{PLAIN}, {switch}" for switch in switches))
    for impl in (*plain, "ours, ZeRO-0", "ours, ZeRO-1", step.DEFAULTS):
        p50, films = rows[impl, "step p50", None], rows[impl, "films", None]
        assert p50["case"] == "stage 3, B 4, 32 px, fp32"
        assert films["value"] == pytest.approx(4 * 1000 / p50["value"])
        assert 0 < rows[impl, "of the roofline", "copy"]["value"] < 1
        assert impl == PLAIN or rows[impl, "step", PLAIN]["value"] > 0
    assert "| ours, ZeRO-1 |" in (tmp_path / "a.md").read_text()


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    ended = processes.python(
        *("-m", "bench.step", "--markdown", tmp_path / "none/a.md"),
        cwd=processes.PROJECT,
    )
    assert ended.code == 2
    last = ended.text.strip().splitlines()[-1]
    assert last.startswith("python -m bench.step: error: ") and "none/a.md" in last
