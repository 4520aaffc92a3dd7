"""A stage under torch.compile: one graph, compiled once, with eager's gradients."""

import copy
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
import torch._dynamo
from small_stages import films, make

from pcamx import config as configs
from pcamx.run.weights import load_weights
from pcamx.training.stages import Stage
from pcamx.types import Batch

CONFIG = torch._dynamo.config


@pytest.fixture(autouse=True)
def _nothing_compiled() -> None:
    torch.compiler.reset()


def _double(batch: Batch) -> Batch:
    return batch._replace(
        image_B1HW=batch.image_B1HW.double(), lesion_B1HW=batch.lesion_B1HW.double()
    )


def _gradients(stage: Stage, batch: Batch) -> dict[str, torch.Tensor]:
    """As in training: P takes the batch in when the backward is done."""
    output = stage(batch)
    output.loss.backward()
    stage.accuracy.take_in(output.logits_BC, batch.label_B)
    return {n: p.grad for n, p in stage.named_parameters() if p.grad is not None}


def test_gradients_are_those_of_eager() -> None:
    """In float64, where rounding is no excuse: lambda too, which reads a buffer."""
    stage, batch = make(2, p=0.9).double(), _double(films(4, 32))
    compiled = copy.deepcopy(stage)
    compiled.compile(backend="aot_eager", fullgraph=True)
    expected, found = _gradients(stage, batch), _gradients(compiled, batch)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9, msg=name)
    assert compiled.accuracy.value == stage.accuracy.value != 0.9
    for name, buffer in stage.named_buffers():
        torch.testing.assert_close(compiled.get_buffer(name), buffer, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_forward_is_one_graph_and_compiled_once(number: int) -> None:
    """Both passes in it; nor anew for another P, or after a validation with a shorter batch."""
    stage, batch = make(number), films(4, 32)
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Any:
        graphs.append(graph)
        return graph.forward

    stage.compile(backend=backend, fullgraph=True)
    unmarked = batch._replace(
        marked_B=torch.zeros_like(batch.marked_B), lesion_B1HW=torch.zeros_like(batch.lesion_B1HW)
    )
    autocast = torch.autocast("cpu", torch.bfloat16)
    with autocast:
        _gradients(stage, batch)
    with autocast, CONFIG.patch(error_on_recompile=True):
        for epoch in range(2):
            _gradients(stage, batch)
            _gradients(stage, unmarked)
            stage.eval()
            with torch.no_grad():
                stage.network(batch.image_B1HW)
                stage.network(batch.image_B1HW[: 2 + epoch])
            stage.train()
    assert len(graphs) == 1


def test_a_resumed_run_gives_the_same_bits(tmp_path: Path, write_config: Any) -> None:
    """One epoch is 4 steps, of two; a new process compiles anew."""
    changes = {"runtime.compile": True}
    straight, stopped = (write_config(tmp_path / name, changes) for name in ("a", "b"))
    never = "0 9 9 SIGTERM"
    processes.train(1, straight, 1, stop=never).ok()
    assert processes.train(1, stopped, 1, stop="0 0 1 SIGTERM").code == 130
    processes.train(1, stopped, 1, "--resume", stop=never).ok()
    ours, theirs = (
        load_weights(path.parent / "run/stage1/weights.pt") for path in (straight, stopped)
    )
    assert ours.accuracy == theirs.accuracy
    assert all(torch.equal(value, theirs.state[name]) for name, value in ours.state.items())


def test_zero_3_is_not_compiled(tmp_path: Path, write_config: Any) -> None:
    path = write_config(tmp_path, {"runtime.zero_stage": 3, "runtime.compile": True})
    with pytest.raises(configs.ConfigError, match="runtime.compile: ZeRO-3 .* set runtime.zero"):
        configs.load(path)


@pytest.mark.gpu
@pytest.mark.parametrize("number", [1, 2, 3])
def test_kernels_and_graph_on_a_gpu(number: int) -> None:
    """The Triton kernels within inductor's graph."""
    device = torch.device("cuda")
    stage, batch = make(number).to(device), Batch(*(t.to(device) for t in films(8, 64)))
    compiled = copy.deepcopy(stage)
    compiled.compile(fullgraph=True)
    expected, found = _gradients(stage, batch), _gradients(compiled, batch)
    whole, ours = (torch.cat([g.flatten() for g in x.values()]) for x in (expected, found))
    assert (ours - whole).norm() < 0.05 * whole.norm()
