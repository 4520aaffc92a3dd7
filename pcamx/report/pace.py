"""How fast training goes and how long it still takes."""

import time

from pcamx.catalogue import StageId, trainable


def time_left(done: int, left: int, seconds: float) -> str:
    """Time for ``left`` more at the pace of ``done`` in ``seconds``, as ``0:03:20``."""
    if not done:
        return "-:--:--"
    whole = round(seconds / done * max(left, 0))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class Pace:
    """Counts the steps that this process takes in a stage, and the time they need."""

    def __init__(self) -> None:
        self.name, self.steps = "", 0
        self._stage: StageId = 0
        self._ahead = self._done = self._images = 0
        self._stage_begun = self._epoch_begun = self._last = 0.0

    def epoch_start(self, stage: StageId, epoch: int, epochs: int, steps: int) -> None:
        """Begin ``epoch``, counted from 0, of ``epochs`` with ``steps`` steps."""
        self._epoch_begun = self._last = time.monotonic()
        if stage != self._stage:
            self._stage, self._done, self._stage_begun = stage, 0, self._epoch_begun
        self.name, self.steps = f"{trainable(stage).title}  epoch {epoch + 1}/{epochs}", steps
        self._ahead, self._images = epochs - epoch - 1, 0

    def step(self, images: int) -> None:
        """Count a step of ``images`` images."""
        self._done += 1
        self._images += images
        self._last = time.monotonic()

    def seconds(self) -> float:
        """Return the seconds of this epoch so far, validation and all."""
        return time.monotonic() - self._epoch_begun

    def images_per_second(self) -> str:
        """Return the speed of this epoch's steps alone."""
        seconds = self._last - self._epoch_begun
        return f"{self._images / seconds:,.0f} images/s" if seconds > 0 else "– images/s"

    def left(self, step: int) -> str:
        """Time left of the stage once ``step`` steps of the epoch are done."""
        steps = self.steps - step + self._ahead * self.steps
        return time_left(self._done, steps, time.monotonic() - self._stage_begun)
