"""The bench of the kernels: its counts by hand, its rivals, and that it gives no wrong figure."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import chart, kernels
from bench.lib import timing
from bench.lib.operations import attention, case, films, floors, peers, rivals, roofline, tracing
from bench.lib.operations.case import (
    COMPILED,
    EAGER,
    OURS,
    REFERENCE,
    TWO_MATMULS,
    Case,
    Impl,
    Size,
)
from bench.lib.operations.check import SANE, check
from bench.lib.operations.roofline import Shape
from bench.lib.record import Record, Row
from pcamx.errors import PcamxError
from pcamx.kernels import reference

CPU = torch.device("cpu")
SMALL = Size(2, 32)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few repeats, and nothing compiled: PyTorch's compiler is not what is tested."""
    monkeypatch.setattr(timing, "SECONDS", {"cpu": 0.0, "cuda": 0.01})
    monkeypatch.setattr(timing, "COPY_BYTES", {"cpu": 2**20, "cuda": 2**20})
    if not torch.cuda.is_available():
        monkeypatch.setattr(attention, "compiled", lambda function: function)
        monkeypatch.setattr(films, "compiled", lambda function: function)


@pytest.fixture
def ours_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels on Triton's interpreter, as the bench runs them on a GPU."""
    monkeypatch.setattr(attention, "subject", lambda device: OURS)
    monkeypatch.setattr(films, "subject", lambda device: OURS)
    monkeypatch.setattr(case, "subject", lambda device: OURS)


def test_bytes_by_hand() -> None:
    shape = Shape(B=2, K=3, h=4, w=5, H=7, W=9)
    assert roofline.class_activation_bytes(shape, s=2) == 2 * (2 * 60 + 4 * 20)
    assert roofline.attend_forward_bytes(shape, s=2, t=4) == 2 * (2 * 60 + 8 * 63 + 16 * 20)
    assert roofline.attend_backward_bytes(shape, s=2, t=4) == 2 * (4 * 60 + 8 * 63 + 12 * 20)
    assert roofline.gather_affine_normalise_bytes(shape) == 2 * (63 + 63 + 4 * 63 + 4 * 63)
    image = Shape(B=1, K=128, h=20, w=20, H=320, W=320)  # as kernels/README.md says
    assert round(roofline.attend_forward_bytes(image, 2, 2) / 1e6, 2) == 0.52
    assert round(roofline.attend_backward_bytes(image, 2, 2) / 1e6, 2) == 0.62


@pytest.mark.parametrize(("cells", "pixels"), [(4, 64), (3, 47), (5, 4), (1, 7)])
def test_two_matmuls_are_the_interpolation(cells: int, pixels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    h, w, H, W = cells, cells + 1, pixels, pixels + 3
    ups = {"up_Hh": rivals.upsampling(h, H), "up_wW": rivals.upsampling(w, W).T}

    def normal(*wanted: int) -> Tensor:
        return torch.randn(*wanted, generator=generator, dtype=torch.float64)

    features, weight = normal(3, 6, h, w).relu(), normal(2, 6)
    image, grads = normal(3, 1, H, W), (normal(3, 1, H, W), normal(3, h, w), normal(3))
    classes = torch.tensor([1, 0, 1])
    found = []
    for function in (
        partial(reference.attend, omega=rivals.OMEGA, sigma=rivals.SIGMA),
        rivals.attend,
        partial(rivals.attend_two_matmuls, **ups),
    ):
        leaves = [t.clone().requires_grad_() for t in (features, weight, image)]
        out = function(leaves[0], leaves[1], classes, leaves[2])
        found.append([*out, *torch.autograd.grad(out, leaves, grads)])
    for mine, eager, true in zip(found[2], found[1], found[0], strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(eager, true, rtol=1e-11, atol=1e-12)


def test_kept_bytes_by_hand() -> None:
    x = torch.ones(10, dtype=torch.float64, requires_grad=True)
    y = torch.ones(7, requires_grad=True)
    assert tracing.kept_bytes(lambda: x.exp(), [x]) == 80  # its result
    assert tracing.kept_bytes(lambda: x.exp()[:3].sin().cos(), [x]) == 80 + 24  # a view: whole
    assert tracing.kept_bytes(lambda: x * x.detach(), [x]) == 0  # the inputs themselves
    assert tracing.kept_bytes(lambda: [x.exp(), y.exp()], [x, y]) == 80 + 28
    assert tracing.kept_bytes(lambda: x * 2 + 1, [x]) == 0


def test_launches_are_what_ran_on_the_device() -> None:
    cats = ["kernel", "cuda_runtime", "gpu_memset", "kernel", "gpu_user_annotation", "gpu_memcpy"]
    trace = {"traceEvents": [{"cat": cat} for cat in cats] + [{"name": "no category"}]}
    assert tracing.count_launches(trace) == 4
    assert tracing.launches(lambda: None, CPU) is None


@pytest.mark.usefixtures("ours_here")
def test_the_kernels_pass_and_keep_what_their_readme_says() -> None:
    for made in kernels.cases([SMALL], CPU):
        errors = check(made)
        assert made.subject == OURS
        assert {row.impl for row in errors} == set(made.impls)
        if made.learns:
            cells = 2 * 2
            kept = tracing.kept_bytes(made.impls[OURS].call, made.inputs)
            assert kept == SMALL.batch * (4 * cells + 4)
            pixels = SMALL.batch * 32 * 32
            assert tracing.kept_bytes(made.impls[EAGER].call, made.inputs) >= 4 * pixels


def case_of(ours: Tensor, eager: Tensor, other: Tensor, output: str = "map") -> Case:
    impls = {OURS: Impl(lambda: (ours,)), EAGER: Impl(lambda: (eager,))}
    impls[COMPILED] = Impl(lambda: other)
    truth = torch.tensor([4.0, 0.0, -2.0], dtype=torch.float64)
    return Case("c", SMALL, OURS, impls, (output,), lambda: (truth,), 1, ())


@pytest.fixture
def _sane_to_a_hundredth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SANE, torch.float32, 0.01)


@pytest.mark.usefixtures("_sane_to_a_hundredth")
def test_errors_by_hand() -> None:
    ours, eager = torch.tensor([4.0, 0.0, -2.0036]), torch.tensor([4.002, 0.0, -2.0])
    rows = check(case_of(ours, eager, torch.tensor([4.0, 1e-3, -2.0])))
    assert [(row.impl, row.metric) for row in rows] == [
        (impl, "error of map") for impl in (OURS, EAGER, COMPILED)
    ]
    assert [row.value for row in rows] == pytest.approx([9e-4, 5e-4, 2.5e-4], rel=1e-3)
    share = check(case_of(ours, ours, ours, "lesion"))
    assert share[0].value == pytest.approx(0.0036 / 3, rel=1e-3)


@pytest.mark.parametrize(
    ("changed", "wrong", "said"),
    [
        (0, [4.0, 0.0, -2.005], "c: ours, map: error 0.0013, eager's 0.0005; no figure"),
        (0, [4.0, 0.0, float("nan")], "ours, map: relative rms error nan"),
        (0, [4.0, 0.0], "ours, map: relative rms error inf"),
        (2, [4.0, 0.1, -2.0], "c: torch.compile, map: relative rms error 0.022; no"),
    ],
)
@pytest.mark.usefixtures("_sane_to_a_hundredth")
def test_what_is_wrong_is_named(changed: int, wrong: list[float], said: str) -> None:
    good = torch.tensor([4.002, 0.0, -2.0])
    results = [good, good, good]
    results[changed] = torch.tensor(wrong)
    with pytest.raises(PcamxError) as caught:
        check(case_of(*results))
    assert said in str(caught.value)


def options(folder: Path) -> argparse.Namespace:
    return argparse.Namespace(
        sizes=[SMALL, SMALL], json=folder / "k.json", markdown=folder / "k.md"
    )


def test_a_fault_leaves_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = reference.normalise

    def faulty(map_Bhw: Tensor) -> tuple[Tensor, Tensor]:
        scaled_Bhw, flat_B = right(map_Bhw)
        return scaled_Bhw * 1.0001, flat_B

    exact = [made.truth() for made in kernels.cases([SMALL], CPU)]
    monkeypatch.setattr(reference, "normalise", faulty)

    def cases(*_: Any) -> Iterator[Case]:
        for made, truth in zip(right_cases([SMALL], CPU), exact, strict=True):
            yield replace(made, truth=lambda truth=truth: truth)

    right_cases = kernels.cases
    monkeypatch.setattr(kernels, "cases", cases)
    monkeypatch.setattr(sys, "argv", ["kernels"])
    with pytest.raises(PcamxError, match="attend forward, B 2, .*: reference, image: error"):
        kernels.run(options(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["kernels"])
    for name in ("torchcam", "torchcam.methods", "pytorch_grad_cam"):
        monkeypatch.setitem(sys.modules, name, None)
    kernels.run(options(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"k.json", "k.md", "k.png"}
    rows = [Row(**row) for row in json.loads((tmp_path / "k.json").read_text())["rows"]]
    names = list(dict.fromkeys(row.case for row in rows))
    assert names[0] == "device" and len(names) == 1 + kernels.OPERATIONS
    assert names[4] == "attend forward + backward, B 2, 32 px, float32"
    found = {(r.impl, r.metric, r.ratio_to): r.value for r in rows if r.case == names[4]}
    assert {impl for impl, *_ in found} == {REFERENCE, EAGER, COMPILED, TWO_MATMULS}
    eager, ours = found[EAGER, "time p50", None], found[REFERENCE, "time p50", None]
    assert found[REFERENCE, "speed", EAGER] == pytest.approx(eager / ours)
    moved = 2 * (3 * 4 * 128 * 4 + 4 * 4 * 32 * 32 + 28 * 4)
    assert found[EAGER, "bandwidth", None] == pytest.approx(moved / eager / 1e6)
    assert found[REFERENCE, "kept", EAGER] == pytest.approx(
        found[REFERENCE, "kept", None] / found[EAGER, "kept", None]
    )
    text = (tmp_path / "k.md").read_text()
    assert "- A CPU: this is the reference in plain PyTorch, not the kernels" in text
    assert "- not run: torch-cam CAM: import of torchcam" in text
    assert "- not run: pytorch-grad-cam GradCAM: import of pytorch_grad_cam halted" in text


def test_a_peer_that_runs_is_held_against_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    def pretend(features: Tensor, weight: Tensor, classes: list[int]) -> Callable[[], Any]:
        plain = reference.class_activation(features, weight, torch.tensor(classes), positive=False)
        return lambda: reference.normalise(plain.relu())[0].numpy()

    def refuse(*_: Any) -> Callable[[], Any]:
        raise ImportError("No module named 'torchcam'")

    monkeypatch.setattr(peers, "_torch_cam", refuse)
    monkeypatch.setattr(peers, "_grad_cam", pretend)
    made = attention.class_activation_case(SMALL, CPU, positive=False)
    assert made.missing == {peers.TORCH_CAM: "No module named 'torchcam'"}
    assert peers.GRAD_CAM in {row.impl for row in check(made)}
    monkeypatch.setattr(peers, "_torch_cam", pretend)  # which does not cut off at 0
    with pytest.raises(PcamxError, match="torch-cam CAM, map: relative rms error"):
        check(attention.class_activation_case(SMALL, CPU, positive=False))


def test_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    def capture(call: Callable[[], Any]) -> timing.Timing:
        if call() == "host":
            raise RuntimeError("operation not permitted\nwhen capturing")
        return timing.Timing(call(), 1.0, 9.0)

    monkeypatch.setattr(kernels, "time_graph", capture)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda: argparse.Namespace(L2_cache_size=10)
    )
    impls = {OURS: Impl(lambda: 2.0), EAGER: Impl(lambda: 8.0), COMPILED: Impl(lambda: "host")}
    impls[peers.GRAD_CAM] = Impl(lambda: 1.0, captured=False)
    made = Case("op, B 1, 32 px, bfloat16", SMALL, OURS, impls, (), tuple, 40, ())
    rows, notes = kernels.measure_graphs(made, copy=1.0)
    assert notes == [
        "not run: op in a CUDA graph, B 1, 32 px, bfloat16: torch.compile: operation not permitted"
    ]
    assert {row.impl for row in rows} == {OURS, EAGER}
    assert [row.value for row in rows if row.metric == "speed"] == [4.0]
    assert not [row for row in rows if row.metric == "bandwidth"]
    rows, _ = kernels.measure_graphs(replace(made, bytes_moved=41), copy=1.0)
    assert [row.unit for row in rows if row.metric == "bandwidth"] == ["GB/s", "x"] * 2


def test_sizes() -> None:
    assert kernels.size("256") == Size(256, 320) and kernels.size("16@1024") == Size(16, 1024)
    for wrong in ("0", "4@16", "4@100", "x", "4@", "-1"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected images, or images@pixels"):
            kernels.size(wrong)


def test_chart() -> None:
    rows = [
        row
        for operation in ("a", "b")
        for batch, ms in ((1, 2.0), (16, 8.0))
        for impl in (OURS, EAGER)[: batch // 8 + 1]
        for row in timing.Timing(ms, ms / 2, 2 * ms).rows(f"{operation}, B {batch}, 320 px", impl)
    ]
    rows.append(Row("a, B 16, 320 px", EAGER, "bandwidth", 0.25, "x", "copy"))
    figure = chart.draw(Record("a device", {}, None, "python -m bench.kernels", rows))
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    lines = {str(line.get_label()): line for line in figure.axes[0].lines}
    assert list(lines) == [chart.FLOOR, OURS, EAGER]
    assert list(lines[OURS].get_ydata()) == [2.0, 8.0]
    assert list(lines[EAGER].get_xdata()) == [1]
    assert list(lines[chart.FLOOR].get_ydata()) == [2.0]
    with pytest.raises(PcamxError, match="no times"):
        chart.draw(Record("a device", {}, None, "", []))


def test_counted_floors_stand_beside_the_times() -> None:
    """By hand: 64 of 256 images, 1 + 2 + 3 + 4 us by instructions and 10 times that by bytes."""
    name, kernels_of = floors.KERNELS["attend forward + backward"]
    rows = {k: {"issue_us": i, "bytes_us": 10.0 * i} for i, k in enumerate(kernels_of, 1)}
    made = attention.attend_case(Size(64, 320), CPU, learns=True)
    found = floors.rows(made, {name: rows})
    assert [(r.case, r.impl, r.metric, r.unit) for r in found] == [
        (made.name, made.subject, f"floor by {what}", "ms") for what in ("instructions", "bytes")
    ]
    assert [r.value for r in found] == pytest.approx([0.0025, 0.025])
    assert floors.rows(attention.attend_case(Size(2, 64), CPU, learns=True), {}) == []
    assert floors.counted(CPU) == {}


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    device = torch.device("cuda")
    made = attention.attend_case(Size(4, 64), device, learns=True)
    rows = kernels.measure(made, device, copy=1000.0)
    found = {(r.impl, r.metric, r.ratio_to): r.value for r in rows}
    assert found[OURS, "launches", None] == 4
    assert 0 < found[OURS, "peak", None] and 0 < found[OURS, "time p50", None]
    assert found[OURS, "kept", None] < found[EAGER, "kept", None] / 10
    graphs, notes = kernels.measure_graphs(made, copy=1000.0)
    assert notes == [] and {row.impl for row in graphs} == set(made.impls)
    batch = films.gather_affine_normalise_case(Size(4, 64), device)
    assert case.working_dtype(device) == torch.bfloat16
    assert {row.impl for row in check(batch)} == {OURS, REFERENCE, EAGER, COMPILED}
