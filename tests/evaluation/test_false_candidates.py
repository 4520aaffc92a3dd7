"""A false candidate of `pcamx evaluate` is a film on which `pcamx explain` shows one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pcamx import metrics
from pcamx.catalogue import FALSE_ACTIVATION, FALSE_CANDIDATES
from pcamx.data.store import Film
from pcamx.evaluation.explainers import Maps
from pcamx.evaluation.scoring import Tuning, add_levels, score
from pcamx.explain.drawing import _verdict
from pcamx.explain.messages import Job, Settings
from pcamx.explain.read_film import Reading
from pcamx.types import NORMAL, Batch

CANVAS = 32
SIZES = [(320, 160), (160, 320), (320, 320)]
"""Of films: padding above and below, at the sides, none."""


def hill(row: int, column: int) -> Tensor:
    """A map that peaks at 1, at a pixel of the canvas."""
    y, x = torch.meshgrid(torch.arange(CANVAS), torch.arange(CANVAS), indexing="ij")
    return torch.exp(-((y - row) ** 2 + (x - column) ** 2) / 30.0)


MAPS = torch.stack([hill(4, 16), hill(16, 4), hill(4, 16)])
"""The first two peak on the padding."""
PEAKS = [float(MAPS[0, 8:24].max()), float(MAPS[1, :, 8:24].max()), 1.0]


def films(split: str = "valid") -> list[Film]:
    return [
        Film(f"{i}.png", NORMAL, str(i), str(i), "", split, *size, 255, "")
        for i, size in enumerate(SIZES)
    ]


def batches() -> list[Batch]:
    """Two batches of the three films, of which none is marked."""
    return [
        Batch(
            torch.zeros(n, 1, CANVAS, CANVAS),
            torch.full((n,), NORMAL),
            torch.zeros(n, 1, CANVAS, CANVAS),
            torch.zeros(n, dtype=torch.bool),
        )
        for n in (2, 1)
    ]


def explainer() -> Callable[[Tensor], tuple[None, Maps]]:
    """The films' maps in turn."""
    parts = iter([MAPS[:2], MAPS[2:]])
    return lambda _: (None, {"cam": next(parts)})


def job(number: int) -> Job:
    width, height = SIZES[number]
    shown_HW = np.zeros((height, width), np.uint8)
    sha256, uids = "", dict[str, str]()
    film = Reading(Path("a"), "a", "PNG", width, height, 255, 1, sha256, uids, shown_HW, None)
    scaled_BHW = metrics.minmax(MAPS[number : number + 1])
    return Job(film, 0.3, MAPS[number].numpy(), scaled_BHW[0].numpy())


@pytest.mark.parametrize("level", [0.2, 0.5, 0.97])
def test_what_evaluate_counts_is_what_explain_shows(level: float) -> None:
    scores = score({"stage": explainer()}, batches(), films())["stage"].maps["cam"]
    tuning = Tuning(level=level, activation=level)
    counted_N = scores.values(FALSE_CANDIDATES, tuning)
    assert isinstance(counted_N, Tensor)
    shown = [bool(job(number).candidates(0.5, level)) for number in range(3)]
    assert counted_N.tolist() == shown == [peak >= level for peak in PEAKS]
    active_N = scores.values(FALSE_ACTIVATION, tuning)
    assert isinstance(active_N, Tensor) and active_N.tolist() == shown
    assert scores.of(FALSE_CANDIDATES).tolist() == pytest.approx(PEAKS)


def test_the_level_comes_from_the_films_not_from_their_padding() -> None:
    tuned: dict[str, dict[str, Tuning]] = {"stage": {}}
    add_levels(tuned, {"stage": explainer()}, batches(), films("train"))
    assert tuned["stage"]["cam"].level == pytest.approx(np.quantile(PEAKS, 0.95))


def test_explain_says_what_the_map_reaches_on_the_film() -> None:
    one = job(0)
    assert one.candidates(0.5, 0.9) == [] and one.ends()[1] == 1
    said = _verdict(Settings("cam", 0.5, True, 0.9, "", False, {}), one, 0)
    assert said.endswith(f"no candidates: the map reaches {PEAKS[0]:.3g}, a candidate's 0.9")
