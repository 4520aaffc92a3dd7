"""What a person sees in the terminal, and what a log file gets instead.

On a terminal: live bars. Elsewhere (a pipe, a batch job's log): plain lines, one an epoch.
Progress and warnings go to stderr, results to stdout.
"""

import functools
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from pcamx.catalogue import ACCURACY, AUROC, LOSS, MAPS, MIOU, POINTING, StageId, losses
from pcamx.output import printable
from pcamx.report import numbers
from pcamx.report.pace import Pace, time_left

T = TypeVar("T")
PLAIN_EVERY = 20.0  # seconds between two lines where nothing can be redrawn
_SHARES = {"p": "P", "lam": "lambda", "area": "mask area"}


@functools.cache
def _stderr() -> Console:
    # One for all: rich stacks a bar on another only within the same console. Made at the first
    # call, not at import, and it looks up sys.stderr each time it writes.
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def _live(console: Console) -> bool:
    return sys.stderr.isatty() and console.is_terminal and not console.is_dumb_terminal


def _line(console: Console, text: str, style: str = "") -> None:
    """Print one line as it is, unbroken however narrow the log, free of control characters."""
    console.print(Text(printable(text), style=style), soft_wrap=True)


def say(text: str) -> None:
    """Write one line to stderr (a progress.Say)."""
    _line(_stderr(), text)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[pace]}"),
        console=console,
        refresh_per_second=4,
        # stdout may be a file while stderr is a terminal: then it must stay that file.
        redirect_stdout=sys.stdout.isatty(),
        expand=True,
    )


def track(work: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield the items of ``work`` and show how many of ``total`` are done (a progress.Track).

    Of no items nothing is said.
    """
    if not total:
        yield from work
        return
    console = _stderr()
    if not _live(console):
        yield from _track_plainly(work, what, total, console)
        return
    with _bar(console) as bar:
        task = bar.add_task(what, total=total, pace="")
        start = time.monotonic()
        for done, item in enumerate(work, 1):
            yield item
            seconds = max(time.monotonic() - start, 1e-9)
            pace = f"{done / seconds:,.1f}/s ETA {time_left(done, total - done, seconds)}"
            bar.update(task, completed=done, pace=pace)


def _track_plainly(work: Iterable[T], what: str, total: int, console: Console) -> Iterator[T]:
    _line(console, f"{what}: {total} to do")
    start = said = time.monotonic()
    done = 0
    for item in work:
        yield item
        done += 1
        now = time.monotonic()
        if now - said >= PLAIN_EVERY:
            said = now
            pace = (
                f"{done / (now - start):,.1f}/s, ETA {time_left(done, total - done, now - start)}"
            )
            _line(console, f"{what}: {done}/{total}, {pace}")
    seconds = time.monotonic() - start
    _line(console, f"{what}: {done} done in {numbers.duration(seconds)}")


def _scalars(found: Mapping[str, float]) -> str:
    names = {loss.key: loss.name for loss in losses() if loss != LOSS} | _SHARES
    shown = [f"{name} {numbers.number(found[k])}" for k, name in names.items() if k in found]
    if found.get("flat"):
        shown.append(f"flat {found['flat']:g}")
    return "  ".join(shown)


def _watched(found: Mapping[str, float]) -> str:
    return ", ".join(
        f"{kind.title} {POINTING.title} {numbers.number(found[f'{kind.key}_{POINTING.key}'])} "
        f"{MIOU.title} {numbers.number(found[f'{kind.key}_{MIOU.key}'])}"
        for kind in MAPS
        if f"{kind.key}_{POINTING.key}" in found
    )


class TrainingDisplay:
    """Shows training: a live line on a terminal, one plain line an epoch elsewhere.

    Epochs count from 0. Use as a context manager; with ``enabled=False`` (ranks above 0) it
    takes every call and shows nothing.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._console = _stderr()
        self._warned: set[str] = set()
        self._scalars = ""
        self._bar: Progress | None = None
        self._view: Live | None = None
        self._pace = Pace()

    def __enter__(self) -> Self:
        if self._enabled and _live(self._console):
            self._bar = _bar(self._console)
            self._view = Live(
                get_renderable=self._render,
                console=self._console,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
            )
            self._view.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._view is not None:
            self._view.stop()

    def epoch_start(
        self, stage: StageId, epoch: int, epochs: int, steps: int, first_step: int
    ) -> None:
        """Begin ``epoch`` of ``epochs``; it has ``steps`` steps, ``first_step`` of them done."""
        self._pace.epoch_start(stage, epoch, epochs, steps)
        self._scalars = ""
        if self._bar is not None:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._bar.add_task(self._pace.name, total=steps, completed=first_step, pace="")

    def step(self, step: int, images: int, scalars: Mapping[str, float] | None = None) -> None:
        """Count a step of ``images`` images over all ranks; ``step`` of the epoch are done now.

        ``scalars`` are those of a logged step: losses by key, p, lam, area, flat.
        """
        self._pace.step(images)
        if scalars is not None:
            self._scalars = _scalars(scalars)
        if self._bar is not None:
            pace = f"{self._pace.images_per_second()} ETA {self._pace.left(step)}"
            self._bar.update(self._bar.task_ids[0], completed=step, pace=pace)

    def epoch_end(
        self,
        epoch: int,
        validation: Mapping[str, float | None],
        watched: Mapping[str, float] | None = None,
    ) -> None:
        """Leave one line that says what ``epoch`` cost and where it ended.

        ``validation`` holds auroc and accuracy, None where undefined; ``watched`` is what
        `pcamx.training.held_back.look` finds.
        """
        valid = [
            f"{measure.title} {numbers.number(validation[measure.key])}"
            for measure in (AUROC, ACCURACY)
            if measure.key in validation
        ]
        parts = [
            self._pace.name,
            numbers.duration(self._pace.seconds()),
            self._pace.images_per_second(),
            f"ETA {self._pace.left(self._pace.steps)}",
            self._scalars,
            "valid " + " ".join(valid) if valid else "",
            f"watched {_watched(watched)}" if watched else "",
        ]
        self.note("  ".join(part for part in parts if part))

    def warn(self, text: str) -> None:
        """Say ``text`` once, however often it comes."""
        if self._enabled and text not in self._warned:
            self._warned.add(text)
            _line(self._console, f"warning: {text}", "yellow")

    def note(self, text: str) -> None:
        """Say ``text``."""
        if self._enabled:
            _line(self._console, text)

    def _render(self) -> Group:
        parts: list[RenderableType] = []
        if self._bar is not None and self._bar.task_ids:
            parts.append(self._bar.get_renderable())
        if self._scalars:
            parts.append(Text(self._scalars, no_wrap=True, overflow="ellipsis"))
        return Group(*parts)
