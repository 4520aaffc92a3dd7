"""A whole update as one CUDA graph, for few films a rank: the host then launches one thing a step.

The graph is forward, backward, clipping, AdamW's update with ZeRO's exchange, and the stage's
`after_step`. Outside stay the batch, copied into the tensors that the graph reads, the step sizes,
and DeepSpeed's counters, schedule and monitors.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, Protocol

import torch
from torch import Tensor

from pcamx.config import Config
from pcamx.engine.build import gradients, train_step
from pcamx.engine.ranks import lost_rank
from pcamx.errors import PcamxError
from pcamx.types import Batch

WARM = 3
"""Updates before the recording, in which libraries choose algorithms and AdamW makes its state."""

Work = Callable[[], Tensor]


class Recorder(Protocol):
    """What records an update and plays it again."""

    def warm(self, work: Work) -> Tensor:
        """Do ``work`` once, as a recording will find it done."""

    def record(self, work: Work) -> Work:
        """Record ``work`` without doing it; return what does it, into the same tensor each time."""


class CudaGraph:
    """Records on the current GPU."""

    def __init__(self) -> None:
        self._aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def warm(self, work: Work) -> Tensor:
        """Do ``work`` on the stream to be recorded, in order with what is asked of the device."""
        current = torch.cuda.current_stream()
        self._aside.wait_stream(current)
        with torch.cuda.stream(self._aside):
            told = work()
        current.wait_stream(self._aside)
        return told

    def record(self, work: Work) -> Work:
        """Record ``work`` as a graph; raises RuntimeError where it does what no graph can hold."""
        graph = torch.cuda.CUDAGraph()
        # Not "global": DALI's and NCCL's threads go on asking the device meanwhile.
        with torch.cuda.graph(graph, stream=self._aside, capture_error_mode="thread_local"):
            told = work()

        def play() -> Tensor:
            graph.replay()
            return told

        return play


def stepper(engine: Any, config: Config) -> Callable[[Batch], dict[str, Tensor]]:
    """Return what makes one update of a batch and returns the telemetry: see `train_step`.

    With runtime.compile whole-step it is a `CapturedStep`, made for ``engine`` as it now is: a
    checkpoint is to be loaded before.
    """
    clipping = config.runtime.gradient_clipping
    if config.runtime.compile == "whole-step":
        return CapturedStep(engine, CudaGraph(), clipping=clipping)
    return partial(train_step, engine, clipping=clipping)


class CapturedStep:
    """Updates as `train_step` makes them, the first few by ``recorder.warm``, the others replayed.

    All read the step size from a float32 on the device, so a resume, which warms up anew, gives
    what an uninterrupted run gives. Between steps AdamW is as without a graph, its step size a
    Python number, and so are checkpoints.
    """

    def __init__(self, engine: Any, recorder: Recorder, *, clipping: float) -> None:
        self._engine, self._recorder, self._clipping = engine, recorder, clipping
        groups = engine.basic_optimizer.param_groups
        device = groups[0]["params"][0].device
        self._rates = [torch.empty((), device=device) for _ in groups]
        self._batch: Batch | None = None
        self._names: tuple[str, ...] = ()
        self._warmed = 0
        self._play: Work | None = None
        # It would warn of the warm-up, which is no capture.
        engine.basic_optimizer._warned_capturable_if_run_uncaptured = True

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Make one update; return the telemetry, float64 scalars of its own. Waits for nothing.

        A batch of another shape than the first is trained on as well, but not from the graph.
        Raises PcamxError where the update cannot be captured.
        """
        groups = self._engine.basic_optimizer.param_groups
        for rate, group in zip(self._rates, groups, strict=True):
            rate.fill_(group["lr"])
        if self._take(batch):
            told = self._next()
        else:
            told = self._recorder.warm(lambda: self._update(batch))
        self._count()
        return dict(zip(self._names, told.unbind(), strict=True))

    def _take(self, batch: Batch) -> bool:
        """Copy ``batch`` to where the graph reads it; False where it has another shape."""
        if self._batch is None:
            self._batch = Batch(*(_elements(part).clone().expand_as(part) for part in batch))
            return True
        held, given = [[_elements(part) for part in one] for one in (self._batch, batch)]
        if [part.shape for part in held] != [part.shape for part in given]:
            return False
        for into, part in zip(held, given, strict=True):
            into.copy_(part)
        return True

    def _next(self) -> Tensor:
        """The telemetry of an update of the batch that was taken."""
        assert self._batch is not None
        work = partial(self._update, self._batch)
        if self._warmed < WARM:
            self._warmed += 1
            return self._recorder.warm(work)
        if self._play is None:
            try:
                self._play = self._recorder.record(work)
            except RuntimeError as error:
                if lost_rank(error) or isinstance(error, torch.OutOfMemoryError):
                    raise
                reason = str(error).strip().partition("\n")[0]
                raise PcamxError(
                    f"runtime.compile: whole-step cannot be captured ({reason}); set it to off"
                ) from error
        return self._play().clone()

    def _update(self, batch: Batch) -> Tensor:
        """All that the device does in an update: the telemetry, stacked."""
        engine = self._engine
        output = gradients(engine, batch, clipping=self._clipping)
        with self._rates_on_device():
            engine.optimizer.step()
        engine.module.after_step(output, batch)
        self._names = tuple(output.telemetry)
        return torch.stack([value.double() for value in output.telemetry.values()])

    @contextmanager
    def _rates_on_device(self) -> Iterator[None]:
        """Inside, AdamW reads its step sizes from the device, and allows a capture."""
        groups = self._engine.basic_optimizer.param_groups
        before = [group["lr"] for group in groups]
        for group, rate in zip(groups, self._rates, strict=True):
            group.update(lr=rate, capturable=True)
        try:
            yield
        finally:
            for group, rate in zip(groups, before, strict=True):
                group.update(lr=rate, capturable=False)

    def _count(self) -> None:
        """DeepSpeed's own step, its optimizer idle: counters, schedule, monitors, no gradients."""
        optimizer = self._engine.optimizer
        update = optimizer.step
        # Under its name and marks: the schedule looks for those that it has left there.
        optimizer.step = wraps(update)(lambda: None)
        try:
            self._engine.step()
        finally:
            optimizer.step = update


def _elements(part: Tensor) -> Tensor:
    """A view of each element once: of an expanded zero, that zero."""
    for dim, stride in enumerate(part.stride()):
        if stride == 0:
            part = part.narrow(dim, 0, 1)
    return part
